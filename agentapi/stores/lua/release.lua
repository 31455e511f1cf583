-- Hand a running turn back after its last recorded step: running -> queued.
-- KEYS 1 turn (hash), 2 lease (hash), 3 due (zset)
-- ARGV 1 turn id, 2 conversation id, 3 fence, 4 time after which the sweep dispatches the turn (0 if the
--      caller dispatches it)
-- Returns {'released'} or {'fenced'}
-- Promises 5, 7: without a delay, the caller dispatches the turn again. The turn is due now nevertheless,
-- because a worker that is stopping may die before it does so, or may take its own wake-up from the broker. A
-- delay gives the turn to another worker that can run it (promise 3). A suspect turn stays suspect.

local turn_id, conversation_id, fence, delay_time = unpack(ARGV)

if not owns(KEYS[1], KEYS[2], turn_id, fence) then
  if redis.call('HGET', KEYS[1], 'released') == fence then
    return { 'released' }
  end
  return refuse_write(KEYS[1], fence, 'release')
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'status', 'queued', 'released', fence)
count_up(KEYS[1], 'handbacks')
local delay = tonumber(delay_time)
if delay > 0 then
  count_up(KEYS[1], 'deferrals')
end
note(KEYS[1], now_ms(), '"h",' .. int(delay))
redis.call('ZADD', KEYS[3], int(now_ms() + delay), conversation_id)
return { 'released' }
