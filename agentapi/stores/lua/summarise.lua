-- Store a summary of the beginning of a conversation. The messages stay in the history.
-- KEYS 1 meta (hash)
-- ARGV 1 generation, 2 number of messages that the previous summary covers, 3 number of messages that this
--      one covers, 4 text
-- Returns {'kept'} or {'late'} (the conversation was reset, or another summary was stored first)
-- Promises 4, 5: a summary is made from the previous one. A repeated call finds its own summary.

local generation, covered_before, covers, text = unpack(ARGV)

local elsewhere = away(KEYS[1])
if elsewhere then
  return elsewhere
end
local meta = redis.call('HMGET', KEYS[1], 'created', 'generation', 'covered', 'summary')
if not meta[1] or (meta[2] or '0') ~= generation then
  return { 'late' }
end
if meta[3] == covers and meta[4] == text then
  return { 'kept' }
end
if (meta[3] or '0') ~= covered_before then
  return { 'late' }
end
redis.call('HSET', KEYS[1], 'covered', covers, 'summary', text)
return { 'kept' }
