-- Accept a turn: none -> queued.
-- KEYS 1 turn (hash), 2 inbox (list), 3 meta (hash), 4 messages (list), 5 due (zset), 6 lease (hash), 7 blobs
--      (hash)
-- ARGV 1 turn id, 2 on_busy (enqueue|reject|interrupt|replace|merge|steer), 3 inbox limit, 4 dispatch grace,
--      5 prefix of turn keys, 6 retention of a turn, 7 retention of its events, 8 longest input in bytes,
--      9 timeout: the time from now within which the turn must end (0 for none), 10 deadline: the point in
--      time by which it must have ended (0 for none), 11 the most entries in each list of the partition (0
--      turns lists off), 12 the most ends to keep, 13 how long to keep them, 14 the most ended turns of each
--      status to keep (0 for any number), 15 number of fields, 16... name and value of each field to store
--      (v, kind, conversation, agent, input, user, tenant, metadata, stream, on_abort, and where they apply
--      on_failure, parent, depth, budget, attachments, context, options, unstored, client_tools, prior, idle,
--      compact), then name and bytes of each blob
-- Returns {'accepted'|'known'|'merged', turn id, id and agent of the turn to dispatch now, or '', '', and the
--      process to notify that its turn is cancelled, or ''}, {'busy', length}, {'rejected', length} or
--      {'tenant'} (the turn or the conversation belongs to another tenant)
-- Promises 2, 3: the inbox keeps the order of acceptance, and a head always has an entry in due.
-- A repeated call finds the turn by its id, even if the conversation is gone. If the turn's record is in the
-- archive, the answer is an error (see away_turn). Otherwise the answer is 'known' (or 'merged' as before),
-- and nothing is cancelled or merged a second time. The caller dispatches the turn if it still waits at the
-- head, or the turn that it woke, because the first caller may have died before it did so. A merged message
-- is remembered as long as the turn that it joined.
-- A message that steers the running turn keeps its place in the inbox until that turn takes it (steer.lua).
-- If the running turn ends first, the message is an ordinary turn.
-- A deadline is kept by an errand, because due has no entry for a turn that is not the head.

local turn_id, on_busy, inbox_limit, grace_time, prefix, turn_retention, events_retention, max_input,
  timeout_time, deadline_time, list_limit, ends_limit, ends_retention, turn_limit, field_count =
  unpack(ARGV, 1, 15)

local FIRST_FIELD = 16
local first_blob = FIRST_FIELD + 2 * tonumber(field_count)
local new = {}
for i = FIRST_FIELD, first_blob - 1, 2 do
  new[ARGV[i]] = ARGV[i + 1]
end
local grace, timeout, deadline = tonumber(grace_time), tonumber(timeout_time), tonumber(deadline_time)

-- Delete the oldest turns of a list of ended turns. If a turn's conversation was created for that turn alone
-- (it has an idle time, and nothing has happened in it since), delete the conversation too.
local function delete_oldest(list, count)
  for _, old_id in ipairs(redis.call('ZRANGE', list, 0, count - 1)) do
    local turn = fields_of(prefix .. old_id, 'conversation', 'idle', 'successor', 'status')
    drop_unnamed(KEYS[1], old_id, turn)
    if not turn.status or ended(turn.status) then
      forget_turn(prefix .. old_id, turn.conversation or '')
      redis.call('ZREM', list, old_id)
    end
  end
end

-- Keep one of the partition's lists within its limits. The current millisecond selects one of the six lists,
-- the stream of ends, or in half of all cases nothing, so that most calls are not slowed down much. That is
-- often enough, because lists grow only as fast as turns are accepted.
local function trim_lists()
  local NAMES = { 'completed', 'failed', 'cancelled', 'queued', 'begun', 'conversations' }
  local AT_ONCE = 32
  local now = now_ms()
  local at = now % 14 + 1
  if at > 7 then
    return
  end
  if at == 7 then
    local ends = partition_prefix(KEYS[1]) .. 'ends'
    redis.pcall('XTRIM', ends, 'MAXLEN', '~', ends_limit)
    redis.pcall('XTRIM', ends, 'MINID', '~', int(now - tonumber(ends_retention)))
    return
  end
  local key = list_key(KEYS[1], NAMES[at])
  if at == 1 or at == 3 then
    -- Remove entries whose copies the archive has lost. If the copies exist, unlist_turns.lua removes the
    -- entries before this does.
    local moved = list_key(KEYS[1], 'moved:' .. NAMES[at])
    -- Turns that an older release moved have left no note of how long they are kept.
    local kept = math.max(longest_kept(KEYS[1], turn_retention), tonumber(turn_retention))
    local before = int(now - kept - LONGEST_MOVED)
    for _, gone in ipairs(redis.pcall('ZRANGEBYSCORE', moved, '-inf', before, 'LIMIT', 0, AT_ONCE)) do
      redis.call('ZREM', moved, gone)
    end
  end
  local count = redis.pcall('ZCARD', key)
  if type(count) ~= 'number' or count == 0 then
    return
  end
  if at <= 3 then
    local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if tonumber(oldest[2]) < now - tonumber(turn_retention) then
      trim_list(key, 0, AT_ONCE - 1, prefix, '')
    end
    local most = tonumber(turn_limit)
    if most > 0 then
      if count > most then
        delete_oldest(key, math.min(count - most, AT_ONCE))
      end
      return
    end
  elseif at <= 5 then
    -- Turns that have not ended do not expire, but their records may be lost.
    local first = math.floor(now / 14) % count
    trim_list(key, first, first + 1, prefix, '')
    return
  end
  if count > tonumber(list_limit) then
    redis.call('ZREMRANGEBYRANK', key, 0, math.min(count - tonumber(list_limit), AT_ONCE) - 1)
  end
