-- Store answers to calls of a turn, all or none: outputs of client tools and decisions.
-- KEYS 1 turn (hash), 2 calls (hash), 3 due (zset), 4 events (stream)
-- ARGV 1 dispatch grace, 2 number of answers, then for each answer: call id, kind (o for an output, a for a
--      decision), answer (JSON), event data (JSON); then name and value of each field of the turn that
--      changes with them
-- Returns {'answered', conversation id, agent} (both '' if a worker has the turn, or other calls still wait
--      for the client), {'other', call id, answer} (the call already has this different answer), {'unknown',
--      call id}, {'ended', status} or {'missing'}
-- Promises 3, 6: a call has one answer, which never changes. A repeated call with the same answers changes
-- nothing and returns the first answer. A call that has timed out has its default answer.

local grace, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local ASKED = { o = 'f:', a = 'q:' }
local EVENT = { o = 'answered', a = 'decided' }

local turn = redis.call('HMGET', KEYS[1], 'status', 'conversation', 'agent')
if not turn[1] then
  return away_turn(KEYS[1]) or { 'missing' }
end
if ended(turn[1]) then
  return { 'ended', turn[1] }
end
local now = now_ms()
settle_expired(KEYS[2], now)
local first_field = 3 + 4 * count
for i = 3, first_field - 1, 4 do
  local call_id, kind, given = unpack(ARGV, i, i + 2)
  if redis.call('HEXISTS', KEYS[2], ASKED[kind] .. call_id) == 0 then
    return { 'unknown', call_id }
  end
  local known = redis.call('HGET', KEYS[2], kind .. ':' .. call_id)
  if known and known ~= given then
    return { 'other', call_id, known }
  end
end
local news = false
for i = 3, first_field - 1, 4 do
  local call_id, kind, given, event = unpack(ARGV, i, i + 3)
  if redis.call('HSETNX', KEYS[2], kind .. ':' .. call_id, given) == 1 then
    news = true
    if kind == 'a' then
      note_decision(KEYS[1], now, call_id, given)
    else
      note(KEYS[1], now, '"a",' .. cjson.encode(call_id))
    end
    emit(KEYS[1], KEYS[4], EVENT[kind], event)
  end
end
if news then
  for i = first_field, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
if turn[1] ~= 'parked' or client_waits(KEYS[2]) then
  return { 'answered', '', '' }
end
wake_parked(KEYS[1], KEYS[3], turn[2], now, grace)
return { 'answered', turn[2], turn[3] }
