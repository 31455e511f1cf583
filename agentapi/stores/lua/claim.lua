-- Take the lease of a conversation for a turn: queued|running|parked -> running.
-- KEYS 1 turn (hash), 2 inbox (list), 3 lease (hash), 4 meta (hash), 5 messages (list), 6 journal (list),
--      7 events (stream), 8 due (zset), 9 calls (hash), 10 claimed (string)
-- ARGV 1 turn id, 2 conversation id, 3 owner, 4 claim token, 5 lease ttl, 6 max messages, 7 max bytes of
--      history (-1 for no limit), 8 whether the turn would run alone in its own process (0|1), 9 number of
--      deaths after which the turn is poison, 10 dispatch grace
-- Returns {'claimed', name, value, ...}: epoch, attempt, generation, turn (flat hash), journal (steps),
--      messages, calls that waited (flat hash), answering (the agent that answers instead, or ''), spent
--      (steps, tokens and cost of the conversation), calibration, contexts (JSON), summary (its text, and the
--      number of messages that it covers), total (number of all messages), now, and unless the claim is
--      repeated: cause (first, lease_expired, worker_stopped, woken, retried), waited (time since the turn
--      could run) and lost (if its lease expired: the time of the previous claim, and its worker); or
--      {'refused', reason, turn (flat hash)}; reason: missing, ended, waiting, parked, leased, suspect
-- Promises 1, 2, 5: only the inbox's head can be claimed, only if its lease is free or has expired, and under
-- an epoch that no claim had before. A repeated call with the same token gets the same lease.
-- Promise 12: a turn that lost its worker may have killed it, so it stays suspect until it ends. Only a
-- process that runs nothing else may claim a suspect turn, unless the turn is already cancelled or poison,
-- because then nothing of it runs.

local turn_id, conversation_id, owner, token, lease_ttl, max_messages, history_bytes, isolated,
  max_deaths, grace = unpack(ARGV)

local turn = redis.call('HMGET', KEYS[1], 'status', 'wake', 'cancel', 'agent', 'attempt', 'dispatches',
  'in_line', 'suspect', 'deaths', 'created', 'ready', 'released', 'claimed', 'worker',
  'log')
local status = turn[1]
if not status then
  head_of(KEYS[2])
  return { 'refused', 'missing', {} }
end
local function refuse(reason)
  return { 'refused', reason, flat_list(record(KEYS[1])) }
end
if ended(status) then
  return refuse('ended')
end
if redis.call('LINDEX', KEYS[2], 0) ~= turn_id and head_of(KEYS[2]) ~= turn_id then
  return refuse('waiting')
end
local now = now_ms()
if status == 'parked' and not turn[3] and not (turn[2] and stored(turn[2]) <= now) then
  return refuse('parked')
end
local lease = redis.call('HMGET', KEYS[3], 'token', 'expires', 'epoch')
local epoch, attempt = lease[3], turn[5]
local cause, waited = false, false
if lease[1] ~= token then
  if stored(lease[2]) > now then
    return refuse('leased')
  end
  local elsewhere = away(KEYS[4])
  if elsewhere then
    return elsewhere
  end
  local due = turn[7] or redis.call('ZSCORE', KEYS[8], conversation_id) or 0
  if status == 'queued' and not turn[5] and not turn[6] then
    -- Record how far the queue has been processed, for redispatch.lua.
    redis.call('SET', KEYS[10], due)
  end
  local ready = ready_since(turn[11], status, turn[5], turn[2], due, tonumber(grace))
  waited = int(math.max(0, now - ready))
  cause = cause_of_claim(status, turn[5], turn[8], turn[12], KEYS[4])
  local suspect = turn[8] or status == 'running'
  if status == 'running' then
    -- The worker did not hand the turn back: it was killed, or did not renew its lease in time.
    redis.call('DEL', KEYS[3])
    redis.call('HSET', KEYS[1], 'status', 'queued', 'suspect', 1)
    count_up(KEYS[1], 'losses')
    note(KEYS[1], now, '"l"')
  end
  if suspect and isolated == '0' and not turn[3] and stored(turn[9]) < tonumber(max_deaths) then
    redis.call('ZADD', KEYS[8], int(now + tonumber(grace)), conversation_id)
    return refuse('suspect')
  end
  epoch = next_epoch(KEYS[4])
  local expires = int(now + tonumber(lease_ttl))
  redis.call('HSET', KEYS[3], 'owner', owner, 'token', token, 'turn', turn_id,
    'epoch', epoch, 'expires', expires, 'batch', 0)
  redis.call('ZADD', KEYS[8], expires, conversation_id)
  attempt = int(stored(turn[5]) + 1)
  local mark = '"c",' .. attempt .. ',' .. cjson.encode(owner) .. ',"' .. cause .. '",' .. waited .. ','
    .. int(epoch - stored(turn[10]))
  local claimed = { 'status', 'running', 'worker', owner, 'dispatches', 0, 'attempt', attempt,
    'claimed', int(now) }
  if turn[5] or turn[15] then
    redis.call('HSET', KEYS[1], unpack(claimed))
    redis.call('HSETNX', KEYS[1], 'started', int(now))
    note(KEYS[1], now, mark)
  else
    -- The turn was never claimed or retried, so it has neither 'started' nor 'log'.
    redis.call('HSET', KEYS[1], 'started', int(now), 'log', log_line(turn[10], now, mark),
      unpack(claimed))
  end
  if attempt == '1' then
    move_turn(KEYS[1], turn_id, turn[10], 'queued', 'begun')
  end
  if turn[11] then
    redis.call('HDEL', KEYS[1], 'ready')
  end
  emit(KEYS[1], KEYS[7], 'started', cjson.encode({ attempt = tonumber(attempt), worker = owner }))
end
-- The limit is in estimated bytes. The calibration corrects the estimate by the provider's token counts.
local max_bytes = tonumber(history_bytes)
local meta = redis.call('HMGET', KEYS[4], 'calibration', 'generation', 'active:' .. (turn[4] or ''),
  'steps', 'tokens', 'cost', 'summary', 'covered', 'contexts')
local calibration = tonumber(meta[1] or '')
if calibration and max_bytes > 0 then
  max_bytes = math.ceil(max_bytes / calibration)
end
local messages, total = newest_messages(KEYS[5], tonumber(max_messages), max_bytes)
return {
  'claimed',
  'epoch', epoch,
  'attempt', attempt,
  'generation', meta[2] or '0',
  'turn', redis.call('HGETALL', KEYS[1]),
  'journal', redis.call('LRANGE', KEYS[6], 0, -1),
  'messages', messages,
  -- The parentheses keep only the first result, wherever the call stands in the list.
  'calls', (take_calls(KEYS[9], epoch, now)),
  'answering', meta[3] or '',
  'spent', { meta[4], meta[5], meta[6] },
  'calibration', meta[1],
  'contexts', meta[9],
  'summary', { meta[7], meta[8] },
  'total', total,
  'now', int(now),
  'cause', cause,
  'waited', waited,
  'lost', cause == 'lease_expired' and { turn[13], turn[14] },
}
