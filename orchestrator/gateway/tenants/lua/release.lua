-- Count bytes no more: what they were counted for is gone, or was not accepted.
-- KEYS 1 the tenant's turns in flight (zset), 2 what it has stored (hash)
-- ARGV 1 turn id that is in flight no more ('' for none), 2... field and bytes of it, the field '' for
--      the hour of now
-- Returns {'released'}
-- Promise: no number falls below 0. A repeat with a turn id finds that it is gone and does
-- nothing; another repeat counts too little, until the conversation is looked at (settle.lua).

if ARGV[1] ~= '' and redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
  return { 'released' }
end
for i = 2, #ARGV, 2 do
  local field = ARGV[i] ~= '' and ARGV[i] or 'h:' .. int(math.floor(now_ms() / 3600000))
  store_bytes(KEYS[2], field, -tonumber(ARGV[i + 1]))
end
return { 'released' }
