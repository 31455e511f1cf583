-- Decide whether an overdue conversation's head is to be dispatched again.
-- KEYS 1 turn (hash), 2 inbox (list), 3 due (zset)
-- ARGV 1 turn id that the caller took for the head ('' for none), 2 conversation id,
--      3 dispatch grace, 4 longest grace, 5 due time of the newest wake-up of the broker's
--      queue that was claimed ('' when the queue is empty), 6 time for which one is taken to be in it
-- Returns {'dispatch', agent} or {'leave'}
-- Promises 3, 7. The grace doubles with every dispatch that no claim has answered, so that a
-- long queue does not breed copies. Nor is one sent that is only in line: the queue is not empty,
-- and none that was sent clearly later has been claimed. Two sweepers at once: the second finds
-- nothing overdue.

local ONE_SECOND = 1000
local now = now_ms()
local due = redis.call('ZSCORE', KEYS[3], ARGV[2])
if not due or tonumber(due) > now then
  return { 'leave' }
end
local head = redis.call('LINDEX', KEYS[2], 0)
if not head then
  redis.call('ZREM', KEYS[3], ARGV[2])
  return { 'leave' }
end
if head ~= ARGV[1] then
  return { 'leave' }
end
local turn = redis.call('HMGET', KEYS[1], 'agent', 'attempt', 'dispatches', 'in_line', 'status')
local sent = (turn[5] == 'queued' and not turn[2]) or tonumber(turn[3] or 0) > 0
local in_line = ARGV[5] ~= '' and tonumber(ARGV[5]) <= tonumber(due) + ONE_SECOND
if sent and in_line and now - (turn[4] or now) < tonumber(ARGV[6]) then
  if not turn[4] then
    redis.call('HSET', KEYS[1], 'in_line', int(now))
  end
  redis.call('ZADD', KEYS[3], int(now + tonumber(ARGV[3])), ARGV[2])
  return { 'leave' }
end
redis.call('HDEL', KEYS[1], 'in_line')
local dispatches = redis.call('HINCRBY', KEYS[1], 'dispatches', 1)
-- Of a turn that nobody has claimed yet, one was sent when it became the head.
local sent_before = turn[2] and dispatches - 1 or dispatches
local grace = math.min(tonumber(ARGV[3]) * 2 ^ sent_before, tonumber(ARGV[4]))
redis.call('ZADD', KEYS[3], int(now + grace), ARGV[2])
return { 'dispatch', turn[1] }
