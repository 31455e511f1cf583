-- Find copies in the archive that mean nothing and are to be deleted there.
-- KEYS 1 copies (zset)
-- ARGV 1 the most to answer, 2 time for which they must have meant nothing: a failover may bring back what
--      Redis knew a moment ago
-- Returns a list of 'version:conversation id'
-- Promise 4: a copy whose mover has died, or is late, means nothing from now on, so that depart.lua
-- refuses. Whoever has deleted a copy removes its entry. A repeat finds the same.

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
