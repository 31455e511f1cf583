-- List the conversations of a tenant whose stored bytes were checked least recently.
-- KEYS 1 the tenant's stored bytes (hash), 2 when its conversations were checked (zset)
-- ARGV 1 the most conversations to return, 2 ms since they were checked at least, 3 hours for which turns are
--      kept
-- Returns a flat list: conversation id, bytes that are counted for it, ...
-- Promise: none; the caller checks these conversations, and settle.lua corrects their bytes.

local max_conversations, age, kept_hours = unpack(ARGV)

forget_hours(KEYS[1], tonumber(kept_hours))
local found = {}
local before = int(now_ms() - tonumber(age))
for _, conversation_id in
  ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', before, 'LIMIT', 0, max_conversations))
do
  found[#found + 1] = conversation_id
  found[#found + 1] = redis.call('HGET', KEYS[1], 'c:' .. conversation_id) or '0'
end
return found
