-- Delete a turn that has ended: its text, its result and its events.
-- KEYS 1 turn (hash), 2 events (stream), 3 journal (list), 4 calls (hash)
-- ARGV 1 conversation id
-- Returns {'forgotten'}, {'running'} or {'missing'} (not there, or of another conversation)
-- Promise 3: a turn that has not ended is kept, since it must reach an end.

local turn = redis.call('HMGET', KEYS[1], 'status', 'conversation', 'merged')
local status = turn[1]
if not status or turn[2] ~= ARGV[1] then
  return { 'missing' }
end
if not ended(status) then
  return { 'running' }
end
for merged in string.gmatch(turn[3] or '', '%S+') do
  redis.call('DEL', partition_prefix(KEYS[1]) .. 't:' .. merged)
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[1] .. ':blobs')
return { 'forgotten' }
