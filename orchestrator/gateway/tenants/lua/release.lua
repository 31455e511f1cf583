-- Count bytes no more: what they were counted for is gone, or was not accepted.
-- KEYS 1 the tenant's turns in flight (zset), 2 what it has stored (hash), 3 the operation's
--      answer (string)
-- ARGV 1 turn id that is in flight no more ('' for none), 2... field and bytes of it, the field '' for
--      the hour of now
-- Returns {'released'}
-- Promise: no number falls below 0; a turn that is in flight no more has been released before. A repeat
-- finds its operation's answer and releases nothing.

local answer = answer_before(KEYS[3])
if answer then
  return answer
end
if ARGV[1] ~= '' and redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
  return { 'released' }
end
for i = 2, #ARGV, 2 do
  local field = ARGV[i] ~= '' and ARGV[i] or 'h:' .. int(math.floor(now_ms() / 3600000))
  store_bytes(KEYS[2], field, -tonumber(ARGV[i + 1]))
end
return keep_answer(KEYS[3], { 'released' })
