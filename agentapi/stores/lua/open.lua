-- Create, label or extend a tenant's conversation outside of any turn.
-- KEYS 1 meta (hash), 2 messages (list), 3 inbox (list)
-- ARGV 1 tenant id, 2 user id, 3 'any' (create the conversation if it does not exist) or 'known', 4 metadata
--      (JSON, '' leaves it unchanged), 5 idle time (0 leaves it unchanged), 6 operation id, 7... messages to
--      append
-- Returns {'open', time of creation, metadata (JSON)} or {'missing'} (the conversation does not exist, or
--      belongs to another tenant)
-- Promise 4: the messages are appended together. A repeated call finds its operation id and appends nothing,
-- whatever happened in between.

local tenant_id, user_id, which, metadata, idle, operation = unpack(ARGV, 1, 6)

local known = redis.call('HMGET', KEYS[1], 'created', 'tenant')
if known[1] and known[2] ~= tenant_id or not known[1] and which == 'known' then
  return { 'missing' }
end
local elsewhere = away(KEYS[1])
if elsewhere then
  return elsewhere
end
open_conversation(KEYS[1], user_id, tenant_id, idle)
if metadata ~= '' then
  redis.call('HSET', KEYS[1], 'metadata', metadata)
end
if #ARGV > 6
  and redis.call('SET', operation_key(KEYS[1], operation), '', 'NX', 'PX', OPERATION_TTL) then
  for i = 7, #ARGV do
    redis.call('RPUSH', KEYS[2], ARGV[i])
  end
end
if redis.call('LLEN', KEYS[3]) == 0 then
  expire_idle(KEYS[1], KEYS[2])
end
local opened = redis.call('HMGET', KEYS[1], 'created', 'metadata')
return { 'open', opened[1], opened[2] or '{}' }
