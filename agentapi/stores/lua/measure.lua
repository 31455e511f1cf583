-- Add up the bytes of a history's messages, including their images and files, step by step.
-- KEYS 1 meta (hash), 2 messages (list)
-- ARGV 1 tenant id, 2 first position, 3 last position, 4 bytes after which the step ends
-- Returns {'measured', position after the last message that was read, bytes} or {'missing'} (the conversation
--      does not exist, or belongs to another tenant)
-- Promise 4. It only reads. Blobs that several messages share count once for each message.

local tenant_id, first, last_position, max_bytes = unpack(ARGV)

if not belongs(KEYS[1], tenant_id) then
  return { 'missing' }
end
local elsewhere = away(KEYS[1])
if elsewhere then
  return elsewhere
end
local at, last = tonumber(first), tonumber(last_position)
local read, bytes = 0, 0
while at <= last and read < tonumber(max_bytes) do
  local piece = redis.call('LRANGE', KEYS[2], at, math.min(at + 63, last))
  if #piece == 0 then
    break
  end
  for i = 1, #piece do
    read = read + #piece[i]
    if string.find(piece[i], '"attachments":', 1, true) then
      for _, attachment in ipairs(cjson.decode(piece[i]).attachments or {}) do
        bytes = bytes + (tonumber(attachment.size) or 0)
      end
    end
  end
  at = at + #piece
end
return { 'measured', at, read + bytes }
