-- Make, label or extend a conversation of a tenant.
-- KEYS 1 meta (hash), 2 messages (list), 3 inbox (list)
-- ARGV 1 tenant id, 2 user id, 3 'any' (made when it is not there) or 'known', 4 metadata (JSON,
--      '' leaves it), 5 idle time in ms (0 leaves it), 6 operation id, 7... the messages to
--      append
-- Returns {'open', created, metadata (JSON)} or {'missing'} (not there, or another tenant's)
-- Promise 4: the messages are appended together. A repeat finds its operation id and appends
-- nothing, whatever came in between.

local known = redis.call('HMGET', KEYS[1], 'created', 'tenant')
if known[1] and known[2] ~= ARGV[1] or not known[1] and ARGV[3] == 'known' then
  return { 'missing' }
end
open_conversation(KEYS[1], ARGV[2], ARGV[1], ARGV[5])
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'metadata', ARGV[4])
end
if #ARGV > 6
  and redis.call('SET', operation_key(KEYS[1], ARGV[6]), '', 'NX', 'PX', OPERATION_TTL) then
  for i = 7, #ARGV do
    redis.call('RPUSH', KEYS[2], ARGV[i])
  end
end
if redis.call('LLEN', KEYS[3]) == 0 then
  expire_idle(KEYS[1], KEYS[2])
end
local made = redis.call('HMGET', KEYS[1], 'created', 'metadata')
return { 'open', made[1], made[2] or '{}' }
