-- Find the newest message of a turn, searching backwards from the end, step by step.
-- KEYS 1 meta (hash), 2 messages (list)
-- ARGV 1 tenant id, 2 turn id, 3 position before which to search (-1 for the end), 4 number of messages after
--      which the step ends, 5 bytes after which it ends
-- Returns {'found', position, SHA-1 of the message}, {'more', position before which to continue}, {'none'} or
--      {'missing'} (the conversation does not exist, or belongs to another tenant)
-- Promise 4. It only reads.

local tenant_id, turn_id, before_position, max_messages, max_bytes = unpack(ARGV)

if not belongs(KEYS[1], tenant_id) then
  return { 'missing' }
end
local elsewhere = away(KEYS[1])
if elsewhere then
  return elsewhere
end
local before = tonumber(before_position)
if before < 0 then
  before = redis.call('LLEN', KEYS[2])
end
local mark = '"turn_id":"' .. turn_id .. '"'
local looked, bytes = 0, 0
while before > 0 and looked < tonumber(max_messages) and bytes < tonumber(max_bytes) do
  local from = math.max(before - 64, 0)
  local piece = redis.call('LRANGE', KEYS[2], from, before - 1)
  for i = #piece, 1, -1 do
    if string.find(piece[i], mark, 1, true) and turn_of(piece[i]) == turn_id then
      return { 'found', from + i - 1, redis.sha1hex(piece[i]) }
    end
    bytes = bytes + #piece[i]
  end
  looked, before = looked + #piece, from
end
return before > 0 and { 'more', before } or { 'none' }
