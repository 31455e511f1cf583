-- Replace the reserved tokens of a model call with the tokens that it used.
-- KEYS 1 times (zset: charge -> ms), 2 charges (hash: charge -> tokens; requests, tokens -> sums)
-- ARGV 1 call id, 2 tokens that were reserved, 3 tokens that were used, 4 window
-- Returns the number of tokens charged to the provider now
-- Promise: unused tokens of the reservation are freed immediately. Tokens beyond the reservation are charged
-- now, even over the limit, and even if the reservation has left the window. A repeated call changes nothing.

local call_id, reserved_tokens, used_tokens, window_time = unpack(ARGV)

local id, now, window = call_id, now_ms(), tonumber(window_time)
local reserved, used = tonumber(reserved_tokens), tonumber(used_tokens)
slide(KEYS[1], KEYS[2], now, window)
local charged = tonumber(redis.call('HGET', KEYS[2], id) or '0')
if used < charged then
  redis.call('HSET', KEYS[2], id, int(used))
  redis.call('HINCRBY', KEYS[2], 'tokens', int(used - charged))
elseif used > reserved and not redis.call('ZSCORE', KEYS[1], id .. ':more') then
  charge(KEYS[1], KEYS[2], now, window, id .. ':more', used - reserved)
end
return tonumber(redis.call('HGET', KEYS[2], 'tokens') or '0')
