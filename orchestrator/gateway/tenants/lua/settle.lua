-- Correct the bytes that are counted for a tenant's conversations.
-- KEYS 1 the tenant's stored bytes (hash), 2 when its conversations were checked (zset)
-- ARGV conversation id, bytes that were counted when the check began, actual bytes, ...
-- Returns the total of the tenant's stored bytes
-- Promise: bytes counted during the check are not lost. If the count has changed since the check began, the
-- conversation is left for the next check. A repeated call finds the numbers already corrected.

for i = 1, #ARGV, 3 do
  local field = 'c:' .. ARGV[i]
  local counted = redis.call('HGET', KEYS[1], field) or '0'
  if counted == ARGV[i + 1] then
    store_bytes(KEYS[1], field, tonumber(ARGV[i + 2]) - tonumber(counted))
    if ARGV[i + 2] == '0' then
      redis.call('ZREM', KEYS[2], ARGV[i])
    else
      redis.call('ZADD', KEYS[2], int(now_ms()), ARGV[i])
    end
  end
end
return tonumber(redis.call('HGET', KEYS[1], 'total') or '0')
