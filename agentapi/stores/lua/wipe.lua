-- Delete some of the remains of a dropped conversation, and the turns that its messages belong to.
-- KEYS 1 remains (list)
-- ARGV 1 conversation id, 2 prefix of turn keys, 3 number of messages after which the step ends, 4 bytes
--      after which it ends, 5 id of the step, 6 'lost' if the archive does not have the first turn
-- Returns {messages left, then for each deleted turn: time of acceptance, bytes of its input}
-- Promise 3: a turn that has not ended stays, because it must reach an end. A repeated call finds the answer
-- of its step and deletes nothing. A turn whose record is in the archive is restored first (see away_turn).

local conversation_id, turns_prefix, max_messages, max_bytes, step_id, lost = unpack(ARGV)

local step = operation_key(KEYS[1], step_id)
local done = answer_before(step)
if done then
  return done
end
local answer = { 0 }
local popped, bytes, newest = 0, 0, nil
while popped < tonumber(max_messages) and bytes < tonumber(max_bytes) do
  local key = KEYS[1]
  local message = redis.call('LINDEX', key, 0)
  if not message then
    break
  end
  if string.sub(message, 1, #WAS) == WAS then
    -- Delete the messages of a history before a reset first, then the entry that names it.
    local before = key .. ':' .. string.sub(message, #WAS + 1)
    message = redis.call('LINDEX', before, 0) or ''
    key = message ~= '' and before or key
  end
  local turn_id = message ~= '' and turn_of(message)
  local turn_key = turn_id and turn_id ~= newest and turns_prefix .. turn_id
  local elsewhere = turn_key and redis.call('EXISTS', turn_key) == 0 and away_turn(turn_key)
  if elsewhere and popped == 0 and lost == 'lost' then
    for _, status in ipairs(MOVED) do
      redis.pcall('ZREM', list_key(KEYS[1], 'moved:' .. status), turn_id)
    end
  elseif elsewhere and popped == 0 then
    return elsewhere
  elseif elsewhere then
    -- The next step begins with this turn.
    break
  end
  redis.call('LPOP', key)
  popped, bytes = popped + 1, bytes + #message
  if turn_key then
    newest = turn_id
    local accepted, size = forget_turn(turns_prefix .. turn_id, conversation_id)
    if accepted then
      answer[#answer + 1], answer[#answer + 2] = accepted, size
    end
  end
end
answer[1] = redis.call('LLEN', KEYS[1])
return keep_answer(step, answer)
