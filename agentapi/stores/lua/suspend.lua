-- Let a turn wait without a worker for decisions, its client or child turns: running -> parked.
-- KEYS 1 turn (hash), 2 lease (hash), 3 due (zset), 4 events (stream), 5 calls (hash)
-- ARGV 1 turn id, 2 conversation id, 3 fence, 4 what to wait for (JSON): questions (call, question, timeout
--      or nothing, default), children (call, list, turns), client (call, record, timeout or nothing,
--      default), segment (JSON, or null), responses (number of model responses so far), 5 event data (JSON),
--      6 dispatch grace, 7 time after which a turn that waits for children is checked in any case
-- Returns {'parked'}, {'ready', calls (flat hash)} (the turn can already continue: a decision, all outputs or
--      all replies are there), {'cancel'} (a cancellation was requested; nothing changes) or {'fenced'}
-- Promises 3, 5, 6: questions are stored before anybody can answer them. Children are enqueued afterwards, by
-- an errand in the due index, so no child runs before its parent knows of it. A repeated call finds its
-- fence, or finds that its questions are answered.

local turn_id, conversation_id, fence, waits_for, event, grace, look_again = unpack(ARGV)

local mine, cancel = owns(KEYS[1], KEYS[2], turn_id, fence)
if not mine then
  if redis.call('HGET', KEYS[1], 'parked') == fence then
    return { 'parked' }
  end
  return refuse_write(KEYS[1], fence, 'suspend')
end
if cancel == 1 then
  return { 'cancel' }
end
local now = now_ms()
local held = cjson.decode(waits_for)
local wake = tonumber(redis.call('HGET', KEYS[1], 'deadline') or '') or math.huge
-- Store a call that somebody else answers, its default answer, and when that answer takes effect.
local function keep(asked, field, stored)
  if redis.call('HSETNX', KEYS[5], field .. asked.call, stored) == 1 then
    redis.call('HSET', KEYS[5], 'd:' .. asked.call, asked.default)
    if asked.timeout then
      redis.call('HSET', KEYS[5], 'x:' .. asked.call, int(now + asked.timeout))
    end
  end
  local expires = redis.call('HGET', KEYS[5], 'x:' .. asked.call)
  wake = math.min(wake, tonumber(expires or '') or math.huge)
end
for _, asked in ipairs(held.questions) do
  keep(asked, 'q:', asked.question)
end
for _, asked in ipairs(held.client) do
  keep(asked, 'f:', asked.record)
end
for _, asked in ipairs(held.children) do
  if redis.call('HSETNX', KEYS[5], 'k:' .. asked.call, asked.list) == 1 then
    note(KEYS[1], now, '"k",' .. cjson.encode(asked.call) .. ',' .. cjson.encode(asked.turns))
  end
  for _, child in ipairs(asked.turns) do
    if redis.call('HEXISTS', KEYS[5], 'r:' .. child) == 0
      and redis.call('HSETNX', KEYS[5], 'w:' .. child, 1) == 1 then
      redis.call('HINCRBY', KEYS[5], 'open', 1)
    end
  end
end
local open = tonumber(redis.call('HGET', KEYS[5], 'open') or '0')
local calls = take_calls(KEYS[5], string.match(fence, '^%d+'), now)
redis.call('HSET', KEYS[1], 'held', 1)
local ready = false
for _, asked in ipairs(held.questions) do
  ready = ready or redis.call('HEXISTS', KEYS[5], 'a:' .. asked.call) == 1
end
local outputs = #held.client > 0
for _, asked in ipairs(held.client) do
  outputs = outputs and redis.call('HEXISTS', KEYS[5], 'o:' .. asked.call) == 1
end
if ready or outputs or (#held.children > 0 and open == 0) then
  return { 'ready', calls }
end
if type(held.segment) == 'string' then
  -- A part of the turn ends here. Each model response ends at most one part.
  local segments = redis.call('HGET', KEYS[1], 'segments')
  local last = segments and string.match(segments, '{"responses":(%d+)[^\n]*$')
  if last ~= int(held.responses) then
    local segment = string.sub(held.segment, 1, -2) .. ',"at":' .. int(now) .. '}'
    redis.call('HSET', KEYS[1], 'segments', (segments and segments .. '\n' or '') .. segment)
  end
end
if open > 0 then
  wake = math.min(wake, now + tonumber(look_again))
  redis.call('ZADD', KEYS[3], int(now + tonumber(grace)), errand('start', turn_id))
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'status', 'parked', 'parked', fence)
redis.call('HDEL', KEYS[1], 'waits_for')
count_up(KEYS[1], 'parks')
if wake < math.huge then
  redis.call('HSET', KEYS[1], 'wake', int(wake))
  redis.call('ZADD', KEYS[3], int(wake), conversation_id)
else
  redis.call('HDEL', KEYS[1], 'wake')
  redis.call('ZADD', KEYS[3], '+inf', conversation_id)
end
note(KEYS[1], now, '"p",' .. event)
emit(KEYS[1], KEYS[4], 'parked', event)
return { 'parked' }
