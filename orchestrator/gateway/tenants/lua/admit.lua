-- Count a turn among a tenant's turns in flight, and its bytes among what the tenant has stored.
-- KEYS 1 the tenant's turns in flight (zset: turn id -> time of admission in ms), 2 what it has stored
--      (hash), 3 when its conversations were looked at (zset), 4 the operation's answer (string)
-- ARGV 1 turns in flight that it may have (0 for any), 2 turn id, 3 bytes that it may store (0 for
--      any), 4 conversation id, 5 bytes for the conversation, 6 bytes of the turn's own, 7 hours for
--      which turns are kept, 8... turns that are known to have ended
-- Returns {'admitted'}, {'known'} (another operation has admitted it, and it is in flight), {'full',
--      turn id, ms since its admission, ...} or {'stored'} (too many bytes)
-- Promise: the limits hold over all gateways. A repeat finds its operation's answer and counts
-- nothing.

local answer = answer_before(KEYS[4])
if answer then
  return answer
end
for i = 8, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[i])
end
local now = now_ms()
if redis.call('ZSCORE', KEYS[1], ARGV[2]) then
  return { 'known' }
end
local in_flight, most = tonumber(ARGV[1]), tonumber(ARGV[3])
if in_flight > 0 and redis.call('ZCARD', KEYS[1]) >= in_flight then
  local found = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
  for i = 2, #found, 2 do
    found[i] = int(now - tonumber(found[i]))
  end
  table.insert(found, 1, 'full')
  return found
end
local keys = { stored = KEYS[2], checked = KEYS[3] }
local bytes, turn_bytes, kept = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
if most > 0 and not charge(keys, most, ARGV[4], bytes, turn_bytes, kept) then
  return { 'stored' }
end
if in_flight > 0 then
  redis.call('ZADD', KEYS[1], int(now), ARGV[2])
end
return keep_answer(KEYS[4], { 'admitted' })
