-- Return the state of a conversation that may move to the archive, and note that a copy is about to be made.
-- KEYS 1 meta (hash), 2 messages (list), 3 inbox (list), 4 lease (hash), 5 copies (zset)
-- ARGV 1 conversation id, 2 version of the copy, 3 time for which the conversation must have been inactive,
--      4 time after which the note becomes a leftover
-- Returns {'warm'} (the conversation does not exist, is in use, has no messages, is already in the archive,
--      or expires soon) or {'cold', state, number of messages, names of its blobs, fields (flat)}
-- Promises 1, 4: nothing is removed from Redis here. Any later change of the conversation changes its state,
-- which depart.lua compares. A repeated call makes the same note.

local conversation_id, version, idle, patience = unpack(ARGV)

local now = now_ms()
local known = named(KEYS[1], 'created', 'updated', 'returned', 'archived')
local last = math.max(stored(known.updated), stored(string.match(known.returned or '', '^%d+')))
local left = redis.call('PTTL', KEYS[1])
if not known.created or known.archived or last > now - tonumber(idle)
  or redis.call('LLEN', KEYS[3]) > 0 or stored(redis.call('HGET', KEYS[4], 'expires')) > now
  or redis.call('LLEN', KEYS[2]) == 0 or left >= 0 and left < tonumber(idle) then
  return { 'warm' }
end
redis.call('ZADD', KEYS[5], int(now + tonumber(patience)), 'm:' .. version .. ':' .. conversation_id)
return {
  'cold',
  state_of(KEYS[1], KEYS[2]),
  redis.call('LLEN', KEYS[2]),
  redis.call('HKEYS', blobs_key(KEYS[2])),
  redis.call('HGETALL', KEYS[1]),
}
