-- Delete a part of what a dropped conversation has left, with the turns that its messages name.
-- KEYS 1 what is left (list)
-- ARGV 1 conversation id, 2 prefix of turn keys, 3 messages after which the step ends, 4 bytes after
--      which it ends, 5 id of the step
-- Returns {messages left, then for each deleted turn: when it was accepted, bytes of its input}
-- Promise 3: a turn that has not ended stays, since it must reach an end. A repeat finds its step's
-- answer and deletes nothing.

local conversation_id, turns_prefix, max_messages, max_bytes, step_id = unpack(ARGV)

local step = operation_key(KEYS[1], step_id)
local done = answer_before(step)
if done then
  return done
end
local answer = { 0 }
local popped, bytes, newest = 0, 0, nil
while popped < tonumber(max_messages) and bytes < tonumber(max_bytes) do
  local message = redis.call('LINDEX', KEYS[1], 0)
  if not message then
    break
  end
  if string.sub(message, 1, #WAS) == WAS then
    -- The history before a reset comes first, and then its name.
    message = redis.call('LPOP', KEYS[1] .. ':' .. string.sub(message, #WAS + 1)) or ''
  end
  if message == '' or redis.call('LINDEX', KEYS[1], 0) == message then
    redis.call('LPOP', KEYS[1])
  end
  popped, bytes = popped + 1, bytes + #message
  local turn_id = message ~= '' and turn_of(message)
  if turn_id and turn_id ~= newest then
    newest = turn_id
    local accepted, size = forget_turn(turns_prefix .. turn_id, conversation_id)
    if accepted then
      answer[#answer + 1], answer[#answer + 2] = accepted, size
    end
  end
end
answer[1] = redis.call('LLEN', KEYS[1])
return keep_answer(step, answer)
