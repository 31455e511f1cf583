-- Which conversations should have moved by now, which errands should have been carried out?
-- KEYS the due indexes to look at (zsets), all of one hash slot on Redis Cluster
-- ARGV 1 at most so many of each
-- Returns a flat list: number of the key, conversation id or errand, ...
-- Promise 3.

-- An empty index is no key: an idle fleet costs one command.
if redis.call('EXISTS', unpack(KEYS)) == 0 then
  return {}
end
local found = {}
local now = int(now_ms())
for i = 1, #KEYS do
  local late = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, ARGV[1])
  for j = 1, #late do
    found[#found + 1] = i
    found[#found + 1] = late[j]
  end
end
return found
