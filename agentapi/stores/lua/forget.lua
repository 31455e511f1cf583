-- Delete a turn that has ended: its text, its result and its events.
-- KEYS 1 turn (hash)
-- ARGV 1 conversation id, 2 operation id
-- Returns {'forgotten', time of acceptance, bytes of its input}, {'running'} (the turn has not ended) or
--      {'missing'} (the turn does not exist, or belongs to another conversation)
-- Promise 3: a turn that has not ended stays, because it must reach an end. A repeated call finds its
-- operation's answer, so the caller learns what was deleted.

local conversation_id, operation_id = unpack(ARGV)

local operation = operation_key(KEYS[1], operation_id)
local before = answer_before(operation)
if before then
  return before
end
local accepted, size = forget_turn(KEYS[1], conversation_id)
if not accepted then
  return size and { 'running' } or away_turn(KEYS[1]) or { 'missing' }
end
return keep_answer(operation, { 'forgotten', accepted, size })
