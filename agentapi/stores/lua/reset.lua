-- Clear a conversation's history.
-- KEYS 1 messages (list), 2 meta (hash), 3 inbox (list)
-- ARGV 1 operation id, 2 tenant id ('*' for the operator, who may reset any conversation), 3 prefix of turn
--      keys
-- Returns {'reset', number of messages dropped} or {'tenant'} (the conversation belongs to another tenant)
-- Promise 4. A running turn ends, but its messages belong to the old history (see generation in commit.lua).
-- Turns that still wait run on the new history and keep the bytes of their images and files. Turns that refer
-- to the old history keep it until they expire. A repeated call finds its operation id, and drops no message
-- that was added since.

local operation_id, tenant_id, turns_prefix = unpack(ARGV)

local known = redis.call('HMGET', KEYS[2], 'created', 'tenant')
if known[1] and tenant_id ~= '*' and known[2] ~= tenant_id then
  return { 'tenant' }
end
local operation = operation_key(KEYS[2], operation_id)
local before = redis.call('GET', operation)
if before then
  return { 'reset', tonumber(before) }
end
local elsewhere = away(KEYS[2])
if elsewhere then
  return elsewhere
end
local dropped = redis.call('LLEN', KEYS[1])
set_aside(KEYS[2], KEYS[1])
local needed = {}
for _, turn_id in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
  for name in pairs(blobs_of(turns_prefix .. turn_id)) do
    needed[name] = true
  end
end
local blobs = blobs_key(KEYS[1])
for _, name in ipairs(redis.call('HKEYS', blobs)) do
  if not needed[name] then
    redis.call('HDEL', blobs, name)
  end
end
if known[1] then
  for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
    if string.sub(field, 1, 7) == 'active:' then
      redis.call('HDEL', KEYS[2], field)
    end
  end
  redis.call('HDEL', KEYS[2], 'steps', 'tokens', 'cost', 'summary', 'covered', 'contexts')
  redis.call('HINCRBY', KEYS[2], 'generation', 1)
end
redis.call('SET', operation, dropped, 'PX', OPERATION_TTL)
return { 'reset', dropped }
