-- Read a part of a conversation's history.
-- KEYS 1 meta (hash), 2 messages (list)
-- ARGV 1 tenant id, 2 first position, 3 last position, 4 bytes after which reading stops, 5 'up' (from the
--      first position forwards) or 'down' (from the last position backwards)
-- Returns {'page', number of messages in the history, messages in the order of reading} or {'missing'} (the
--      conversation does not exist, or belongs to another tenant)
-- Promise 4: the messages of one turn are appended by one script, so a reader sees all of them or none. A
-- part has at least one message if the range has one. Its size is limited, so that the script does not block
-- other clients of Redis.

local tenant_id, from_position, to_position, max_bytes, direction = unpack(ARGV)

if not belongs(KEYS[1], tenant_id) then
  return { 'missing' }
end
local elsewhere = away(KEYS[1])
if elsewhere then
  return elsewhere
end
local total = redis.call('LLEN', KEYS[2])
local first, last = tonumber(from_position), math.min(tonumber(to_position), total - 1)
local most, up = tonumber(max_bytes), direction == 'up'
local found, bytes = { 'page', total }, 0
while first <= last and bytes < most do
  local from, to = first, last
  if up then
    to = math.min(from + 15, last)
    first = to + 1
  else
    from = math.max(to - 15, first)
    last = from - 1
  end
  local piece = redis.call('LRANGE', KEYS[2], from, to)
  for i = 1, #piece do
    if bytes < most then
      local message = piece[up and i or #piece - i + 1]
      found[#found + 1] = message
      bytes = bytes + #message
    end
  end
end
return found
