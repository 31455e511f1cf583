-- Reserve capacity for a model call in its provider's budget, if the call may start now.
-- KEYS 1 state (hash: hold, open, opens, opened_by, probe, probe_until), 2 times (zset: charge -> ms),
--      3 charges (hash: charge -> tokens; requests, tokens -> sums)
-- ARGV 1 call id, 2 tokens, 3 the most requests (0 for no limit), 4 the most tokens (0 for no limit),
--      5 window, 6 whether the breaker applies (0|1), 7 the longest time that a probe may take
-- Returns {'admitted'}, or {'wait', reason, ms} without changing anything; reason: hold, open, budget
-- Promise: the charges of any window stay within the limits, except for tokens that settle.lua adds. While a
-- breaker is half-open, it lets one call at a time pass. A repeated call gets the first answer.

local call_id, call_tokens, request_limit, token_limit, window_time, breaker_counts,
  probe_time = unpack(ARGV)

local id, now, window = call_id, now_ms(), tonumber(window_time)
local state = redis.call('HMGET', KEYS[1], 'hold', 'open', 'probe', 'probe_until')
if state[3] == id or redis.call('ZSCORE', KEYS[2], id) then
  return { 'admitted' }
end
if state[1] and tonumber(state[1]) > now then
  return { 'wait', 'hold', int(tonumber(state[1]) - now) }
end
local probes = breaker_counts == '1' and state[2]
if probes then
  local free = math.max(tonumber(state[2]), tonumber(state[4] or '0'))
  if free > now then
    return { 'wait', 'open', int(free - now) }
  end
end

local most_requests, most_tokens = tonumber(request_limit), tonumber(token_limit)
if most_requests > 0 or most_tokens > 0 then
  slide(KEYS[2], KEYS[3], now, window)
  local sums = redis.call('HMGET', KEYS[3], 'requests', 'tokens')
  local requests = tonumber(sums[1] or '0') + 1
  local tokens = tonumber(sums[2] or '0') + tonumber(call_tokens)
  local function full()
    return (most_requests > 0 and requests > most_requests)
      or (most_tokens > 0 and tokens > most_tokens)
  end
  -- From the oldest charge on, find out when enough charges will have left the window.
  local from, free = 0, now
  while full() do
    local page = redis.call('ZRANGE', KEYS[2], from, from + 99, 'WITHSCORES')
    if #page == 0 then
      break
    end
    local names = {}
    for i = 1, #page, 2 do
      names[#names + 1] = page[i]
    end
    for i, cost in ipairs(redis.call('HMGET', KEYS[3], unpack(names))) do
      if full() then
        requests = requests - requests_of(names[i])
        tokens = tokens - tonumber(cost)
        free = tonumber(page[2 * i]) + window + 1
      end
    end
    from = from + 100
  end
  if free > now then
    return { 'wait', 'budget', int(free - now) }
  end
  charge(KEYS[2], KEYS[3], now, window, id, tonumber(call_tokens))
end
if probes then
  redis.call('HSET', KEYS[1], 'probe', id, 'probe_until', int(now + tonumber(probe_time)))
end
return { 'admitted' }
