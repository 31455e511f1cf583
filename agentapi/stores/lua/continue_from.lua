-- Ask whether a new turn may continue a conversation directly after a given turn, and reserve that place.
-- KEYS 1 turn (hash), 2 messages (list), 3 inbox (list)
-- ARGV 1 turn id, 2 operation id of the new turn, 3 'take' (no other turn may continue it from now on) or
--      'ask'
-- Returns {'here'} if the given turn is the newest of its conversation and no other turn has reserved the
--      place; otherwise {'fork'}
-- Promise 2. A repeated call finds its operation id and returns the first answer.

local turn_id, operation, mode = unpack(ARGV)

local before = fields_of(KEYS[1], 'successor', 'status')
if before.successor == operation then
  return { 'here' }
end
if before.successor or not before.status then
  return not before.status and away_turn(KEYS[1]) or { 'fork' }
end
local elsewhere = away(meta_key_of(KEYS[2]))
if elsewhere then
  return elsewhere
end
local newest
if ended(before.status) then
  local message = redis.call('LINDEX', KEYS[2], -1)
  newest = redis.call('LLEN', KEYS[3]) == 0 and message and turn_of(message)
else
  newest = redis.call('LINDEX', KEYS[3], -1)
end
if newest ~= turn_id then
  return { 'fork' }
end
if mode == 'take' then
  redis.call('HSET', KEYS[1], 'successor', operation)
end
return { 'here' }
