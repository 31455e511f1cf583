-- Decide whether an overdue conversation's head is to be dispatched again.
-- KEYS 1 turn (hash), 2 inbox (list), 3 lease (hash), 4 due (zset)
-- ARGV 1 turn id that the caller took for the head ('' for none), 2 conversation id,
--      3 dispatch grace, 4 longest grace
-- Returns {'dispatch', agent} or {'leave'}
-- Promises 3, 7. The grace doubles with every dispatch that no claim has answered, so that a
-- long queue does not breed copies. Two sweepers at once: the second finds nothing overdue.

local now = now_ms()
local due = redis.call('ZSCORE', KEYS[4], ARGV[2])
if not due or tonumber(due) > now then
  return { 'leave' }
end
local head = redis.call('LINDEX', KEYS[2], 0)
if not head then
  redis.call('ZREM', KEYS[4], ARGV[2])
  return { 'leave' }
end
if head ~= ARGV[1] then
  return { 'leave' }
end
local dispatches = redis.call('HINCRBY', KEYS[1], 'dispatches', 1)
local turn = redis.call('HMGET', KEYS[1], 'agent', 'attempt')
-- Of a turn that nobody has claimed yet, one was sent when it became the head.
local sent_before = turn[2] and dispatches - 1 or dispatches
local grace = math.min(tonumber(ARGV[3]) * 2 ^ sent_before, tonumber(ARGV[4]))
redis.call('ZADD', KEYS[4], int(now + grace), ARGV[2])
return { 'dispatch', turn[1] }
