-- Read the requests and tokens charged to a provider's budget.
-- KEYS 1 times (zset: charge -> ms), 2 charges (hash: charge -> tokens; requests, tokens -> sums)
-- ARGV 1 window
-- Returns {requests, tokens}
-- Promise: the only change is that charges outside the window are deleted, as the provider's next call would
-- do.

local window_time = ARGV[1]

slide(KEYS[1], KEYS[2], now_ms(), tonumber(window_time))
local sums = redis.call('HMGET', KEYS[2], 'requests', 'tokens')
return { tonumber(sums[1] or '0'), tonumber(sums[2] or '0') }
