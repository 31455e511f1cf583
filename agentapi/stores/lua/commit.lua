-- End a running turn: running -> completed|failed|cancelled.
-- KEYS 1 turn (hash), 2 inbox (list), 3 lease (hash), 4 meta (hash), 5 messages (list), 6 journal (list),
--      7 events (stream), 8 due (zset), 9 calls (hash)
-- ARGV 1 turn id, 2 conversation id, 3 fence, 4 generation, 5 status, 6 outcome (JSON without messages),
--      7 steps, 8 event data (JSON), 9 dispatch grace, 10 retention of the turn, 11 retention of its events,
--      12 idle time of conversations without their own (0 for none), 13 prefix of turn keys, 14 agent that
--      answers the conversation from now on instead of the requested one ('' for no change), 15 steps,
--      16 tokens and 17 cost spent, including child turns, 18 tokens that the provider counted for one
--      estimated token ('' for no change), 19 whether the turn's own messages caused the failure (0|1),
--      20 what is known about how many tokens the conversation's models accept (JSON, '' for no change),
--      21 line of the log for a response that was not recorded ('' for none), 22 the outcome's usage as
--      numbers, 23 the fields of the outcome other than usage (JSON, '' for none), 24... messages for the
--      history
-- Returns {'committed', id and agent of the turn to dispatch now, or '', ''} or {'fenced'}
-- Promises 3, 4, 5: messages, result, lease and inbox change together. A repeated call finds its fence in the
-- ended turn and returns the first answer.
-- A conversation that was reset since the claim has another generation: the turn ends, but its messages do
-- not enter the new history, and its spending does not count towards the new totals.
-- Messages of a turn without a reply enter the history only if its on_abort is keep; for a failed turn its
-- on_failure decides, if it has one and argument 19 is 0. Both are read now, because they may have changed
-- since the claim. Messages of a turn that must not be stored never enter the history.
-- A failed turn's journal is kept as long as the turn, for retry.lua. A turn whose producer can read such
-- records refers to its messages in the history (see whole_turn), so they are stored once.

local turn_id, conversation_id, fence, generation, status, outcome, steps, event, grace,
  turn_retention, events_retention, idle, turns_prefix, answering, spent_steps, spent_tokens,
  spent_cost, calibration, refused, contexts, mark, usage, besides = unpack(ARGV, 1, 23)
local FIRST_MESSAGE = 24

local turn = record(KEYS[1])
local short_fence = string.sub(redis.sha1hex(fence), 1, 8)
if turn.committed == fence or turn.committed == short_fence then
  local woken = turn.next or ''
  return { 'committed', woken, agent_of(turns_prefix, woken) }
end
if not turn.status or not has_lease(KEYS[3], turn_id, fence) then
  return refuse_write(KEYS[1], fence, 'commit')
end
local now = now_ms()
local leaves = turn.on_abort
if status == 'failed' and refused == '0' and turn.on_failure then
  leaves = turn.on_failure
end
local keeps = (status == 'completed' or leaves == 'keep') and not turn.unstored
local says = #ARGV >= FIRST_MESSAGE
local times = retention({ turn = turn_retention, events = events_retention }, turn.unstored)
local meta = redis.call('HMGET', KEYS[4], 'generation', 'steps', 'tokens', 'turns', 'cost', 'ttl')
local same_history = (meta[1] or '0') == generation
local length
if keeps and same_history then
  for i = FIRST_MESSAGE, #ARGV do
    length = redis.call('RPUSH', KEYS[5], ARGV[i])
  end
  if answering == turn.agent then
    redis.call('HDEL', KEYS[4], 'active:' .. (turn.agent or ''))
  elseif answering ~= '' then
    redis.call('HSET', KEYS[4], 'active:' .. (turn.agent or ''), answering)
  end
end
if turn.parent or turn.held or turn.deadline then
  leave_errands(KEYS[1], turn_id, KEYS[9], KEYS[8], tonumber(grace))
end
if status == 'failed' then
  redis.call('DEL', KEYS[3])
  redis.call('PEXPIRE', KEYS[6], times.turn)
  redis.call('PEXPIRE', KEYS[9], times.turn)
elseif status == 'cancelled' then
  redis.call('DEL', KEYS[3], KEYS[9])
  drop_journal(KEYS[1], KEYS[6], turn_retention)
else
  redis.call('DEL', KEYS[3], KEYS[6], KEYS[9])
