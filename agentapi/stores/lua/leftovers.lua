-- Find copies in the archive that are not valid and must be deleted there.
-- KEYS 1 copies (zset)
-- ARGV 1 the most copies to return, 2 ms for which they must have been invalid: a failover may bring back an
--      earlier state of Redis
-- Returns a list of 'version:conversation id'
-- Promise 4: if the mover of a copy has died or is late, its copy becomes invalid now, so that depart.lua
-- refuses it. Whoever has deleted a copy removes its entry. A repeated call finds the same copies.

local most, age = unpack(ARGV)
local before = int(now_ms() - tonumber(age))

local found = {}
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', before, 'LIMIT', 0, most)) do
  local copy = string.sub(entry, 3)
  if string.sub(entry, 1, 2) == 'm:' then
    redis.call('ZREM', KEYS[1], entry)
    redis.call('ZADD', KEYS[1], before, 'd:' .. copy)
  end
  found[#found + 1] = copy
end
return found
