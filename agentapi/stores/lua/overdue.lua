-- List overdue conversations and errands.
-- KEYS the due indexes to read (zsets)
-- ARGV 1 the most conversations, and the most errands, of each index
-- Returns a flat list: number of the key, conversation id or errand, ... For a key of another type, the list
--      has an errand with an unreadable name; the other keys are read as usual.
-- Promise 3. Conversations and errands are counted separately, so that neither kind keeps the other waiting.

local max_entries = unpack(ARGV)

-- An empty index has no key, so on a cluster an idle index costs one command.
if redis.call('EXISTS', unpack(KEYS)) == 0 then
  return {}
end
local PAGES = 10
local found = {}
local now, limit = int(now_ms()), tonumber(max_entries)
for i = 1, #KEYS do
  local left = { [true] = limit, [false] = limit }
  for page = 0, PAGES - 1 do
    local late = redis.pcall('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', page * limit, limit)
    if late.err then
      late = { '\1unreadable' }
    end
    for j = 1, #late do
      local is_errand = string.byte(late[j]) == 1
      if left[is_errand] > 0 then
        left[is_errand] = left[is_errand] - 1
        found[#found + 1] = i
        found[#found + 1] = late[j]
      end
    end
    if #late < limit or (left[true] == 0 and left[false] == 0) then
      break
    end
  end
end
return found
