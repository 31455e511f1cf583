-- Hand a running turn back at its last recorded step: running -> queued.
-- KEYS 1 turn (hash), 2 lease (hash), 3 due (zset)
-- ARGV 1 turn id, 2 conversation id, 3 fence, 4 time after which the sweep dispatches it (0 when the
--      caller does)
-- Returns {'released'} or {'fenced'}
-- Promises 5, 7: whoever hands back dispatches the turn again at once. It is due now all the
-- same: a worker that is ending may die first, or take its own wake-up from the broker. With a
-- delay another worker is to run it, one that can (promise 2).
-- A suspect turn stays suspect.

local turn_id, conversation_id, fence, delay_time = unpack(ARGV)

if not owns(KEYS[1], KEYS[2], turn_id, fence) then
  return { redis.call('HGET', KEYS[1], 'released') == fence and 'released' or 'fenced' }
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'status', 'queued', 'released', fence)
count_up(KEYS[1], 'handbacks')
local delay = tonumber(delay_time)
if delay > 0 then
  count_up(KEYS[1], 'deferrals')
end
redis.call('ZADD', KEYS[3], int(now_ms() + delay), conversation_id)
return { 'released' }
