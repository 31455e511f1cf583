-- Record that a model call was answered.
-- KEYS 1 state (hash: hold, open, opens, opened_by, probe, probe_until), 2 failures (zset: call -> ms)
-- ARGV none
-- Returns the state of the provider: {ms left of its hold, whether its breaker is not closed (0|1), ms until
--      it may be probed}
-- Promise: a breaker that may be probed closes, and its failures are deleted. A breaker that is still open
-- stays open, because the answer may belong to a call that started before the breaker opened.

local now = now_ms()
local open = redis.call('HGET', KEYS[1], 'open')
if not open or tonumber(open) <= now then
  redis.call('HDEL', KEYS[1], 'open', 'opens', 'opened_by', 'probe', 'probe_until')
  redis.call('DEL', KEYS[2])
end
return standing(KEYS[1], now)
