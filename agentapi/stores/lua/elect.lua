-- Be, or stay, the one worker that sweeps.
-- KEYS 1 election (string: name of the elected)
-- ARGV 1 candidate, 2 ttl
-- Returns 1 when the candidate is the elected until the ttl ends, else 0
-- Promise 3: a dead worker's election ends by itself. Two sweepers at once do no harm
-- (redispatch.lua), they only cost.

local elected = redis.call('GET', KEYS[1])
if elected and elected ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
