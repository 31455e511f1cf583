-- Delete a turn that has ended: its text, its result and its events.
-- KEYS 1 turn (hash)
-- ARGV 1 conversation id, 2 operation id
-- Returns {'forgotten', when it was accepted, bytes of its input}, {'running'} (it has not ended) or
--      {'missing'} (it does not exist, or belongs to another conversation)
-- Promise 3: a turn that has not ended stays, since it must reach an end. A repeat finds its
-- operation's answer, so that the caller learns once what was deleted.

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
