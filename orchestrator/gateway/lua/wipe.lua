-- Delete a part of what a dropped conversation has left, with the turns that it names.
-- KEYS 1 what is left (list)
-- ARGV 1 conversation id, 2 prefix of turn keys, 3 messages after which the step ends, 4 bytes after
--      which it does, 5 id of the step
-- Returns {messages left, hour in which turns were accepted, bytes of what was said to them, ...}
-- Promise 3: a turn that has not ended is kept, since it must reach an end. A repeat finds its step's
-- answer and deletes nothing.

local step = operation_key(KEYS[1], ARGV[5])
local done = answer_before(step)
if done then
  return done
end
local hours = {}
local popped, bytes, newest = 0, 0, nil
while popped < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local message = redis.call('LPOP', KEYS[1])
  if not message then
    break
  end
  popped, bytes = popped + 1, bytes + #message
  local turn_id = message ~= '' and turn_of(message)
  if turn_id and turn_id ~= newest then
    newest = turn_id
    local hour, freed = forget_turn(ARGV[2] .. turn_id, ARGV[1])
    if hour then
      hours[hour] = (hours[hour] or 0) + freed
    end
  end
end
local answer = { redis.call('LLEN', KEYS[1]) }
for hour, freed in pairs(hours) do
  answer[#answer + 1] = hour
  answer[#answer + 1] = int(freed)
end
return keep_answer(step, answer)
