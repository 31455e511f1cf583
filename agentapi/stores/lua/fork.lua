-- Copy the beginning of a history into a new conversation, step by step.
-- KEYS 1 messages of the source (list), 2 meta (hash) and 3 messages (list) of the copy
-- ARGV 1 tenant id, 2 user id, 3 idle time of the copy, 4 position of the last message to copy, 5 its SHA-1,
--      6 bytes after which the step ends, 7 number of messages that the copy has, as far as the caller knows
-- Returns {'copied', number of messages that the copy has} or {'changed'} (the source has another message at
--      that position, or the copy belongs to another tenant)
-- Promise 4: nobody knows the copy's id before the copy is complete. Each step continues where the copy ends.
-- A repeated call finds more messages than its caller knows of, and copies nothing.

local tenant_id, user_id, idle, position, digest, max_bytes, known = unpack(ARGV)

local elsewhere = away(meta_key_of(KEYS[1]))
if elsewhere then
  return elsewhere
end
local last = tonumber(position)
local message = redis.call('LINDEX', KEYS[1], last)
if not message or redis.sha1hex(message) ~= digest then
  return { 'changed' }
end
if not open_conversation(KEYS[2], user_id, tenant_id, idle) then
  return { 'changed' }
end
local at, bytes = redis.call('LLEN', KEYS[3]), 0
local repeated = at > tonumber(known)
while not repeated and at <= last and bytes < tonumber(max_bytes) do
  local piece = redis.call('LRANGE', KEYS[1], at, math.min(at + 15, last))
  for i = 1, #piece do
    redis.call('RPUSH', KEYS[3], piece[i])
    bytes = bytes + #piece[i]
    local attached = string.find(piece[i], '"attachments":', 1, true)
    for _, attachment in ipairs(attached and cjson.decode(piece[i]).attachments or {}) do
      local data = attachment.blob and redis.call('HGET', blobs_key(KEYS[1]), attachment.blob)
      if data then
        redis.call('HSET', blobs_key(KEYS[3]), attachment.blob, data)
        bytes = bytes + #data
      end
    end
  end
  at = at + #piece
end
if at > last then
  -- Copy the summary and the calibration too. The summary is copied only if it covers no message beyond the
  -- copied ones.
  local meta = redis.call('HMGET', meta_key_of(KEYS[1]), 'covered', 'summary', 'calibration')
  if meta[1] and meta[2] and stored(meta[1]) <= at then
    redis.call('HSET', KEYS[2], 'covered', meta[1], 'summary', meta[2])
  end
  if meta[3] then
    redis.call('HSET', KEYS[2], 'calibration', meta[3])
  end
end
expire_idle(KEYS[2], KEYS[3])
return { 'copied', at }
