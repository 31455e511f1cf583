-- Take the right to advance a conversation: queued|running|parked -> running.
-- KEYS 1 turn (hash), 2 inbox (list), 3 lease (hash), 4 meta (hash), 5 messages (list),
--      6 journal (list), 7 events (stream), 8 due (zset), 9 calls (hash), 10 claimed (string)
-- ARGV 1 turn id, 2 conversation id, 3 owner, 4 claim token, 5 lease ttl, 6 max messages,
--      7 max bytes of history (-1 for no bound), 8 whether the turn would run in a process of its
--      own (0|1), 9 deaths after which it is poison, 10 dispatch grace
-- Returns {'claimed', epoch, attempt, generation, turn (flat hash), steps, messages,
--      calls that waited (flat hash), agent that answers instead or '', totals of
--      the conversation (steps, tokens, cost), summary, messages it covers, all messages, now}
--      or {'refused', reason, turn (flat hash)}; reason: missing, ended, waiting, parked, leased,
--      suspect
-- Promises 1, 2, 5: only the inbox's head, only when its lease is free or expired, under an
-- epoch that nobody had before. A repeat with the same token gets the same lease again.
-- Promise 12: a turn that lost its worker may be what killed it. It is suspect until it ends, and
-- only a process that runs nothing else may claim it, unless there is nothing left to run: it is
-- cancelled, or poison already.

local turn = redis.call('HMGET', KEYS[1], 'status', 'wake', 'cancel', 'agent', 'attempt', 'dispatches',
  'in_line', 'suspect', 'deaths')
local status = turn[1]
if not status then
  head_of(KEYS[2])
  return { 'refused', 'missing', {} }
end
local function refuse(reason)
  return { 'refused', reason, redis.call('HGETALL', KEYS[1]) }
end
if ended(status) then
  return refuse('ended')
end
if redis.call('LINDEX', KEYS[2], 0) ~= ARGV[1] and head_of(KEYS[2]) ~= ARGV[1] then
  return refuse('waiting')
end
local now = now_ms()
if status == 'parked' and not turn[3] and not (turn[2] and stored(turn[2]) <= now) then
  return refuse('parked')
end
local lease = redis.call('HMGET', KEYS[3], 'token', 'expires', 'epoch')
local epoch, attempt = lease[3], turn[5]
if lease[1] ~= ARGV[4] then
  if stored(lease[2]) > now then
    return refuse('leased')
  end
  if status == 'queued' and not turn[5] and not turn[6] then
    -- How far the queue has come, for redispatch.lua.
    redis.call('SET', KEYS[10], turn[7] or redis.call('ZSCORE', KEYS[8], ARGV[2]) or 0)
  end
  local suspect = turn[8] or status == 'running'
  if status == 'running' then
    -- Nobody let go of it: its worker was killed, or was silent for too long.
    redis.call('DEL', KEYS[3])
    redis.call('HSET', KEYS[1], 'status', 'queued', 'suspect', 1)
    count_up(KEYS[1], 'losses')
  end
  if suspect and ARGV[8] == '0' and not turn[3] and stored(turn[9]) < tonumber(ARGV[9]) then
    redis.call('ZADD', KEYS[8], int(now + tonumber(ARGV[10])), ARGV[2])
    return refuse('suspect')
  end
  epoch = next_epoch(KEYS[4])
  local expires = int(now + tonumber(ARGV[5]))
  redis.call('HSET', KEYS[3], 'owner', ARGV[3], 'token', ARGV[4], 'turn', ARGV[1],
    'epoch', epoch, 'expires', expires, 'batch', 0)
  redis.call('ZADD', KEYS[8], expires, ARGV[2])
  attempt = int(stored(turn[5]) + 1)
  redis.call('HSET', KEYS[1], 'status', 'running', 'worker', ARGV[3], 'dispatches', 0,
    'attempt', attempt)
  redis.call('HSETNX', KEYS[1], 'started', int(now))
  emit(KEYS[1], KEYS[7], 'started', cjson.encode({ attempt = tonumber(attempt), worker = ARGV[3] }))
end
-- The bound is in estimated bytes; the provider's own counts say what those are worth.
local max_bytes = tonumber(ARGV[7])
local meta = redis.call('HMGET', KEYS[4], 'calibration', 'generation', 'active:' .. (turn[4] or ''), 'steps',
  'tokens', 'cost', 'summary', 'covered')
local calibration = tonumber(meta[1] or '')
if calibration and max_bytes > 0 then
  max_bytes = math.ceil(max_bytes / calibration)
end
local messages, total = newest_messages(KEYS[5], tonumber(ARGV[6]), max_bytes)
return {
  'claimed',
  epoch,
  attempt,
  meta[2] or '0',
  redis.call('HGETALL', KEYS[1]),
  redis.call('LRANGE', KEYS[6], 0, -1),
  messages,
  take_calls(KEYS[9], epoch, now),
  meta[3] or '',
  { meta[4], meta[5], meta[6], meta[1] },
  { meta[7], meta[8] },
  total,
  int(now),
}
