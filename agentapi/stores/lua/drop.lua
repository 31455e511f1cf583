-- Delete a conversation whose turns have all ended.
-- KEYS 1 meta (hash), 2 messages (list), 3 inbox (list), 4 lease (hash), 5 due (zset), 6 remains to delete
--      (list), 7 copies (zset)
-- ARGV 1 tenant id, 2 conversation id, 3 prefix of turn keys, 4 expected number of messages (-1 for any),
--      5 the longest time for which the remains are kept, 6 'lost' if the archive does not have the history
-- Returns {'dropped'}, {'busy', turn ids}, {'changed'} (the number of messages is different) or {'missing'}
--      (the conversation does not exist, or belongs to another tenant)
-- Promises 1, 5: a running turn still holds the lease and the epoch, so it must end first. Turns in the inbox
-- whose hash is gone do not count. The conversation disappears immediately; wipe.lua deletes its messages and
-- turns step by step. A repeated call finds the remains. If the history is lost, the turns that it mentioned
-- are unknown, and expire with their retention. The lost copy is recorded as a leftover, in case it is found
-- again.

local tenant_id, conversation_id, turns_prefix, expected, left_ttl, lost = unpack(ARGV)

if redis.call('EXISTS', KEYS[6]) == 1 then
  return { 'dropped' }
end
if not belongs(KEYS[1], tenant_id) then
  return { 'missing' }
end
local elsewhere = away(KEYS[1])
if elsewhere and lost ~= 'lost' then
  return elsewhere
end
local version, messages = string.match(redis.call('HGET', KEYS[1], 'archived') or '', '^(%S+) (%d+)')
local waiting = {}
for _, turn_id in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
  local status = redis.call('HGET', turns_prefix .. turn_id, 'status')
  if status and not ended(status) then
    waiting[#waiting + 1] = turn_id
  end
end
if #waiting > 0 then
  return { 'busy', waiting }
end
if tonumber(expected) >= 0 and (tonumber(messages) or redis.call('LLEN', KEYS[2])) ~= tonumber(expected) then
  return { 'changed' }
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[6])
end
-- Add the turns that the history does not mention, and those that refer to the history before a reset.
for _, turn_id in ipairs(redis.pcall('SMEMBERS', strays_key(KEYS[2]))) do
  redis.call('RPUSH', KEYS[6], '{"turn_id":"' .. turn_id .. '"}')
end
local before = set_aside_before(KEYS[1], KEYS[2])
for _, was in ipairs(before) do
  redis.call('RENAME', was.key, KEYS[6] .. ':' .. was.generation)
  redis.call('RPUSH', KEYS[6], WAS .. was.generation)
end
-- An empty history also leaves a list, so that a repeated call finds it.
redis.call('RPUSH', KEYS[6], '')
-- The remains are never kept longer than the conversation itself would have been.
local idle = stored(redis.call('HGET', KEYS[1], 'ttl'))
local left_for = idle > 0 and int(math.min(tonumber(left_ttl), idle)) or left_ttl
redis.call('PEXPIRE', KEYS[6], left_for)
for _, was in ipairs(before) do
  redis.call('PEXPIRE', KEYS[6] .. ':' .. was.generation, left_for)
end
if version then
  redis.call('ZADD', KEYS[7], int(now_ms()), 'd:' .. version .. ':' .. conversation_id)
end
redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4], blobs_key(KEYS[2]), strays_key(KEYS[2]))
redis.call('ZREM', KEYS[5], conversation_id)
redis.pcall('ZREM', list_key(KEYS[1], 'conversations'), conversation_id)
return { 'dropped' }
