-- Find the partitions with ends for which hooks are due.
-- KEYS the untold indexes to read (zsets)
-- ARGV none
-- Returns the numbers of their keys
-- Promise 13. A key of another type is skipped, and does not stop the others.

-- An empty index has no key, so a fleet without such ends pays for one command only.
if redis.call('EXISTS', unpack(KEYS)) == 0 then
  return {}
end
local found = {}
local now = int(now_ms())
for i = 1, #KEYS do
  local due = redis.pcall('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, 1)
  if not due.err and #due > 0 then
    found[#found + 1] = i
  end
end
return found
