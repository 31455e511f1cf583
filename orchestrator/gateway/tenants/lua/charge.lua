-- Add bytes to a tenant's stored bytes.
-- KEYS 1 the tenant's stored bytes (hash), 2 when its conversations were checked (zset), 3 the operation's
--      answer (string)
-- ARGV 1 the most stored bytes, 2 conversation id, 3 bytes of the conversation, 4 hours for which turns are
--      kept
-- Returns {'charged'} or {'stored'} (too many bytes)
-- Promise: the limit holds across all gateways. A repeated call finds its operation's answer and counts
-- nothing.

local max_bytes, conversation_id, size, kept_hours = unpack(ARGV)

local answer = answer_before(KEYS[3])
if answer then
  return answer
end
local keys = { stored = KEYS[1], checked = KEYS[2] }
if charge(keys, tonumber(max_bytes), conversation_id, tonumber(size), 0, tonumber(kept_hours)) then
  return keep_answer(KEYS[3], { 'charged' })
end
return { 'stored' }
