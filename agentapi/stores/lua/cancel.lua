-- Cancel a turn: queued|parked -> cancelled. For a running turn, request the cancellation.
-- KEYS 1 turn (hash), 2 inbox (list), 3 lease (hash), 4 meta (hash), 5 messages (list), 6 journal (list),
--      7 events (stream), 8 due (zset), 9 calls (hash)
-- ARGV 1 turn id, 2 conversation id, 3 dispatch grace, 4 retention of the turn, 5 retention of its events,
--      6 prefix of turn keys
-- Returns {'cancelled'|'requested', id and agent of the turn to dispatch now, or '', '', and the process to
--      notify, or ''}, {'ended'} or {'missing'}
-- Promises 2, 3, 5, 9. A running turn with an expired lease has no worker that could stop it, so it ends
-- here. A turn that has begun and has on_abort keep is ended by the next worker that claims it, because it
-- leaves messages in the history and only workers write messages.

local turn_id, conversation_id, grace, turn_retention, events_retention, turns_prefix = unpack(ARGV)

local turn = redis.call('HMGET', KEYS[1], 'status', 'committed', 'next', 'on_abort', 'attempt')
local status = turn[1]
if not status then
  return away_turn(KEYS[1]) or { 'missing' }
end
if status == 'cancelled' and turn[2] == 'cancel' then
  return { 'cancelled', turn[3], agent_of(turns_prefix, turn[3]), '' }
end
if ended(status) then
  return { 'ended' }
end
local outcome, wake, process = cancel_turn(
  {
    turn = KEYS[1], inbox = KEYS[2], lease = KEYS[3], meta = KEYS[4], messages = KEYS[5],
    journal = KEYS[6], events = KEYS[7], due = KEYS[8], calls = KEYS[9],
  },
  turn_id,
  conversation_id,
  { grace = tonumber(grace), turn = turn_retention, events = events_retention },
  turn[4] == 'keep' and turn[5]
)
return { outcome, wake, agent_of(turns_prefix, wake), process }
