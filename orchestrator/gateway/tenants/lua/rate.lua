-- Count a request against a tenant's rate limit.
-- KEYS 1 the tenant's rate (string: time in ms at which its full allowance is available again)
-- ARGV 1 requests per minute
-- Returns {allowed (0|1), requests left, ms until the full allowance is available, ms until one more request
--      is allowed}
-- Promise: the limit holds across all gateways, because the check and the change are one step in Redis's own
-- time.

local requests_per_minute = unpack(ARGV)

local minute, now = 60000, now_ms()
local each = minute / tonumber(requests_per_minute)
local whole = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local after = whole + each
-- The half millisecond absorbs rounding errors, which would otherwise cost the last request of a minute.
if after - now > minute + 0.5 then
  return { 0, 0, int(whole - now), int(math.ceil(after - now - minute)) }
end
redis.call('SET', KEYS[1], string.format('%.3f', after), 'PX', int(after - now + 1000))
return { 1, int(math.floor((minute - (after - now)) / each + 0.001)), int(after - now), 0 }
