-- Count a turn among a tenant's turns in flight.
-- KEYS 1 the tenant's turns in flight (zset: turn id -> time of admission in ms)
-- ARGV 1 limit, 2 turn id, 3... turns that are known to have ended
-- Returns {'admitted', turns in flight} or {'full', turn id, ms since its admission, ...}
-- Promise: the limit holds over all gateways. A repeat finds its turn and counts once.

for i = 3, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[i])
end
local now = now_ms()
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then
  if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
    local found = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
    for i = 2, #found, 2 do
      found[i] = int(now - tonumber(found[i]))
    end
    table.insert(found, 1, 'full')
    return found
  end
  redis.call('ZADD', KEYS[1], int(now), ARGV[2])
end
return { 'admitted', redis.call('ZCARD', KEYS[1]) }
