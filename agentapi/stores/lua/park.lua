-- Let a running turn wait without a worker: running -> parked.
-- KEYS 1 turn (hash), 2 lease (hash), 3 due (zset), 4 events (stream)
-- ARGV 1 turn id, 2 conversation id, 3 fence, 4 time to wait, 5 failures of the model call so far,
--      6 number of recorded steps, 7 event data (JSON)
-- Returns {'parked'}, {'cancel'} (changes nothing: somebody asked to cancel) or {'fenced'}
-- Promises 3, 5: the entry in due wakes it. A suspect turn stays suspect.

local turn_id, conversation_id, fence, delay, failures, steps, event = unpack(ARGV)

local mine, cancel = owns(KEYS[1], KEYS[2], turn_id, fence)
if not mine then
  return { redis.call('HGET', KEYS[1], 'parked') == fence and 'parked' or 'fenced' }
end
if cancel == 1 then
  return { 'cancel' }
end
local deadline = tonumber(redis.call('HGET', KEYS[1], 'deadline') or '') or math.huge
local wake = int(math.min(now_ms() + tonumber(delay), deadline))
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'status', 'parked', 'parked', fence, 'wake', wake,
  'failures', failures, 'failures_at', steps)
count_up(KEYS[1], 'parks')
redis.call('ZADD', KEYS[3], wake, conversation_id)
emit(KEYS[1], KEYS[4], 'parked', event)
return { 'parked' }
