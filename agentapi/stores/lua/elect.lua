-- Become, or stay, the one worker that sweeps; and learn whether anybody sweeps.
-- KEYS 1 election (string: name of the elected), 2 end of the last complete sweep (string: ms)
-- ARGV 1 candidate, 2 ttl, 3 whether the candidate has completed a sweep since it last called (0|1)
-- Returns {elected (0|1), ms since the end of the last complete sweep, or -1 before the first}
-- Promise 3: a dead worker's election expires, and being elected without completing sweeps does not
-- count as sweeping. Two sweepers at a time do no harm (redispatch.lua), they only cost time.

local candidate, ttl, completed = unpack(ARGV)

local elected = redis.call('GET', KEYS[1])
local mine = not elected or elected == candidate
if mine then
  redis.call('SET', KEYS[1], candidate, 'PX', ttl)
  if elected and completed == '1' then
    redis.call('SET', KEYS[2], int(now_ms()))
  end
end
local swept = tonumber(redis.call('GET', KEYS[2]) or '')
return { mine and 1 or 0, swept and math.max(0, now_ms() - swept) or -1 }
