-- Take one message out of a history.
-- KEYS 1 meta (hash), 2 messages (list)
-- ARGV 1 tenant id, 2 position, 3 the message that is there, 4 operation id
-- Returns {'removed'}, {'moved'} (another message is there) or {'missing'} (no such conversation, or
--      another tenant's)
-- Promise 4. A summary covers one message less if it covered this one. A repeat finds its
-- operation id and removes nothing.

if not belongs(KEYS[1], ARGV[1]) then
  return { 'missing' }
end
local operation = operation_key(KEYS[1], ARGV[4])
if redis.call('EXISTS', operation) == 1 then
  return { 'removed' }
end
local at = tonumber(ARGV[2])
if redis.call('LINDEX', KEYS[2], at) ~= ARGV[3] then
  return { 'moved' }
end
local near_end = at > redis.call('LLEN', KEYS[2]) / 2
redis.call('LSET', KEYS[2], at, 'removed')
redis.call('LREM', KEYS[2], near_end and -1 or 1, 'removed')
local covered = tonumber(redis.call('HGET', KEYS[1], 'covered') or '0')
if at < covered then
  redis.call('HSET', KEYS[1], 'covered', int(covered - 1))
end
redis.call('SET', operation, '', 'PX', OPERATION_TTL)
return { 'removed' }
