-- Leave a worker's share of the sweep to the other workers.
-- KEYS 1 election (string: name of the lead), 2 shares (hash, see elect.lua)
-- ARGV 1 candidate, 2 number of groups
-- Returns nothing
-- Promise 7: the other workers need not wait until the worker's ttl has passed.

local candidate, groups = unpack(ARGV)

if redis.call('GET', KEYS[1]) == candidate then
  redis.call('DEL', KEYS[1])
end
for group = 0, tonumber(groups) - 1 do
  if redis.call('HGET', KEYS[2], 'owner:' .. group) == candidate then
    redis.call('HDEL', KEYS[2], 'owner:' .. group)
  end
end
