-- How many bytes are the messages of a history, with their images and files? Looks in steps.
-- KEYS 1 meta (hash), 2 messages (list)
-- ARGV 1 tenant id, 2 first position, 3 last position, 4 bytes after which the step ends
-- Returns {'measured', position after the last that was read, bytes} or {'missing'} (not there, or
--      another tenant's)
-- Promise 4. Changes nothing. Bytes that two messages share are counted for each.

if not belongs(KEYS[1], ARGV[1]) then
  return { 'missing' }
end
local at, last = tonumber(ARGV[2]), tonumber(ARGV[3])
local read, bytes = 0, 0
while at <= last and read < tonumber(ARGV[4]) do
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
