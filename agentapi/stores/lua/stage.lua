-- Add messages and bytes to a conversation that is being imported and is not visible yet.
-- KEYS 1 staged messages (list), 2 staged blobs (hash)
-- ARGV 1 number of messages staged before, 2 time after which staged data expires, 3 number of blobs,
--      4... name and bytes of each blob, then the messages
-- Returns {'staged'} or {'lost', number of messages} (messages staged before are gone)
-- Promise 4. A repeated call finds its messages and adds nothing.

local before, ttl, blob_count = unpack(ARGV, 1, 3)

local first = 4 + 2 * tonumber(blob_count)
local length, count = redis.call('LLEN', KEYS[1]), #ARGV - first + 1
if length ~= tonumber(before) and length ~= before + count then
  return { 'lost', length }
end
for i = 4, first - 1, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
if length == tonumber(before) then
  for i = first, #ARGV do
    redis.call('RPUSH', KEYS[1], ARGV[i])
  end
end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
return { 'staged' }
