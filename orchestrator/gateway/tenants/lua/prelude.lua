-- Shared by the scripts about tenants; each gets the functions that it uses.
--
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
