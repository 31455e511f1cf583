-- Change the metadata of a turn that has ended.
-- KEYS 1 turn (hash)
-- ARGV 1 conversation id, 2 operation id, 3 field (metadata, or part:<n> of a request that continued the
--      turn), 4 its new value (JSON)
-- Returns {'changed'} or {'missing'} (the turn or the part does not exist, the turn belongs to another
--      conversation, or it has not ended)
-- Promise 4: the value is written as a whole, so a reader never sees half of it. A repeated call finds its
-- operation's answer, so it does not undo what somebody else has changed since.

local conversation_id, operation_id, field, value = unpack(ARGV)

local operation = operation_key(KEYS[1], operation_id)
local before = answer_before(operation)
if before then
  return before
end
local turn = fields_of(KEYS[1], 'status', 'conversation', field)
local away_now = not turn.status and away_turn(KEYS[1])
if away_now then
  return away_now
end
-- A turn without metadata does not have the field; a part always has its field.
local there = turn[field] or field == 'metadata'
if not there or turn.conversation ~= conversation_id or not ended(turn.status) then
  return { 'missing' }
end
redis.call('HSET', KEYS[1], field, value)
return keep_answer(operation, { 'changed' })
