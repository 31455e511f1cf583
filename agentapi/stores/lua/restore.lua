-- Turn staged data into a conversation.
-- KEYS 1 meta (hash), 2 messages (list), 3 inbox (list), 4 blobs (hash), 5 staged messages (list), 6 staged
--      blobs (hash)
-- ARGV 1 operation id, 2 digest of the content, 3 'new' or 'replace', 4 tenant id, 5 number of messages,
--      6 whether to list it (0|1), 7... name and value of each field of the meta hash
-- Returns {'imported'}, {'known'} (the same content was imported before), {'exists'}, {'busy'} (the
--      conversation has turns that have not ended), {'tenant'} (it belongs to another tenant) or {'lost'}
--      (the staged messages are incomplete)
-- Promises 1, 4: messages, bytes and fields appear together. A conversation with an accepted turn that has
-- not ended is not replaced. A repeated call finds its operation id. Staged data that is refused is deleted.

local operation, digest, mode, tenant, count, listed = unpack(ARGV, 1, 6)

local function refuse(reason)
  redis.call('UNLINK', KEYS[5], KEYS[6])
  return { reason }
end
local elsewhere = away(KEYS[1])
if elsewhere then
  return elsewhere
end
local known = redis.call('HMGET', KEYS[1], 'created', 'tenant', 'imported', 'generation', 'epoch')
if known[1] then
  if (known[2] or '') ~= tenant then
    return refuse('tenant')
  end
  local before, by = string.match(known[3] or '', '^(%S+) (%S+)$')
  if by == operation then
    return { 'imported' }
  end
  if before == digest then
    return refuse('known')
  end
  if mode ~= 'replace' then
    return refuse('exists')
  end
end
head_of(KEYS[3])
if redis.call('LLEN', KEYS[3]) > 0 then
  return refuse('busy')
end
if redis.call('LLEN', KEYS[5]) ~= tonumber(count) then
  return refuse('lost')
end
set_aside(KEYS[1], KEYS[2])
local was = redis.call('HMGET', KEYS[1], 'refers', 'was')
redis.call('DEL', KEYS[1], KEYS[4])
if tonumber(count) > 0 then
  redis.call('RENAME', KEYS[5], KEYS[2])
  redis.call('PERSIST', KEYS[2])
end
if redis.call('EXISTS', KEYS[6]) == 1 then
  redis.call('RENAME', KEYS[6], KEYS[4])
  redis.call('PERSIST', KEYS[4])
end
-- The new generation keeps turns of the replaced conversation from treating the new history as theirs.
redis.call('HSET', KEYS[1], 'imported', digest .. ' ' .. operation, 'generation',
  int(stored(known[4]) + 1), unpack(ARGV, 7))
for i, name in ipairs({ 'refers', 'was' }) do
  if was[i] then
    redis.call('HSET', KEYS[1], name, was[i])
  end
end
if known[5] then
  redis.call('HSET', KEYS[1], 'epoch', known[5])
end
if listed == '1' then
  list_conversation(KEYS[1], redis.call('HGET', KEYS[1], 'created'))
end
expire_idle(KEYS[1], KEYS[2])
return { 'imported' }