end

-- Look for the turn before the conversation, which may have been deleted and created again by somebody else.
local known = fields_of(KEYS[1], 'status', 'into', 'tenant', 'woken', 'told')
if known.tenant and known.tenant ~= new.tenant then
  return { 'tenant' }
end
if known.status == 'merged' then
  return { 'merged', known.into, '', '', '' }
end
if known.status then
  local waits = known.status == 'queued' and redis.call('LINDEX', KEYS[2], 0) == turn_id
  local wake = waits and turn_id or known.woken or ''
  if wake ~= '' and ended(redis.call('HGET', prefix .. wake, 'status') or 'cancelled') then
    wake = ''
  end
  return { 'known', turn_id, wake, agent_of(prefix, wake), known.told or '' }
end
local elsewhere = away_turn(KEYS[1])
if elsewhere then
  return elsewhere
end
local listed = tonumber(list_limit) > 0
local theirs, expires = open_conversation(KEYS[3], new.user, new.tenant, new.idle or '0',
  listed and new.agent)
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
  local turn = named(prefix .. newest, 'status', 'attempt', 'cancel', 'input', 'agent', 'user',
    'metadata', 'stream', 'on_abort', 'on_failure', 'attachments', 'merged', 'deadline', 'context',
    'options', 'steers', 'client_tools', 'prior')
  local waits = turn.status == 'queued' and not turn.attempt and not turn.cancel
  local alike = turn.agent == new.agent and turn.user == new.user and turn.metadata == new.metadata
    and turn.stream == new.stream and turn.on_abort == new.on_abort
    and turn.on_failure == (new.on_failure or false)
    and (turn.context or '') == (new.context or '')
    and (turn.options or '') == (new.options or '')
    and (turn.client_tools or '') == (new.client_tools or '')
  local plain = not turn.attachments and not new.attachments and not turn.steers
    and not turn.prior and not new.prior
  local undated = not turn.deadline and timeout == 0 and deadline == 0
  if waits and alike and plain and undated
    and #turn.input + 2 + #new.input <= tonumber(max_input) then
    local merged = (turn.merged and turn.merged .. ' ' or '') .. turn_id
    redis.call('HSET', prefix .. newest, 'input', turn.input .. '\n\n' .. new.input, 'merged', merged)
    redis.call('HSET', KEYS[1], 'status', 'merged', 'into', newest, 'tenant', new.tenant)
    return { 'merged', newest, '', '', '' }
  end
end
if length >= tonumber(inbox_limit) then
  return { 'busy', length }
end
redis.call('HSET', KEYS[1], 'status', 'queued', 'created', int(now_ms()),
  unpack(ARGV, FIRST_FIELD, first_blob - 1))
for i = first_blob, #ARGV, 2 do
  redis.call('HSET', KEYS[7], ARGV[i], ARGV[i + 1])
end
if timeout > 0 or deadline > 0 then
  local own = timeout > 0 and now_ms() + timeout or math.huge
  local ends = int(math.min(own, deadline > 0 and deadline or own))
  redis.call('HSET', KEYS[1], 'deadline', ends)
  redis.call('ZADD', KEYS[5], ends, errand('expire', turn_id))
end
if on_busy == 'steer' and length > 0 then
  local head = redis.call('LINDEX', KEYS[2], 0)
  local turn = named(prefix .. head, 'attempt', 'cancel', 'agent', 'user', 'context', 'options',
    'client_tools')
  local begun = turn.attempt and not turn.cancel
  for _, name in ipairs({ 'context', 'options', 'client_tools' }) do
    begun = begun and (not new[name] or new[name] == turn[name])
  end
  local plain = not new.attachments and not new.prior and timeout == 0 and deadline == 0
  if begun and plain and turn.agent == new.agent and turn.user == new.user then
    redis.call('HSET', KEYS[1], 'steers', head)
    redis.call('HSET', prefix .. head, 'steered', 1)
  end
end
redis.call('RPUSH', KEYS[2], turn_id)
if listed then
  redis.pcall('ZADD', list_key(KEYS[1], 'queued'), int(now_ms()), turn_id)
  trim_lists()
end
if length == 0 then
  if expires then
    redis.call('PERSIST', KEYS[3])
    redis.call('PERSIST', KEYS[4])
    redis.call('PERSIST', KEYS[7])
  end
  redis.call('ZADD', KEYS[5], int(now_ms() + grace), new.conversation)
  return { 'accepted', turn_id, turn_id, new.agent, '' }
end
if on_busy ~= 'interrupt' and on_busy ~= 'replace' then
  return { 'accepted', turn_id, '', '', '' }
end
-- Cancel the head whether or not a worker has begun it. Otherwise, what it leaves behind would depend on that
-- race.
local head = redis.call('LINDEX', KEYS[2], 0)
local head_key = prefix .. head
redis.call('HSET', head_key, 'on_abort', on_busy == 'interrupt' and 'keep' or 'drop')
redis.call('HDEL', head_key, 'on_failure')
local _, wake, process = cancel_turn(
  {
    turn = head_key, journal = head_key .. ':journal', events = head_key .. ':events',
    calls = head_key .. ':calls',
    inbox = KEYS[2], lease = KEYS[6], meta = KEYS[3], messages = KEYS[4], due = KEYS[5],
  },
  head,
  new.conversation,
  { grace = grace, turn = turn_retention, events = events_retention },
  on_busy == 'interrupt'
)
redis.call('HSET', KEYS[1], 'woken', wake, 'told', process)
return { 'accepted', turn_id, wake, agent_of(prefix, wake), process }
