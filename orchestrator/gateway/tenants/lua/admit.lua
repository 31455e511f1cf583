-- Add a turn to a tenant's turns in flight, and its bytes to the tenant's stored bytes.
-- KEYS 1 the tenant's turns in flight (zset: turn id -> time of admission in ms), 2 its stored bytes (hash),
--      3 when its conversations were checked (zset), 4 the operation's answer (string)
-- ARGV 1 the most turns in flight (0 for no limit), 2 turn id, 3 the most stored bytes (0 for no limit),
--      4 conversation id, 5 bytes of the conversation, 6 bytes of the turn itself, 7 hours for which turns
--      are kept, 8... turns that are known to have ended
-- Returns {'admitted'}, {'known'} (another operation has admitted the turn, and it is in flight), {'full',
--      turn id, ms since its admission, ...} or {'stored'} (too many bytes)
-- Promise: the limits hold across all gateways. A repeated call finds its operation's answer and counts
-- nothing.

local max_in_flight, turn_id, max_bytes, conversation_id, conversation_bytes, own_bytes,
  kept_hours = unpack(ARGV, 1, 7)

local answer = answer_before(KEYS[4])
if answer then
  return answer
end
for i = 8, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[i])
end
local now = now_ms()
if redis.call('ZSCORE', KEYS[1], turn_id) then
  return { 'known' }
end
local in_flight, most = tonumber(max_in_flight), tonumber(max_bytes)
if in_flight > 0 and redis.call('ZCARD', KEYS[1]) >= in_flight then
  local found = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
  for i = 2, #found, 2 do
    found[i] = int(now - tonumber(found[i]))
  end
  table.insert(found, 1, 'full')
  return found
end
local keys = { stored = KEYS[2], checked = KEYS[3] }
local bytes, turn_bytes, kept = tonumber(conversation_bytes), tonumber(own_bytes), tonumber(kept_hours)
if most > 0 and not charge(keys, most, conversation_id, bytes, turn_bytes, kept) then
  return { 'stored' }
end
if in_flight > 0 then
  redis.call('ZADD', KEYS[1], int(now), turn_id)
end
return keep_answer(KEYS[4], { 'admitted' })
