-- Append the messages of a turn that ran outside the workers (Agent.run on a RedisMemory).
-- KEYS 1 messages (list), 2 meta (hash), 3 inbox (list)
-- ARGV 1 operation id, 2 user id, 3 tenant id, 4 idle time (0 for none), 5 number of blobs, 6... name and
--      bytes of each blob, then the messages
-- Returns {'appended'} or {'tenant'} (the conversation belongs to another tenant)
-- Promise 4. A repeated call finds its operation id and writes nothing, whatever happened in between.

local operation, user_id, tenant_id, idle, blob_count = unpack(ARGV, 1, 5)

local elsewhere = away(KEYS[2])
if elsewhere then
  return elsewhere
end
if not open_conversation(KEYS[2], user_id, tenant_id, idle) then
  return { 'tenant' }
end
if redis.call('SET', operation_key(KEYS[2], operation), '', 'NX', 'PX', OPERATION_TTL) then
  local first = 6 + 2 * tonumber(blob_count)
  for i = 6, first - 1, 2 do
    redis.call('HSET', blobs_key(KEYS[1]), ARGV[i], ARGV[i + 1])
  end
  for i = first, #ARGV do
    redis.call('RPUSH', KEYS[1], ARGV[i])
  end
end
if redis.call('LLEN', KEYS[3]) == 0 then
  expire_idle(KEYS[2], KEYS[1])
end
return { 'appended' }
