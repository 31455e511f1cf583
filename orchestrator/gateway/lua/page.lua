-- Read a piece of a conversation's history.
-- KEYS 1 meta (hash), 2 messages (list)
-- ARGV 1 tenant id, 2 first position, 3 last position, 4 bytes after which no more is read,
--      5 'up' or 'down' (from the first position on, or from the last one back)
-- Returns {'page', number of messages in all, messages in the order read} or {'missing'} (not
--      there, or another tenant's)
-- Promise 4: messages of one turn are appended by one script, so a reader sees all or none. A
-- piece has at least one message if there is one, and is bounded, so that nobody waits for it.

if not belongs(KEYS[1], ARGV[1]) then
  return { 'missing' }
end
local total = redis.call('LLEN', KEYS[2])
local first, last = tonumber(ARGV[2]), math.min(tonumber(ARGV[3]), total - 1)
local most, up = tonumber(ARGV[4]), ARGV[5] == 'up'
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
