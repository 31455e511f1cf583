-- Subtract bytes from a tenant's stored bytes, because their data is gone or was not accepted.
-- KEYS 1 the tenant's turns in flight (zset), 2 its stored bytes (hash), 3 the operation's answer (string)
-- ARGV 1 id of the turn that is no longer in flight ('' for none), 2... field and bytes to subtract from it;
--      the field '' stands for the current hour
-- Returns {'released'}
-- Promise: no number falls below 0. A turn that is not among the turns in flight was released before, so
-- nothing is subtracted for it. A repeated call finds its operation's answer and subtracts nothing.

local turn_id = ARGV[1]

local answer = answer_before(KEYS[3])
if answer then
  return answer
end
if turn_id ~= '' and redis.call('ZREM', KEYS[1], turn_id) == 0 then
  return { 'released' }
end
for i = 2, #ARGV, 2 do
  local field = ARGV[i] ~= '' and ARGV[i] or 'h:' .. int(math.floor(now_ms() / 3600000))
  store_bytes(KEYS[2], field, -tonumber(ARGV[i + 1]))
end
return keep_answer(KEYS[3], { 'released' })
