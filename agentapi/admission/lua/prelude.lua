-- Functions shared by the scripts for providers. Each script gets only the functions that it uses.
--
-- A provider's budget is a log: a sorted set of charges by time, and a hash with the tokens of each charge
-- and the sums ('requests', 'tokens'). A charge whose id ends in ':more' contains the tokens that a call used
-- beyond its reservation. It does not count as a request.

-- Extend a key's time to live to at least ms.
local function keep(key, ms)
  if redis.call('PTTL', key) < ms then
    redis.call('PEXPIRE', key, int(ms))
  end
end

local function requests_of(charge)
  return string.sub(charge, -5) == ':more' and 0 or 1
end

-- Delete the charges that have left the window. A charge that is exactly as old as the window still counts.
local function slide(times_key, charges_key, now, window)
  local last = int(now - window - 1)
  local gone = redis.call('ZRANGEBYSCORE', times_key, '-inf', last)
  if #gone == 0 then
    return
  end
  local requests, tokens = 0, 0
  for _, charge in ipairs(gone) do
    requests = requests + requests_of(charge)
    tokens = tokens + tonumber(redis.call('HGET', charges_key, charge))
    redis.call('HDEL', charges_key, charge)
  end
  redis.call('ZREMRANGEBYSCORE', times_key, '-inf', last)
  redis.call('HINCRBY', charges_key, 'requests', int(0 - requests))
  redis.call('HINCRBY', charges_key, 'tokens', int(0 - tokens))
end

local function charge(times_key, charges_key, now, window, id, tokens)
  redis.call('ZADD', times_key, int(now), id)
  redis.call('HSET', charges_key, id, int(tokens))
  redis.call('HINCRBY', charges_key, 'requests', requests_of(id))
  redis.call('HINCRBY', charges_key, 'tokens', int(tokens))
  keep(times_key, window + 1000)
  keep(charges_key, window + 1000)
end

-- Return the state of a provider: {ms left of its hold, whether its breaker is not closed (0|1), ms until it
-- may be probed}.
local function standing(state_key, now)
  local state = redis.call('HMGET', state_key, 'hold', 'open')
  return {
    int(math.max(tonumber(state[1] or '0') - now, 0)),
    state[2] and 1 or 0,
    int(tonumber(state[2] or now) - now),
  }
end
