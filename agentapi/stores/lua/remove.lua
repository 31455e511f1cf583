-- Remove one message from a history.
-- KEYS 1 meta (hash), 2 messages (list)
-- ARGV 1 tenant id, 2 position, 3 the message at that position, 4 operation id
-- Returns {'removed'}, {'moved'} (another message is at the position) or {'missing'} (the conversation does
--      not exist, or belongs to another tenant)
-- Promise 4. If a summary covers the message, its count decreases by one. If a turn refers to its messages in
-- the history, they are copied into its record first. A repeated call finds its operation id and removes
-- nothing.

local tenant_id, position, message, operation_id = unpack(ARGV)

if not belongs(KEYS[1], tenant_id) then
  return { 'missing' }
end
local elsewhere = away(KEYS[1])
if elsewhere then
  return elsewhere
end
local operation = operation_key(KEYS[1], operation_id)
if redis.call('EXISTS', operation) == 1 then
  return { 'removed' }
end
local at = tonumber(position)
if redis.call('LINDEX', KEYS[2], at) ~= message then
  return { 'moved' }
end
local turn_key = partition_prefix(KEYS[1]) .. 't:' .. (turn_of(message) or '')
local turn = fields_of(turn_key, 'at', 'conversation', 'messages')
local its_text = turn.at and not turn.messages and text_of(turn_key, turn)
if its_text then
  redis.call('HSET', turn_key, 'messages', its_text)
end
local near_end = at > redis.call('LLEN', KEYS[2]) / 2
redis.call('LSET', KEYS[2], at, 'removed')
redis.call('LREM', KEYS[2], near_end and -1 or 1, 'removed')
local covered = stored(redis.call('HGET', KEYS[1], 'covered'))
if at < covered then
  redis.call('HSET', KEYS[1], 'covered', int(covered - 1))
end
redis.call('SET', operation, '', 'PX', OPERATION_TTL)
return { 'removed' }