end
local following = leave_inbox(KEYS[2], KEYS[8], turn_id, conversation_id, tonumber(grace))
local ttl = stored(meta[6] or idle)
-- Return whether the turn can refer to its messages in the history. It must keep them itself if the history
-- may expire before the turn, or if another turn waits for it, because the worker of that turn may run an
-- older release.
local function may_refer()
  local input = turn.input
  if status ~= 'completed' or not length or not turn.compact or turn.parent or not input
    or ttl > 0 and ttl < tonumber(turn_retention) then
    return false
  end
  local plain = USER_MESSAGE .. ',"content":"' .. input .. '"'
  if string.sub(ARGV[FIRST_MESSAGE], 1, #plain) == plain and not string.find(input, '["\\]') then
    return true
  end
  local read, message = pcall(cjson.decode, ARGV[FIRST_MESSAGE])
  return read and message.content == input
end
-- Make the turn refer to its messages in the history, and pack its other fields.
local function refer(number)
  local count = #ARGV - FIRST_MESSAGE + 1
  turn.at = int(stored(meta[1])) .. ':' .. int(length - count) .. ':' .. int(count)
  turn.size, turn.status, turn.steps, turn.usage = #turn.input, status, steps, usage
  turn.ended, turn.committed, turn.events = now, short_fence, number + 1
  turn.next = following ~= '' and following or nil
  -- Without a stored outcome, readers assume that the requested agent answered.
  local usual = besides == '' or besides == '{"answered_by":"' .. (turn.agent or '') .. '"}'
  turn.outcome = not usual and besides or nil
  if mark ~= '' then
    turn.log = (turn.log and turn.log .. '\n' or '') .. log_line(turn.created, now, mark)
  end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], unpack(packed(turn)))
end
local refers = may_refer()
if not refers then
  if mark ~= '' then
    note(KEYS[1], now, mark)
  end
  local left = status == 'completed' and table.concat(ARGV, ',', FIRST_MESSAGE) or ''
  outcome = '{"messages":[' .. left .. '],' .. string.sub(outcome, 2)
  redis.call('HSET', KEYS[1], 'status', status, 'outcome', outcome, 'steps', steps,
    'ended', int(now), 'committed', fence, 'next', following, 'kept', keeps and says and 1 or 0)
end
local number = emit(KEYS[1], KEYS[7], status, event)
if refers then
  refer(number)
end
list_end(
  KEYS[1],
  turn_id,
  { agent = turn.agent, conversation = conversation_id, unstored = turn.unstored, tenant = turn.tenant,
    user = turn.user, created = turn.created },
  { status = status, number = number, data = event, retention = turn_retention }
)
if not (keeps and same_history and says) then
  drop_blobs(KEYS[1], KEYS[2], KEYS[5], status == 'failed' and times.turn)
  note_place(KEYS[1], KEYS[5])
  note_stray(KEYS[5], turn_id, times.turn)
end
retire(KEYS[1], KEYS[7], times, turn.merged)
local changes = { 'updated', int(now), 'turns', int(stored(meta[4]) + 1) }
local function change(field, value)
  changes[#changes + 1], changes[#changes + 2] = field, value
end
if same_history then
  -- For a retried turn, what its earlier attempts spent has already been counted.
  change('steps', int(stored(meta[2]) + spent_steps - stored(turn.spent_steps)))
  change('tokens', int(stored(meta[3]) + spent_tokens - stored(turn.spent_tokens)))
  if tonumber(spent_cost) > 0 then
    if meta[5] and not tonumber(meta[5]) then
      redis.call('HDEL', KEYS[4], 'cost')
    end
    redis.call('HINCRBYFLOAT', KEYS[4], 'cost', spent_cost - stored(turn.spent_cost))
  end
end
if calibration ~= '' then
  change('calibration', calibration)
end
if contexts ~= '' and same_history then
  change('contexts', contexts)
end
if refers then
  change('refers', int(now + tonumber(turn_retention)))
end
redis.call('HSET', KEYS[4], unpack(changes))
if status == 'failed' then
  redis.call('HSET', KEYS[1], 'spent_steps', spent_steps, 'spent_tokens', spent_tokens,
    'spent_cost', spent_cost)
end
if following == '' then
  if tonumber(idle) > 0 and not meta[6] then
    redis.call('HSET', KEYS[4], 'ttl', idle)
  end
  expire_idle(KEYS[4], KEYS[5], ttl)
end
return { 'committed', following, agent_of(turns_prefix, following) }
