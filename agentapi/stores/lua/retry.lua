-- Run a failed turn again from its last recorded step: failed -> queued.
-- KEYS 1 turn (hash), 2 inbox (list), 3 meta (hash), 4 messages (list), 5 due (zset), 6 journal (list),
--      7 events (stream), 8 calls (hash)
-- ARGV 1 turn id, 2 conversation id, 3 operation id, 4 inbox limit, 5 dispatch grace, 6 idle time of
--      conversations without their own (0 for none)
-- Returns {'queued', is_head (0|1), agent}, {'refused', status}, {'busy', length}, {'tenant'} (the
--      conversation now belongs to another tenant) or {'missing'}
-- Promises 2, 3, 4, 6: the turn goes to the end of the inbox. A repeated call finds its operation id.
-- Messages that the turn left in the history are removed, because the turn will append them again at the end.
-- The turn loses its deadline, which has passed or soon would. If the conversation is gone, it is created
-- again for the turn's own user and tenant.

local turn_id, conversation_id, operation, inbox_limit, grace, idle = unpack(ARGV)

local turn = fields_of(KEYS[1], 'status', 'retried', 'kept', 'agent', 'user', 'tenant', 'idle', 'merged',
  'created', 'attempt', 'ended')
if not turn.status then
  return away_turn(KEYS[1]) or { 'missing' }
end
if turn.retried == operation then
  local head = turn.status == 'queued' and redis.call('LINDEX', KEYS[2], 0) == turn_id
  return { 'queued', head and 1 or 0, turn.agent }
end
if turn.status ~= 'failed' then
  return { 'refused', turn.status }
end
local elsewhere = away(KEYS[3])
if elsewhere then
  return elsewhere
end
head_of(KEYS[2])
local length = redis.call('LLEN', KEYS[2])
if length >= tonumber(inbox_limit) then
  return { 'busy', length }
end
if not open_conversation(KEYS[3], turn.user, turn.tenant, turn.idle or idle) then
  return { 'tenant' }
end
redis.call('HDEL', KEYS[1], 'ended', 'outcome', 'committed', 'next', 'cancel', 'failures', 'deadline',
  'suspect', 'deaths', 'perished', 'deferrals', 'woken', 'failing', 'waits_for', 'kept', 'place')
if turn.kept == '1' then
  take_back(KEYS[4], KEYS[3], turn_id)
end
redis.call('HSET', KEYS[1], 'status', 'queued', 'retried', operation, 'dispatches', 0)
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[6])
redis.call('PERSIST', KEYS[7])
redis.call('PERSIST', KEYS[8])
for merged in string.gmatch(turn.merged or '', '%S+') do
  redis.call('PERSIST', partition_prefix(KEYS[1]) .. 't:' .. merged)
end
local aside = redis.call('HGETALL', KEYS[1] .. ':blobs')
for i = 1, #aside, 2 do
  redis.call('HSET', blobs_key(KEYS[4]), aside[i], aside[i + 1])
end
redis.call('DEL', KEYS[1] .. ':blobs')
note(KEYS[1], now_ms(), '"r",' .. int(stored(turn.ended) - stored(turn.created)))
emit(KEYS[1], KEYS[7], 'retried', '{}')
move_turn(KEYS[1], turn_id, turn.created, 'failed', turn.attempt and 'begun' or 'queued')
redis.call('RPUSH', KEYS[2], turn_id)
if length == 0 then
  redis.call('PERSIST', KEYS[3])
  redis.call('PERSIST', KEYS[4])
  redis.call('PERSIST', blobs_key(KEYS[4]))
  redis.call('ZADD', KEYS[5], int(now_ms() + tonumber(grace)), conversation_id)
end
return { 'queued', length == 0 and 1 or 0, turn.agent }
