-- May a new turn continue a conversation right behind a given turn?
-- KEYS 1 turn (hash), 2 messages (list), 3 inbox (list)
-- ARGV 1 turn id, 2 operation id of the new turn, 3 'take' (nobody else may then) or 'ask'
-- Returns {'here'} when the given turn is the newest and nobody continued it before, else
--      {'fork'}
-- Promise 2. A repeat finds its operation id and answers as the first did.

local before = redis.call('HMGET', KEYS[1], 'successor', 'status')
if before[1] == ARGV[2] then
  return { 'here' }
end
if before[1] or not before[2] then
  return { 'fork' }
end
local newest
if ended(before[2]) then
  local message = redis.call('LINDEX', KEYS[2], -1)
  newest = redis.call('LLEN', KEYS[3]) == 0 and message and turn_of(message)
else
  newest = redis.call('LINDEX', KEYS[3], -1)
end
if newest ~= ARGV[1] then
  return { 'fork' }
end
if ARGV[3] == 'take' then
  redis.call('HSET', KEYS[1], 'successor', ARGV[2])
end
return { 'here' }
