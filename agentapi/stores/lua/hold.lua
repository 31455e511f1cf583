-- Keep ends that a worker's hooks are being told of.
-- KEYS 1 untold (zset)
-- ARGV 1 time for which they are kept from others, 2... ends, as tell.lua gave them
-- Returns how many of them there still are
-- Promise 13. An end that was told meanwhile stays away. A repeat only renews the time.

local taken_for = unpack(ARGV, 1, 1)

local held = 0
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], int(now_ms() + tonumber(taken_for)), ARGV[i])
    held = held + 1
  end
end
return held
