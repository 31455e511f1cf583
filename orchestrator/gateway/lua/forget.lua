-- Delete a turn that has ended: its text, its result and its events.
-- KEYS 1 turn (hash)
-- ARGV 1 conversation id, 2 operation id
-- Returns {'forgotten', hour in which it was accepted, bytes of what was said to it}, {'running'} or
--      {'missing'} (not there, or of another conversation)
-- Promise 3: a turn that has not ended is kept, since it must reach an end. A repeat finds its
-- operation's answer, so that the bytes are counted no more.

local operation = operation_key(KEYS[1], ARGV[2])
local answer = answer_before(operation)
if answer then
  return answer
end
local hour, freed = forget_turn(KEYS[1], ARGV[1])
if not hour then
  return { freed and 'running' or 'missing' }
end
return keep_answer(operation, { 'forgotten', hour, int(freed) })
