-- Remove a conversation whose copy is in the archive from Redis, except for a marker.
-- KEYS 1 meta (hash), 2 messages (list), 3 inbox (list), 4 lease (hash), 5 copies (zset)
-- ARGV 1 conversation id, 2 version of the copy, 3 state of the conversation that was copied, 4... fields
--      that the marker does not need
-- Returns {'gone'} or {'changed'} (the copy is not valid and becomes a leftover)
-- Promises 1, 4: any change since the copy was begun wins over the move, in particular an accepted turn. The
-- note about the copy must still exist; otherwise somebody may have deleted the copy. A repeated call finds
-- its version in the marker.

local conversation_id, version, state = unpack(ARGV, 1, 3)

if string.sub(redis.call('HGET', KEYS[1], 'archived') or '', 1, #version) == version then
  return { 'gone' }
end
local note = 'm:' .. version .. ':' .. conversation_id
local now = now_ms()
local noted = redis.call('ZREM', KEYS[5], note) == 1
if not noted or redis.call('LLEN', KEYS[3]) > 0 or stored(redis.call('HGET', KEYS[4], 'expires')) > now
  or state_of(KEYS[1], KEYS[2]) ~= state then
  redis.call('ZADD', KEYS[5], int(now), 'd:' .. version .. ':' .. conversation_id)
  return { 'changed' }
end
redis.call('HSET', KEYS[1], 'archived', version .. ' ' .. redis.call('LLEN', KEYS[2]))
redis.call('HDEL', KEYS[1], 'returned', unpack(ARGV, 4))
local refers = stored(redis.call('HGET', KEYS[1], 'refers'))
if refers < now then
  redis.call('HDEL', KEYS[1], 'refers', 'was')
end
redis.call('UNLINK', KEYS[2], KEYS[4], blobs_key(KEYS[2]))
return { 'gone' }
