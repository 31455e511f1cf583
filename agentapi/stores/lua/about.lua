-- Read some fields of a turn.
-- KEYS 1 turn (hash)
-- ARGV names of fields
-- Returns their values in this order, nil for a missing field; an empty list if the key is not a hash
-- Promise: none; it only reads.

if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
  return {}
end
local turn = fields_of(KEYS[1], unpack(ARGV))
local values = {}
for i, name in ipairs(ARGV) do
  values[i] = turn[name]
end
return values
