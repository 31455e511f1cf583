-- Common to the gateway's scripts; put before each of them, behind the turn protocol's prelude.

-- What is counted for a turn besides what was said to it; see OVERHEAD in ledger.py.
local TURN_OVERHEAD = 512

-- Some scripts cannot see from what they find that they ran before: they count up or down, or delete.
-- Their caller names each operation, and its answer is kept for a repeat. Only the Redis client repeats
-- these calls, within seconds, so that a minute is enough.
local ANSWER_TTL = 60000

-- The answer to an operation that ran before, or nothing.
local function answer_before(answer_key)
  local answer = redis.call('GET', answer_key)
  return answer and cjson.decode(answer)
end

-- Keep an operation's answer, and return it.
local function keep_answer(answer_key, answer)
  redis.call('SET', answer_key, cjson.encode(answer), 'PX', ANSWER_TTL)
  return answer
end

-- Whether a conversation is there and a tenant's.
local function belongs(meta_key, tenant_id)
  local known = redis.call('HMGET', meta_key, 'created', 'tenant')
  return known[1] and known[2] == tenant_id
end

-- The turn of a stored message, or the name of one that was put in by hand. It is the last field
-- that agentapi.conversation.messages.dumps writes; inside of text its quotes would be escaped.
local function turn_of(message)
  local found = string.match(string.sub(message, -160), '"turn_id":"([^"\\]*)"}$')
  if found then
    return found
  end
  local read, data = pcall(cjson.decode, message)
  return read and type(data) == 'table' and data.turn_id
end

-- Delete an ended turn of a conversation, with those that were merged into it.
-- Returns the hour in which it was accepted and the bytes that were counted for it, or nothing
-- and whether it is kept because it has not ended.
local function forget_turn(turn_key, conversation_id)
  local turn = redis.call('HMGET', turn_key, 'status', 'conversation', 'created', 'merged')
  if not turn[1] or turn[2] ~= conversation_id then
    return nil, false
  end
  if not ended(turn[1]) then
    return nil, true
  end
  local freed = redis.call('HSTRLEN', turn_key, 'input') + TURN_OVERHEAD
  for merged in string.gmatch(turn[4] or '', '%S+') do
    redis.call('UNLINK', partition_prefix(turn_key) .. 't:' .. merged)
  end
  redis.call('UNLINK', turn_key, turn_key .. ':events', turn_key .. ':journal',
    turn_key .. ':calls', turn_key .. ':blobs')
  return int(math.floor(tonumber(turn[3] or '0') / 3600000)), freed
end

-- What a tenant has stored is a hash: total, c:<conversation> bytes of it, h:<hour> bytes of the
-- turns that were accepted in that hour since 1970, which go with their retention, and hour, the
-- newest of these. Beside it lies a zset: conversation -> when its bytes were last looked at, in ms.

-- Change one number, and the total with it.
local function store_bytes(stored_key, field, bytes)
  local before = tonumber(redis.call('HGET', stored_key, field) or '0')
  local after = math.max(before + bytes, 0)
  if after > 0 then
    redis.call('HSET', stored_key, field, int(after))
  else
    redis.call('HDEL', stored_key, field)
  end
  redis.call('HINCRBY', stored_key, 'total', int(after - before))
  return after
end

-- Forget hours whose turns are kept no longer.
local function forget_hours(stored_key, kept)
  local hour = math.floor(now_ms() / 3600000)
  local newest = tonumber(redis.call('HGET', stored_key, 'hour') or hour)
  for old = newest - kept, math.min(newest, hour - kept - 1) do
    store_bytes(stored_key, 'h:' .. int(old), -math.huge)
  end
  redis.call('HSET', stored_key, 'hour', int(hour))
  return 'h:' .. int(hour)
end

-- Count bytes, unless they are too many. Returns whether they were counted.
local function charge(keys, limit, conversation_id, bytes, turn_bytes, kept_hours)
  local hour = forget_hours(keys.stored, kept_hours)
  local total = tonumber(redis.call('HGET', keys.stored, 'total') or '0')
  if total + bytes + turn_bytes > limit then
    return false
  end
  store_bytes(keys.stored, 'c:' .. conversation_id, bytes)
  store_bytes(keys.stored, hour, turn_bytes)
  redis.call('ZADD', keys.checked, int(now_ms()), conversation_id)
  return true
end
