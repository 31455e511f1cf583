-- Store a decision about a tool call of a turn: whether the call may be made.
-- KEYS 1 turn (hash), 2 calls (hash), 3 due (zset), 4 events (stream)
-- ARGV 1 call id, 2 decision (JSON), 3 event data (JSON), 4 dispatch grace
-- Returns {'decided', conversation id, agent} (both '' if a worker has the turn), {'other', decision} (the
--      call already has this different decision), {'unknown'}, {'ended', status} or {'missing'}
-- Promises 3, 6: a call has one decision, which never changes. A repeated call with the same decision returns
-- the first answer. A question that has expired has its default decision.

local call_id, given, event, grace = unpack(ARGV)

local turn = redis.call('HMGET', KEYS[1], 'status', 'conversation', 'agent')
if not turn[1] then
  return away_turn(KEYS[1]) or { 'missing' }
end
if ended(turn[1]) then
  return { 'ended', turn[1] }
end
local now = now_ms()
settle_expired(KEYS[2], now)
if redis.call('HEXISTS', KEYS[2], 'q:' .. call_id) == 0 then
  return { 'unknown' }
end
if redis.call('HSETNX', KEYS[2], 'a:' .. call_id, given) == 1 then
  note_decision(KEYS[1], now, call_id, given)
  emit(KEYS[1], KEYS[4], 'decided', event)
else
  local decision = redis.call('HGET', KEYS[2], 'a:' .. call_id)
  if decision ~= given then
    return { 'other', decision }
  end
end
if turn[1] ~= 'parked' then
  return { 'decided', '', '' }
end
wake_parked(KEYS[1], KEYS[3], turn[2], now, tonumber(grace))
return { 'decided', turn[2], turn[3] }
