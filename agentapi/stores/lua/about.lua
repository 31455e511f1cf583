-- Read some fields of a turn.
-- KEYS 1 turn (hash)
-- ARGV names of fields
-- Returns their values in this order, nil for one that is missing; nothing if the key is no hash
-- Promise: none. Changes nothing.

if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
  return {}
end
local turn = fields_of(KEYS[1], unpack(ARGV))
local values = {}
for i, name in ipairs(ARGV) do
  values[i] = turn[name]
end
return values
