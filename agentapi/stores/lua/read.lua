-- Read a turn. If a message has joined another turn, read that turn.
-- KEYS 1 turn (hash)
-- ARGV 1 turn id, 2 prefix of turn keys
-- Returns {turn id, turn (flat hash)}; the hash is empty if the turn does not exist. If the turn refers to
--      its conversation's history, its messages are in the field 'messages' (JSON)
-- Promise 4: record and messages are read together. It only reads.

local turn_id, prefix = unpack(ARGV)

local into = redis.call('HGET', KEYS[1], 'into')
local turn_key = into and prefix .. into or KEYS[1]
local turn = whole_turn(turn_key)
if turn.err then
  return turn
end
if #turn == 0 then
  local elsewhere = away_turn(turn_key)
  if elsewhere then
    return elsewhere
  end
end
return { into or turn_id, turn }
