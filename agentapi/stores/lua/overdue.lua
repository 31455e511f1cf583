-- Which conversations should have moved by now, which errands should have been carried out?
-- KEYS the due indexes to look at (zsets)
-- ARGV 1 at most so many conversations, and so many errands, of each index
-- Returns a flat list: number of the key, conversation id or errand, ...
-- An index that is not one has an errand that nobody can read, and keeps no other from being looked at.
-- Promise 3. Errands that nobody can carry out keep no conversation waiting, nor the reverse.

-- An empty index is no key: an idle fleet costs one command.
if redis.call('EXISTS', unpack(KEYS)) == 0 then
  return {}
end
local PAGES = 10
local found = {}
local now, limit = int(now_ms()), tonumber(ARGV[1])
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
