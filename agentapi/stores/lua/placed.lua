-- Tell which turns of a partition are in at least one of the given lists.
-- KEYS the lists (zsets)
-- ARGV 1 prefix of turn keys, 2... turn ids
-- Returns for each turn: 1 (it is in one of the lists, and its record is in Redis or in the archive) or 0
-- Promise 13. It only reads. A turn that moves between lists is always in one of them.

local prefix = ARGV[1]

local function is_placed(turn_id)
  for _, key in ipairs(KEYS) do
    if type(redis.pcall('ZSCORE', key, turn_id)) == 'string' then
      return string.find(key, ':list:moved:', 1, true) or redis.call('EXISTS', prefix .. turn_id) == 1
    end
  end
  return false
end

local found = {}
for i = 2, #ARGV do
  found[#found + 1] = is_placed(ARGV[i]) and 1 or 0
end
return found
