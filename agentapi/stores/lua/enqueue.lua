-- Accept a turn: none -> queued.
-- KEYS 1 turn (hash), 2 inbox (list), 3 meta (hash), 4 messages (list), 5 due (zset),
--      6 lease (hash), 7 blobs (hash)
-- ARGV 1 turn id, 2 conversation id, 3 agent, 4 input, 5 user id, 6 tenant id, 7 metadata
--      (JSON), 8 stream (0|1), 9 on_abort (drop|keep), 10 on_busy (enqueue|reject|interrupt|
--      replace|merge), 11 inbox limit, 12 dispatch grace, 13 idle time of the conversation (0 for
--      none), 14 prefix of turn keys, 15 retention of a turn, 16 retention of its events,
--      17 longest input in bytes, 18 turn that waits for this one ('' for none), 19 depth below
--      the first turn of the tree, 20 time in which it must end (0 for none), 21 time by which it
--      must have ended (0 for none), 22 what it may spend (JSON, '' for no limit),
--      23 images and files of the message (JSON, '' for none), 24 version of the protocol,
--      25... name and bytes of each blob
-- Returns {'accepted'|'known'|'merged', turn id, id and agent of the turn to dispatch now, or
--      '', ''}, {'busy', length}, {'rejected', length} or {'tenant'}
-- Promises 2, 3: the order of acceptance is the inbox's; a head always has an entry in due.
-- A repeat finds the turn by its id, whatever became of its conversation, and answers 'known' (or
-- 'merged' as before); the caller dispatches it if it still waits at the head, or whom it woke, since
-- the first caller may have died before it did. It neither cancels nor merges a second time. A
-- message that was merged is remembered as long as the turn that it joined.
-- A deadline is kept by an errand, since a turn behind others is not in due by itself.

local prefix, on_busy, grace = ARGV[14], ARGV[10], tonumber(ARGV[12])
-- Before the conversation, which may have been forgotten since, and begun by somebody else.
local known = redis.call('HMGET', KEYS[1], 'status', 'into', 'tenant', 'woken')
if known[3] and known[3] ~= ARGV[6] then
  return { 'tenant' }
end
if known[1] == 'merged' then
  return { 'merged', known[2], '', '' }
end
if known[1] then
  local waits = known[1] == 'queued' and redis.call('LINDEX', KEYS[2], 0) == ARGV[1]
  local wake = waits and ARGV[1] or known[4] or ''
  if wake ~= '' and ended(redis.call('HGET', prefix .. wake, 'status') or 'cancelled') then
    wake = ''
  end
  return { 'known', ARGV[1], wake, agent_of(prefix, wake) }
end
local theirs, expires = open_conversation(KEYS[3], ARGV[5], ARGV[6], ARGV[13])
if not theirs then
  return { 'tenant' }
end
local length = redis.call('LLEN', KEYS[2])
if length > 0 then
  head_of(KEYS[2])
  length = redis.call('LLEN', KEYS[2])
end
if on_busy == 'reject' and length > 0 then
  return { 'rejected', length }
end
if on_busy == 'merge' and length > 0 then
  local newest = redis.call('LINDEX', KEYS[2], -1)
  local turn = redis.call('HMGET', prefix .. newest, 'status', 'attempt', 'cancel', 'input',
    'agent', 'user', 'metadata', 'stream', 'on_abort', 'attachments', 'merged', 'deadline')
  local waits = turn[1] == 'queued' and not turn[2] and not turn[3]
  local alike = turn[5] == ARGV[3] and turn[6] == ARGV[5] and turn[7] == ARGV[7]
    and turn[8] == ARGV[8] and turn[9] == ARGV[9]
  local plain = not turn[10] and ARGV[23] == ''
  local undated = not turn[12] and tonumber(ARGV[20]) == 0 and tonumber(ARGV[21]) == 0
  if waits and alike and plain and undated and #turn[4] + 2 + #ARGV[4] <= tonumber(ARGV[17]) then
    redis.call('HSET', prefix .. newest, 'input', turn[4] .. '\n\n' .. ARGV[4])
    redis.call('HSET', KEYS[1], 'status', 'merged', 'into', newest, 'tenant', ARGV[6])
    redis.call('HSET', prefix .. newest, 'merged', (turn[11] and turn[11] .. ' ' or '') .. ARGV[1])
    return { 'merged', newest, '', '' }
  end
end
if length >= tonumber(ARGV[11]) then
  return { 'busy', length }
end
redis.call('HSET', KEYS[1], 'v', ARGV[24],
  'conversation', ARGV[2], 'agent', ARGV[3], 'input', ARGV[4], 'user', ARGV[5],
  'tenant', ARGV[6], 'metadata', ARGV[7], 'stream', ARGV[8], 'on_abort', ARGV[9],
  'status', 'queued', 'created', int(now_ms()))
if ARGV[18] ~= '' then
  redis.call('HSET', KEYS[1], 'parent', ARGV[18], 'depth', ARGV[19])
end
if ARGV[23] ~= '' then
  redis.call('HSET', KEYS[1], 'attachments', ARGV[23])
  for i = 25, #ARGV, 2 do
    redis.call('HSET', KEYS[7], ARGV[i], ARGV[i + 1])
  end
end
if tonumber(ARGV[13]) > 0 then
  redis.call('HSET', KEYS[1], 'idle', ARGV[13])
end
if ARGV[22] ~= '' then
  redis.call('HSET', KEYS[1], 'budget', ARGV[22])
end
local timeout, deadline = tonumber(ARGV[20]), tonumber(ARGV[21])
if timeout > 0 or deadline > 0 then
  local own = timeout > 0 and now_ms() + timeout or math.huge
  local ends = int(math.min(own, deadline > 0 and deadline or own))
  redis.call('HSET', KEYS[1], 'deadline', ends)
  redis.call('ZADD', KEYS[5], ends, errand('expire', ARGV[1]))
end
redis.call('RPUSH', KEYS[2], ARGV[1])
if length == 0 then
  if expires then
    redis.call('PERSIST', KEYS[3])
    redis.call('PERSIST', KEYS[4])
    redis.call('PERSIST', KEYS[7])
  end
  redis.call('ZADD', KEYS[5], int(now_ms() + grace), ARGV[2])
  return { 'accepted', ARGV[1], ARGV[1], ARGV[3] }
end
if on_busy ~= 'interrupt' and on_busy ~= 'replace' then
  return { 'accepted', ARGV[1], '', '' }
end
-- The head is cancelled whether a worker has begun it or is about to: what is left of it must
-- not depend on how fast that was.
local head = redis.call('LINDEX', KEYS[2], 0)
local head_key = prefix .. head
redis.call('HSET', head_key, 'on_abort', on_busy == 'interrupt' and 'keep' or 'drop')
local _, wake = cancel_turn(
  {
    turn = head_key, journal = head_key .. ':journal', events = head_key .. ':events',
    calls = head_key .. ':calls',
    inbox = KEYS[2], lease = KEYS[6], meta = KEYS[3], messages = KEYS[4], due = KEYS[5],
  },
  head,
  ARGV[2],
  { grace = grace, turn = ARGV[15], events = ARGV[16] },
  on_busy == 'interrupt'
)
redis.call('HSET', KEYS[1], 'woken', wake)
return { 'accepted', ARGV[1], wake, agent_of(prefix, wake) }
