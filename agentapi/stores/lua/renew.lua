-- Keep a lease, and learn whether the turn is to be cancelled.
-- KEYS 1 turn (hash), 2 lease (hash), 3 due (zset)
-- ARGV 1 turn id, 2 conversation id, 3 fence, 4 lease ttl
-- Returns {'renewed', cancel_requested (0|1)} or {'fenced'}
-- Promises 1, 5. An expired lease that nobody took is renewed: its fence is still the newest.

local mine, cancel = owns(KEYS[1], KEYS[2], ARGV[1], ARGV[3])
if not mine then
  return { 'fenced' }
end
local expires = int(now_ms() + tonumber(ARGV[4]))
redis.call('HSET', KEYS[2], 'expires', expires)
redis.call('ZADD', KEYS[3], expires, ARGV[2])
return { 'renewed', cancel }
