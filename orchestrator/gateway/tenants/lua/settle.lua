-- Correct what is counted for a tenant's conversations.
-- KEYS 1 what it has stored (hash), 2 when its conversations were looked at (zset)
-- ARGV conversation id, bytes that were counted when it was looked at, bytes that it has, ...
-- Returns bytes that the tenant has stored in all
-- Promise: what was counted meanwhile is not lost: such a conversation is left for the next time. A
-- repeat finds the numbers corrected.

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
