-- Store the reply of a child turn for its parent.
-- KEYS 1 turn of the parent (hash), 2 its calls (hash), 3 due (zset), 4 events (stream)
-- ARGV 1 turn id of the child, 2 reply (JSON), 3 event data (JSON), 4 dispatch grace
-- Returns {'delivered', conversation id, agent} (both '' if there is nothing to dispatch)
-- Promises 3, 6. The last reply wakes the parent. If the parent has ended or does not wait for this child,
-- the reply does not wake it and causes no event. A repeated call changes nothing, and returns the first
-- answer until the parent is claimed.

local child_id, reply, event, grace = unpack(ARGV)

local NOTHING = { 'delivered', '', '' }
local turn = redis.call('HMGET', KEYS[1], 'status', 'conversation', 'agent', 'wake')
if not turn[1] then
  return NOTHING
end
local news = redis.call('HDEL', KEYS[2], 'w:' .. child_id) == 1
if not news and redis.call('HEXISTS', KEYS[2], 'r:' .. child_id) == 0 then
  return NOTHING
end
if news then
  redis.call('HSET', KEYS[2], 'r:' .. child_id, reply)
  redis.call('HINCRBY', KEYS[2], 'open', -1)
end
if ended(turn[1]) then
  return NOTHING
end
if news then
  note(KEYS[1], now_ms(), '"n",' .. event)
  emit(KEYS[1], KEYS[4], 'replied', event)
end
if turn[1] ~= 'parked' or tonumber(redis.call('HGET', KEYS[2], 'open')) > 0 then
  return NOTHING
end
local now = now_ms()
if news then
  wake_parked(KEYS[1], KEYS[3], turn[2], now, tonumber(grace))
elseif not turn[4] or tonumber(turn[4]) > now then
  return NOTHING
end
return { 'delivered', turn[2], turn[3] }
