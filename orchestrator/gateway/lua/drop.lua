-- Delete a conversation that has no turns which have not ended.
-- KEYS 1 meta (hash), 2 messages (list), 3 inbox (list), 4 lease (hash), 5 due (zset), 6 what is left
--      to delete (list)
-- ARGV 1 tenant id, 2 conversation id, 3 prefix of turn keys, 4 number of messages that it must have
--      (-1 for any), 5 ms for which what is left may take
-- Returns {'dropped'}, {'busy', turn ids}, {'changed'} (another number of messages) or {'missing'}
--      (not there, or another's)
-- Promises 1, 5: a running turn still holds the lease and the epoch, so it must end first. What the
-- inbox names and is no turn any more waits for nothing. The conversation is gone at once; its
-- messages and turns go step by step (wipe.lua). A repeat finds what is left.

if redis.call('EXISTS', KEYS[6]) == 1 then
  return { 'dropped' }
end
if not belongs(KEYS[1], ARGV[1]) then
  return { 'missing' }
end
local waiting = {}
for _, turn_id in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
  local status = redis.call('HGET', ARGV[3] .. turn_id, 'status')
  if status and not ended(status) then
    waiting[#waiting + 1] = turn_id
  end
end
if #waiting > 0 then
  return { 'busy', waiting }
end
local expected = tonumber(ARGV[4])
if expected >= 0 and redis.call('LLEN', KEYS[2]) ~= expected then
  return { 'changed' }
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[6])
end
redis.call('RPUSH', KEYS[6], '')
redis.call('PEXPIRE', KEYS[6], ARGV[5])
redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4], blobs_key(KEYS[2]))
redis.call('ZREM', KEYS[5], ARGV[2])
return { 'dropped' }
