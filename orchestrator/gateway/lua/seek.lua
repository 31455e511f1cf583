-- Where is a turn's newest message? Looks from the end back, in steps.
-- KEYS 1 meta (hash), 2 messages (list)
-- ARGV 1 tenant id, 2 turn id, 3 position to look before (-1 for all), 4 messages after which the
--      step ends, 5 bytes after which it does
-- Returns {'found', position, SHA-1 of the message}, {'more', position to look before}, {'none'} or
--      {'missing'} (not there, or another tenant's)
-- Promise 4. Changes nothing.

if not belongs(KEYS[1], ARGV[1]) then
  return { 'missing' }
end
local before = tonumber(ARGV[3])
if before < 0 then
  before = redis.call('LLEN', KEYS[2])
end
local mark = '"turn_id":"' .. ARGV[2] .. '"'
local looked, bytes = 0, 0
while before > 0 and looked < tonumber(ARGV[4]) and bytes < tonumber(ARGV[5]) do
  local from = math.max(before - 64, 0)
  local piece = redis.call('LRANGE', KEYS[2], from, before - 1)
  for i = #piece, 1, -1 do
    if string.find(piece[i], mark, 1, true) and turn_of(piece[i]) == ARGV[2] then
      return { 'found', from + i - 1, redis.sha1hex(piece[i]) }
    end
    bytes = bytes + #piece[i]
  end
  looked, before = looked + #piece, from
end
return before > 0 and { 'more', before } or { 'none' }
