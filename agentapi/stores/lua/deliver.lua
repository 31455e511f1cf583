-- Tell a turn how one of its children ended.
-- KEYS 1 turn of the parent (hash), 2 its calls (hash), 3 due (zset), 4 events (stream)
-- ARGV 1 turn id of the child, 2 reply (JSON), 3 event data (JSON), 4 dispatch grace
-- Returns {'delivered', conversation id, agent} (both '' when there is nothing to send)
-- Promises 3, 6. The last reply wakes the parent. A repeat, or a reply to a parent that has ended,
-- changes nothing: what was to be sent then is in the due index.

local turn = redis.call('HMGET', KEYS[1], 'status', 'conversation', 'agent')
if not turn[1] or redis.call('HDEL', KEYS[2], 'w:' .. ARGV[1]) == 0 then
  return { 'delivered', '', '' }
end
redis.call('HSET', KEYS[2], 'r:' .. ARGV[1], ARGV[2])
local open = redis.call('HINCRBY', KEYS[2], 'open', -1)
if ended(turn[1]) then
  return { 'delivered', '', '' }
end
emit(KEYS[1], KEYS[4], 'replied', ARGV[3])
if open > 0 or turn[1] ~= 'parked' then
  return { 'delivered', '', '' }
end
wake_parked(KEYS[1], KEYS[3], turn[2], now_ms(), tonumber(ARGV[4]))
return { 'delivered', turn[2], turn[3] }
