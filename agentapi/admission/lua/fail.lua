-- Record a transient failure of a model call: hold the fleet's calls, count the failure towards the breaker,
-- or both.
-- KEYS 1 state (hash: hold, open, opens, opened_by, probe, probe_until), 2 failures (zset: call -> ms)
-- ARGV 1 call id, 2 ms to hold (0 for none), 3 whether the failure counts towards the breaker (0|1), 4 number
--      of failures that opens it, 5 time within which these failures must happen, 6 time for which it stays
--      open, 7 the longest such time, 8 how long to keep the state afterwards
-- Returns the state of the provider: {ms left of its hold, whether its breaker is not closed (0|1), ms until
--      it may be probed, whether this call has opened the breaker (0|1)}
-- Promise: a hold is never shortened. Enough failures open the breaker. A failed probe opens it again for
-- twice the time; other failures change nothing while it is open. A repeated call counts once.

local call_id, hold_time, counts, opening_failures, within, open_time, longest_time,
  memory_time = unpack(ARGV)

local now = now_ms()
local hold = tonumber(hold_time)
if hold > 0 then
  local before = tonumber(redis.call('HGET', KEYS[1], 'hold') or '0')
  redis.call('HSET', KEYS[1], 'hold', int(math.max(before, now + hold)))
  keep(KEYS[1], hold + tonumber(memory_time))
end
if counts == '1' then
  local state = redis.call('HMGET', KEYS[1], 'open', 'probe', 'opens')
  local opens = state[2] == call_id
  if not state[1] then
    -- Delete old failures first: a repeated call may find its own failure among them.
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', int(now - tonumber(within) - 1))
    redis.call('ZADD', KEYS[2], 'NX', int(now), call_id)
    keep(KEYS[2], tonumber(within) + 1000)
    opens = redis.call('ZCARD', KEYS[2]) >= tonumber(opening_failures)
  end
  if opens then
    local before = state[1] and stored(state[3]) or 0
    local longest = tonumber(longest_time)
    local time = math.min(tonumber(open_time) * 2 ^ math.min(before, 30), longest)
    redis.call('HSET', KEYS[1], 'open', int(now + time), 'opens', int(before + 1),
      'opened_by', call_id)
    redis.call('HDEL', KEYS[1], 'probe', 'probe_until')
    redis.call('DEL', KEYS[2])
    keep(KEYS[1], longest + tonumber(memory_time))
  end
end
local answer = standing(KEYS[1], now)
answer[4] = redis.call('HGET', KEYS[1], 'opened_by') == call_id and 1 or 0
return answer
