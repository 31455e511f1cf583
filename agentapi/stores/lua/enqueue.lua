-- Accept a turn: none -> queued.
-- KEYS 1 turn (hash), 2 inbox (list), 3 meta (hash), 4 messages (list), 5 due (zset)
-- ARGV 1 turn id, 2 conversation id, 3 agent, 4 input, 5 user id, 6 tenant id, 7 metadata
--      (JSON), 8 stream (0|1), 9 inbox limit, 10 dispatch grace, 11 idle time of the
--      conversation (0 for none)
-- Returns {'accepted'|'known', is_waiting_head (0|1), agent}, {'busy', length}, {'tenant'}
-- Promises 2, 3: the order of acceptance is the inbox's; a head always has an entry in due.
-- A repeat finds the turn by its id and answers 'known'; the caller dispatches it if it still
-- waits at the head, since the first caller may have died before it did.

if not open_conversation(KEYS[3], ARGV[5], ARGV[6], ARGV[11]) then
  return { 'tenant' }
end
local known = redis.call('HMGET', KEYS[1], 'status', 'agent')
if known[1] then
  local head = redis.call('LINDEX', KEYS[2], 0) == ARGV[1]
  return { 'known', (head and known[1] == 'queued') and 1 or 0, known[2] }
end
local length = redis.call('LLEN', KEYS[2])
if length >= tonumber(ARGV[9]) then
  return { 'busy', length }
end
redis.call('HSET', KEYS[1],
  'conversation', ARGV[2], 'agent', ARGV[3], 'input', ARGV[4], 'user', ARGV[5],
  'tenant', ARGV[6], 'metadata', ARGV[7], 'stream', ARGV[8], 'status', 'queued',
  'created', int(now_ms()))
redis.call('RPUSH', KEYS[2], ARGV[1])
if length == 0 then
  redis.call('PERSIST', KEYS[3])
  redis.call('PERSIST', KEYS[4])
  redis.call('ZADD', KEYS[5], int(now_ms() + tonumber(ARGV[10])), ARGV[2])
end
return { 'accepted', length == 0 and 1 or 0, ARGV[3] }
