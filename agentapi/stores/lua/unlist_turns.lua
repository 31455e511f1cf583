-- Remove archived turns from their lists when their retention has ended.
-- KEYS the lists (zsets)
-- ARGV for each turn: 1 id, 2 time of acceptance (ms)
-- Returns {'gone'}
-- Promise 3. The caller deletes the copies afterwards, because a turn that is in such a list but has no copy
-- counts as lost. A later turn with the same id has another time of acceptance and stays. A repeated call
-- finds the turns gone.

for i = 1, #ARGV, 2 do
  local turn_id, accepted = unpack(ARGV, i, i + 1)
  for _, key in ipairs(KEYS) do
    if stored(redis.pcall('ZSCORE', key, turn_id)) == tonumber(accepted) then
      redis.call('ZREM', key, turn_id)
    end
  end
end
return { 'gone' }
