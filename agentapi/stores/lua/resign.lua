-- Stop being the worker that sweeps.
-- KEYS 1 election (string: name of the elected)
-- ARGV 1 candidate
-- Returns nothing
-- Promise 7: the next sweep need not wait for the election to expire.

local candidate = unpack(ARGV)

if redis.call('GET', KEYS[1]) == candidate then
  redis.call('DEL', KEYS[1])
end
