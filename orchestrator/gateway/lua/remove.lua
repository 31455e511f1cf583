-- Take one message out of a conversation's history.
-- KEYS 1 meta (hash), 2 messages (list)
-- ARGV 1 the message as it is stored, 2 operation id
-- Returns 1 when it was there, else 0
-- Promise 4. A summary counts the messages that it covers: one of them that goes is counted off, or
-- the first message behind the summary would be in neither. A repeat finds its
-- operation id: the same message may be there twice.

local operation = operation_key(KEYS[1], ARGV[2])
if redis.call('EXISTS', operation) == 1 then
  return 1
end
local position = redis.call('LPOS', KEYS[2], ARGV[1])
if not position then
  return 0
end
redis.call('LREM', KEYS[2], 1, ARGV[1])
redis.call('SET', operation, '', 'PX', OPERATION_TTL)
if position < tonumber(redis.call('HGET', KEYS[1], 'covered') or '0') then
  redis.call('HINCRBY', KEYS[1], 'covered', -1)
end
return 1
