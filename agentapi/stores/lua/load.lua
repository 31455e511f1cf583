-- Check the tenant of a conversation, and read its newest messages.
-- KEYS 1 messages (list), 2 meta (hash)
-- ARGV 1 tenant id, 2 max messages, 3 max bytes (-1 for no limit)
-- Returns {'loaded', messages} or {'tenant'} (the conversation belongs to another tenant)
-- Promise 4: the messages of one turn are appended by one script, so a reader sees all of them or none.

local tenant_id, max_messages, max_bytes = unpack(ARGV)

local known = redis.call('HMGET', KEYS[2], 'created', 'tenant')
if known[1] and known[2] ~= tenant_id then
  return { 'tenant' }
end
local elsewhere = away(KEYS[2])
if elsewhere then
  return elsewhere
end
return { 'loaded', (newest_messages(KEYS[1], tonumber(max_messages), tonumber(max_bytes))) }
