-- Delete a turn that has ended, with its messages in the conversation's history.
-- KEYS 1 turn (hash), 2 meta (hash), 3 messages (list), 4 inbox (list)
-- ARGV 1 turn id, 2 conversation id, 3 operation id
-- Returns {'erased', number of messages}, {'running'} (the turn has not ended) or {'missing'} (the turn does
--      not exist, or belongs to another conversation)
-- Promises 3, 4: a turn that has not ended stays, because it must reach an end. A summary that covers
-- messages of the turn is deleted; the next compaction makes a new one. A repeated call finds its operation's
-- answer. Blobs that other messages or waiting turns refer to stay.

local turn_id, conversation_id, operation_id = unpack(ARGV)

local operation = operation_key(KEYS[1], operation_id)
local answered = answer_before(operation)
if answered then
  return answered
end
local turn = fields_of(KEYS[1], 'status', 'conversation')
if not turn.status or turn.conversation ~= conversation_id then
  return not turn.status and away_turn(KEYS[1]) or { 'missing' }
end
if not ended(turn.status) then
  return { 'running' }
end
local elsewhere = away(KEYS[2])
if elsewhere then
  return elsewhere
end
local covered = stored(redis.call('HGET', KEYS[2], 'covered'))
local removed, first = take_back(KEYS[3], KEYS[2], turn_id)
if removed > 0 and first < covered then
  redis.call('HDEL', KEYS[2], 'summary', 'covered')
end
for _, was in ipairs(set_aside_before(KEYS[2], KEYS[3])) do
  removed = removed + take_back(was.key, nil, turn_id)
end
drop_blobs(KEYS[1], KEYS[4], KEYS[3], false)
forget_turn(KEYS[1], conversation_id)
return keep_answer(operation, { 'erased', removed })
