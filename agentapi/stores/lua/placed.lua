-- Tell which turns of a partition are in at least one of the given lists.
-- KEYS the lists (zsets)
-- ARGV 1 prefix of turn keys, then for each turn: 2 id, 3 when it was accepted (ms)
-- Returns for each turn: 1 (it is in one of the lists, and its record is in Redis or in the archive) or 0
-- Promise 13. It only reads. A turn that moves between lists is always in one of them. A later turn with
-- the same id was accepted at a different time.

local prefix = ARGV[1]

local function is_placed(turn_id, accepted)
  for _, key in ipairs(KEYS) do
    local score = redis.pcall('ZSCORE', key, turn_id)
    if type(score) == 'string' and tonumber(score) == tonumber(accepted) then
      return string.find(key, ':list:moved:', 1, true) or redis.call('EXISTS', prefix .. turn_id) == 1
    end
  end
  return false
end

local found = {}
for i = 2, #ARGV, 2 do
  found[#found + 1] = is_placed(ARGV[i], ARGV[i + 1]) and 1 or 0
end
return found
