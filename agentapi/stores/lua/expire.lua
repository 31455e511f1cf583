-- End a waiting turn whose deadline has passed: queued -> failed.
-- KEYS 1 turn (hash), 2 inbox (list), 3 lease (hash), 4 meta (hash), 5 messages (list), 6 journal (list),
--      7 events (stream), 8 due (zset), 9 calls (hash)
-- ARGV 1 turn id, 2 conversation id, 3 dispatch grace, 4 retention of the turn, 5 retention of its events,
--      6 prefix of turn keys, 7 outcome (JSON), 8 event data (JSON)
-- Returns {'expired', id and agent of the turn to dispatch now, or '', ''}, or {'left'} (the turn has ended,
--      has begun, is being cancelled, or has no deadline that has passed)
-- Promises 2, 4, 9: the turn leaves nothing in the history, wherever in the inbox it is. If a turn has begun,
-- its worker keeps the deadline, or the turn becomes due at that time. A repeated call returns the first
-- answer.

local turn_id, conversation_id, grace, turn_retention, events_retention, turns_prefix, outcome,
  event = unpack(ARGV)

local turn = redis.call('HMGET', KEYS[1], 'status', 'committed', 'next', 'attempt', 'cancel',
  'deadline')
if turn[1] == 'failed' and turn[2] == 'deadline' then
  return { 'expired', turn[3], agent_of(turns_prefix, turn[3]) }
end
local passed = turn[6] and tonumber(turn[6]) <= now_ms()
if turn[1] ~= 'queued' or turn[4] or turn[5] or not passed then
  return { 'left' }
end
local following = end_turn(
  {
    turn = KEYS[1], inbox = KEYS[2], lease = KEYS[3], meta = KEYS[4], messages = KEYS[5],
    journal = KEYS[6], events = KEYS[7], due = KEYS[8], calls = KEYS[9],
  },
  turn_id,
  conversation_id,
  { grace = tonumber(grace), turn = turn_retention, events = events_retention },
  { status = 'failed', committed = 'deadline', outcome = outcome, data = event }
)
return { 'expired', following, agent_of(turns_prefix, following) }
