-- Tell what is charged to the budget of a provider.
-- KEYS 1 times (zset: charge -> ms), 2 charges (hash: charge -> tokens; requests, tokens -> sums)
-- ARGV 1 window
-- Returns {requests, tokens}
-- Promise: it only deletes charges that have left the window, as the next call of the provider would.

local window_time = ARGV[1]

slide(KEYS[1], KEYS[2], now_ms(), tonumber(window_time))
local sums = redis.call('HMGET', KEYS[2], 'requests', 'tokens')
return { tonumber(sums[1] or '0'), tonumber(sums[2] or '0') }
