-- Find the partitions with ends that hooks are to be told of now.
-- KEYS the untold indexes to read (zsets)
-- ARGV none
-- Returns the numbers of their keys
-- Promise 13. A key of another type is passed over, and does not stop the others.

-- An empty index has no key, so that a fleet with nothing to tell costs one command.
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
