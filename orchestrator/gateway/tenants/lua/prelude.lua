-- Functions shared by the scripts for tenants. Each script gets only the functions that it uses.
--
-- The bytes that a tenant has stored are in a hash: 'total'; c:<conversation>, the bytes of that
-- conversation; h:<hour>, the bytes of the turns accepted in that hour (counted from 1970), which are
-- subtracted when the retention of these turns ends; 'hour', the newest of these hours. A zset next to it
-- maps each conversation to the time in ms at which its bytes were last checked.

-- Add bytes to one field and to the total. A field never falls below 0. Returns the field's new value.
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

-- Delete the fields of hours whose turns have passed their retention. kept: retention in hours. Returns the
-- name of the current hour's field.
local function forget_hours(stored_key, kept)
  local hour = math.floor(now_ms() / 3600000)
  local newest = tonumber(redis.call('HGET', stored_key, 'hour') or hour)
  for old = newest - kept, math.min(newest, hour - kept - 1) do
    store_bytes(stored_key, 'h:' .. int(old), -math.huge)
  end
  redis.call('HSET', stored_key, 'hour', int(hour))
  return 'h:' .. int(hour)
end

-- Count bytes as stored, unless the total would exceed the limit. Returns whether they were counted.
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
