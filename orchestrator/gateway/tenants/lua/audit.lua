-- Which conversations of a tenant have not been looked at for longest?
-- KEYS 1 what it has stored (hash), 2 when its conversations were looked at (zset)
-- ARGV 1 at most so many, 2 ms since they were looked at, 3 hours for which turns are kept
-- Returns a flat list: conversation id, bytes that are counted for it, ...
-- Promise: none; it finds out what settle.lua is to correct.

forget_hours(KEYS[1], tonumber(ARGV[3]))
local found = {}
local before = int(now_ms() - tonumber(ARGV[2]))
for _, conversation_id in
  ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', before, 'LIMIT', 0, ARGV[1]))
do
  found[#found + 1] = conversation_id
  found[#found + 1] = redis.call('HGET', KEYS[1], 'c:' .. conversation_id) or '0'
end
return found
