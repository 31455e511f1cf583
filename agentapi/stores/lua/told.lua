-- Note that the hooks were told of an end, or have failed.
-- KEYS 1 untold (zset), 2 turn (hash)
-- ARGV 1 end, as tell.lua gave it, 2 'told' or 'failed', 3 name of this call, 4 delay after the first
--      failure, 5 the longest delay, 6 failures after which nobody tries again
-- Returns {'told'} (nothing is left to do), {'again', failures} (it is due again after a delay, which
--      doubles with each failure) or {'given_up', failures}
-- Promise 13. A repeat finds the end gone, or its call's name.

local entry, outcome, call, first_delay, longest_delay, most = unpack(ARGV)

local operation = operation_key(KEYS[1], call)
local before = answer_before(operation)
if before then
  return before
end
if outcome == 'told' or not redis.call('ZSCORE', KEYS[1], entry)
  or redis.call('HEXISTS', KEYS[2], 'status') == 0 then
  redis.call('ZREM', KEYS[1], entry)
  return { 'told' }
end
local failures = count_up(KEYS[2], 'untold')
if failures >= tonumber(most) then
  redis.call('ZREM', KEYS[1], entry)
  return keep_answer(operation, { 'given_up', failures })
end
local delay = math.min(tonumber(first_delay) * 2 ^ (failures - 1), tonumber(longest_delay))
redis.call('ZADD', KEYS[1], int(now_ms() + delay), entry)
return keep_answer(operation, { 'again', failures })
