-- Keep ends from other workers while a worker's hooks run for them.
-- KEYS 1 untold (zset)
-- ARGV 1 time for which to keep them, 2... ends, as tell.lua returned them
-- Returns the number of these ends that still exist
-- Promise 13. An end that was reported in the meantime (told.lua) is not added again. A repeated call only
-- renews the time.

local taken_for = unpack(ARGV, 1, 1)

local held = 0
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], int(now_ms() + tonumber(taken_for)), ARGV[i])
    held = held + 1
  end
end
return held
