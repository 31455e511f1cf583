-- Let a running turn wait without a worker: running -> parked.
-- KEYS 1 turn (hash), 2 lease (hash), 3 due (zset), 4 events (stream)
-- ARGV 1 turn id, 2 conversation id, 3 fence, 4 time to wait, 5 failures of the model call so far,
--      6 number of recorded steps, 7 event data (JSON)
-- Returns {'parked'}, {'cancel'} (changes nothing: somebody asked to cancel) or {'fenced'}
-- Promises 3, 5: the entry in due is the wake-up. A suspect turn stays suspect.

local mine, cancel = owns(KEYS[1], KEYS[2], ARGV[1], ARGV[3])
if not mine then
  return { redis.call('HGET', KEYS[1], 'parked') == ARGV[3] and 'parked' or 'fenced' }
end
if cancel == 1 then
  return { 'cancel' }
end
local deadline = tonumber(redis.call('HGET', KEYS[1], 'deadline') or '') or math.huge
local wake = int(math.min(now_ms() + tonumber(ARGV[4]), deadline))
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'status', 'parked', 'parked', ARGV[3], 'wake', wake,
  'failures', ARGV[5], 'failures_at', ARGV[6])
count_up(KEYS[1], 'parks')
redis.call('ZADD', KEYS[3], wake, ARGV[2])
emit(KEYS[1], KEYS[4], 'parked', ARGV[7])
return { 'parked' }
