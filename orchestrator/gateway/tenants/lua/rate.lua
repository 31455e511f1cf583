-- Count a request against a tenant's rate.
-- KEYS 1 the tenant's rate (string: time in ms at which its allowance is whole again)
-- ARGV 1 requests a minute
-- Returns {allowed (0|1), requests left, ms until the allowance is whole, ms until one more}
-- Promise: no two gateways let the same request through; time is Redis's own.

local minute, now = 60000, now_ms()
local each = minute / tonumber(ARGV[1])
local whole = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local after = whole + each
-- Half a millisecond: sums of fractions must not lose the last request of a minute.
if after - now > minute + 0.5 then
  return { 0, 0, int(whole - now), int(math.ceil(after - now - minute)) }
end
redis.call('SET', KEYS[1], string.format('%.3f', after), 'PX', int(after - now + 1000))
return { 1, int(math.floor((minute - (after - now)) / each + 0.001)), int(after - now), 0 }
