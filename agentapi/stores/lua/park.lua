-- Let a running turn wait for its provider without a worker: running -> parked.
-- KEYS 1 turn (hash), 2 lease (hash), 3 due (zset), 4 events (stream), 5... waiting (sets): for each provider
--      that has failed, the conversations whose turns wait for it
-- ARGV 1 turn id, 2 conversation id, 3 fence, 4 time to wait, 5 failures of the call so far, 6 number of
--      recorded steps, 7 event data (JSON), 8 what the turn waits for (JSON), 9 time since the first failure
--      ('' if there was none), 10 how long to keep the entries in the waiting sets
-- Returns {'parked'}, {'cancel'} (a cancellation was requested; nothing changes) or {'fenced'}
-- Promises 3, 5: the entry in due wakes the turn. A suspect turn stays suspect. The time of the first failure
-- is Redis's time, so that the turn's patience survives its workers.

local turn_id, conversation_id, fence, delay, failures, steps, event, waits_for, lasted,
  memory_time = unpack(ARGV)

local mine, cancel = owns(KEYS[1], KEYS[2], turn_id, fence)
if not mine then
  if redis.call('HGET', KEYS[1], 'parked') == fence then
    return { 'parked' }
  end
  return refuse_write(KEYS[1], fence, 'park')
end
if cancel == 1 then
  return { 'cancel' }
end
local now = now_ms()
local deadline = tonumber(redis.call('HGET', KEYS[1], 'deadline') or '') or math.huge
local wake = int(math.min(now + tonumber(delay), deadline))
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'status', 'parked', 'parked', fence, 'wake', wake,
  'failures', failures, 'failures_at', steps, 'waits_for', waits_for)
if lasted == '' then
  redis.call('HDEL', KEYS[1], 'failing')
else
  redis.call('HSET', KEYS[1], 'failing', int(now - tonumber(lasted)))
end
count_up(KEYS[1], 'parks')
redis.call('ZADD', KEYS[3], wake, conversation_id)
for i = 5, #KEYS do
  redis.call('SADD', KEYS[i], conversation_id)
  if redis.call('PTTL', KEYS[i]) < tonumber(memory_time) then
    redis.call('PEXPIRE', KEYS[i], memory_time)
  end
end
note(KEYS[1], now, '"p",' .. event)
emit(KEYS[1], KEYS[4], 'parked', event)
return { 'parked' }
