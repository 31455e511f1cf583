-- Count bytes among what a tenant has stored.
-- KEYS 1 what it has stored (hash), 2 when its conversations were looked at (zset), 3 the operation's
--      answer (string)
-- ARGV 1 bytes that it may store, 2 conversation id, 3 bytes for the conversation, 4 hours for which
--      turns are kept
-- Returns {'charged'} or {'stored'} (too many bytes)
-- Promise: the limit holds over all gateways. A repeat finds its operation's answer and counts
-- nothing.

local answer = answer_before(KEYS[3])
if answer then
  return answer
end
local keys = { stored = KEYS[1], checked = KEYS[2] }
if charge(keys, tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), 0, tonumber(ARGV[4])) then
  return keep_answer(KEYS[3], { 'charged' })
end
return { 'stored' }
