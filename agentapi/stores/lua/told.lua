-- Record that the hooks were called for an end, or failed.
-- KEYS 1 untold (zset), 2 turn (hash)
-- ARGV 1 end, as tell.lua returned it, 2 'told' or 'failed', 3 name of this call, 4 delay after the first
--      failure, 5 the longest delay, 6 number of failures after which the hooks are not called again
-- Returns {'told'} (nothing is left to do), {'again', failures} (the call is due again after a delay, which
--      doubles with each failure) or {'given_up', failures}
-- Promise 13. A repeated call finds the end gone, or the name of its call.

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
