-- Delete a turn that has ended: its text, its result and its events.
-- KEYS 1 turn (hash)
-- ARGV 1 conversation id
-- Returns {'forgotten', hour in which it was accepted, bytes of what was said to it}, {'running'} or
--      {'missing'} (not there, or of another conversation)
-- Promise 3: a turn that has not ended is kept, since it must reach an end.

local hour, freed = forget_turn(KEYS[1], ARGV[1])
if not hour then
  return { freed and 'running' or 'missing' }
end
return { 'forgotten', hour, int(freed) }
