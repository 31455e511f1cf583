-- Take turns in the archive out of their lists whose retention has ended.
-- KEYS the lists (zsets)
-- ARGV for each turn: 1 id, 2 when it was accepted (ms)
-- Returns {'gone'}
-- Promise 3. Its caller deletes the copies afterwards: a turn that is in such a list, and has no copy, is lost.
-- A later turn of the same id was accepted at another time. A repeat finds them gone.

for i = 1, #ARGV, 2 do
  local turn_id, accepted = unpack(ARGV, i, i + 1)
  for _, key in ipairs(KEYS) do
    if stored(redis.pcall('ZSCORE', key, turn_id)) == tonumber(accepted) then
      redis.call('ZREM', key, turn_id)
    end
  end
end
return { 'gone' }
