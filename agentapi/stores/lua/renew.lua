-- Renew a lease, and report whether the turn is to be cancelled.
-- KEYS 1 turn (hash), 2 lease (hash), 3 due (zset)
-- ARGV 1 turn id, 2 conversation id, 3 fence, 4 lease ttl
-- Returns {'renewed', cancel_requested (0|1)} or {'fenced'}
-- Promises 1, 5. An expired lease that no other worker has taken is renewed, because its fence is still the
-- newest.

local turn_id, conversation_id, fence, lease_ttl = unpack(ARGV)

local mine, cancel = owns(KEYS[1], KEYS[2], turn_id, fence)
if not mine then
  return { 'fenced' }
end
local expires = int(now_ms() + tonumber(lease_ttl))
redis.call('HSET', KEYS[2], 'expires', expires)
redis.call('ZADD', KEYS[3], expires, conversation_id)
return { 'renewed', cancel }
