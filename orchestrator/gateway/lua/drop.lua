-- Delete a conversation that has no turns which have not ended.
-- KEYS 1 meta (hash), 2 messages (list), 3 inbox (list), 4 lease (hash)
-- ARGV 1 tenant id
-- Returns {'dropped', messages}, {'busy', turn ids} or {'missing'} (not there, or another's)
-- Promises 1, 5: a running turn still holds the lease and the epoch, so it must end first.

local known = redis.call('HMGET', KEYS[1], 'created', 'tenant')
if not known[1] or known[2] ~= ARGV[1] then
  return { 'missing' }
end
head_of(KEYS[3])
local waiting = redis.call('LRANGE', KEYS[3], 0, -1)
if #waiting > 0 then
  return { 'busy', waiting }
end
local messages = redis.call('LRANGE', KEYS[2], 0, -1)
redis.call('DEL', KEYS[1], KEYS[2], KEYS[4], blobs_key(KEYS[2]))
return { 'dropped', messages }
