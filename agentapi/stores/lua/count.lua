-- Count the turns of a partition by time of acceptance.
-- KEYS the lists (zsets)
-- ARGV times in ascending order, in milliseconds
-- Returns the counts of each list, one list after the other: for each time except the last, the number of
--      turns accepted at or after it and before the next time
-- Promise 13. It only reads, and its cost hardly depends on the number of turns.

local times = ARGV

-- Return the number of entries from one time up to, but not including, another. A key of another type counts
-- as an empty list.
local function entries(key, from, to)
  local found = redis.pcall('ZCOUNT', key, from, '(' .. to)
  return type(found) == 'number' and found or 0
end

local counts = {}
for i = 1, #KEYS do
  -- In an idle fleet, most lists have no entries in the whole range.
  local any = entries(KEYS[i], times[1], times[#times]) > 0
  for at = 1, #times - 1 do
    counts[#counts + 1] = any and entries(KEYS[i], times[at], times[at + 1]) or 0
  end
end
return counts
