-- Delete a part of what a dropped conversation has left, with the turns that it names.
-- KEYS 1 what is left (list)
-- ARGV 1 conversation id, 2 prefix of turn keys, 3 messages after which the step ends, 4 bytes after
--      which it does
-- Returns {messages left, hour in which turns were accepted, bytes of what was said to them, ...}
-- Promise 3: a turn that has not ended is kept, since it must reach an end. A repeat goes on.

local hours = {}

local function forget(turn_id)
  local key = ARGV[2] .. turn_id
  local turn = redis.call('HMGET', key, 'status', 'conversation', 'created')
  if turn[1] and ended(turn[1]) and turn[2] == ARGV[1] then
    local hour = int(math.floor(tonumber(turn[3] or '0') / 3600000))
    hours[hour] = (hours[hour] or 0) + redis.call('HSTRLEN', key, 'input')
      + TURN_OVERHEAD
    redis.call('UNLINK', key, key .. ':events', key .. ':journal', key .. ':calls')
  end
end

local popped, bytes, newest = 0, 0, nil
while popped < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local message = redis.call('LPOP', KEYS[1])
  if not message then
    break
  end
  popped, bytes = popped + 1, bytes + #message
  local turn_id = message ~= '' and turn_of(message)
  if turn_id and turn_id ~= newest then
    forget(turn_id)
    newest = turn_id
  end
end
local answer = { redis.call('LLEN', KEYS[1]) }
for hour, freed in pairs(hours) do
  answer[#answer + 1] = hour
  answer[#answer + 1] = int(freed)
end
return answer
