-- Count the turns of a partition by when they were accepted.
-- KEYS the lists (zsets)
-- ARGV times in ascending order, in milliseconds
-- Returns for each list, one after the other: how many of its turns were accepted from each time on,
--      before the next time.
-- Promise 13. It only reads, and its cost does not depend on how many turns there are.

local times = ARGV

-- Entries of a list from a time on, before another; a key of another type is an empty list.
local function entries(key, from, to)
  local found = redis.pcall('ZCOUNT', key, from, '(' .. to)
  return type(found) == 'number' and found or 0
end

local counts = {}
for i = 1, #KEYS do
  -- Most lists of an idle fleet have nothing in all this time.
  local any = entries(KEYS[i], times[1], times[#times]) > 0
  for at = 1, #times - 1 do
    counts[#counts + 1] = any and entries(KEYS[i], times[at], times[at + 1]) or 0
  end
end
return counts
