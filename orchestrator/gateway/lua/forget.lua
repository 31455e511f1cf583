-- Delete a turn that has ended: its text, its result and its events.
-- KEYS 1 turn (hash), 2 events (stream), 3 journal (list), 4 calls (hash)
-- ARGV 1 conversation id
-- Returns {'forgotten', hour in which it was accepted, bytes of what was said to it}, {'running'} or
--      {'missing'} (not there, or of another conversation)
-- Promise 3: a turn that has not ended is kept, since it must reach an end.

local turn = redis.call('HMGET', KEYS[1], 'status', 'conversation', 'created')
local status = turn[1]
if not status or turn[2] ~= ARGV[1] then
  return { 'missing' }
end
if not ended(status) then
  return { 'running' }
end
local hour = int(math.floor(tonumber(turn[3] or '0') / 3600000))
local freed = redis.call('HSTRLEN', KEYS[1], 'input') + TURN_OVERHEAD
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
return { 'forgotten', hour, int(freed) }
