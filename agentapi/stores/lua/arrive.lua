-- Restore a conversation from the archive.
-- KEYS 1 meta (hash), 2 messages (list), 3 copies (zset), 4 staged messages (list), 5 staged blobs (hash)
-- ARGV 1 conversation id, 2 version of the copy, 3 number of messages of the copy, 4... name and value of
--      each field that the marker does not have
-- Returns {'back'}, {'elsewhere'} (the conversation has moved to the archive again, or is gone) or {'lost'}
--      (the staged data is incomplete)
-- Promises 1, 4: marker, messages and bytes change together. From then on the copy in the archive is not
-- valid, and is recorded as a leftover. A repeated call finds no marker and only deletes its staged data.

local conversation_id, version, count = unpack(ARGV, 1, 3)

local known = redis.call('HMGET', KEYS[1], 'archived', 'returned')
local archived = known[1]
if known[2] and string.match(known[2], ' (%x+)$') == version then
  redis.call('UNLINK', KEYS[4], KEYS[5])
  return { 'back' }
end
if not archived or string.sub(archived, 1, #version) ~= version then
  redis.call('UNLINK', KEYS[4], KEYS[5])
  return { 'elsewhere' }
end
if redis.call('LLEN', KEYS[4]) ~= tonumber(count) then
  return { 'lost' }
end
redis.call('HDEL', KEYS[1], 'archived')
redis.call('HSET', KEYS[1], 'returned', int(now_ms()) .. ' ' .. version)
for i = 4, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
end
-- A release without an archive may have appended messages since the conversation moved.
for _, message in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  redis.call('RPUSH', KEYS[4], message)
end
local blobs = blobs_key(KEYS[2])
-- Waiting turns have added bytes of their own.
for _, name in ipairs(redis.call('HKEYS', blobs)) do
  redis.call('HSET', KEYS[5], name, redis.call('HGET', blobs, name))
end
local left = redis.call('PTTL', KEYS[1])
for staged, key in pairs({ [KEYS[4]] = KEYS[2], [KEYS[5]] = blobs }) do
  if redis.call('EXISTS', staged) == 1 then
    redis.call('RENAME', staged, key)
    redis.call('PERSIST', key)
    if left > 0 then
      redis.call('PEXPIRE', key, int(left))
    end
  end
end
redis.call('ZADD', KEYS[3], int(now_ms()), 'd:' .. version .. ':' .. conversation_id)
return { 'back' }
