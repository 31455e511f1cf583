-- Make queued turns due now whose wake-ups the broker may have lost: queued -> queued.
-- KEYS 1 due (zset)
-- ARGV 1 prefix of conversation keys, 2 prefix of turn keys, 3 the most conversations to examine
-- Returns the number of conversations that were made due
-- Promise 3. While a turn waits for its wake-up, its grace doubles with each wake-up that no worker claims,
-- up to minutes. After an outage of the broker the grace starts again from the beginning, because wake-ups
-- sent before may be lost. Parked and running turns do not wait for a wake-up, so they stay as they are. A
-- repeated call finds no such turn that is due later.

local conversations_prefix, turns_prefix, limit = unpack(ARGV)

local now = int(now_ms())
local hastened = 0
local later = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'LIMIT', 0, limit)
for _, conversation in ipairs(later) do
  local head = redis.call('LINDEX', conversations_prefix .. conversation .. ':inbox', 0)
  local turn = head and redis.call('HMGET', turns_prefix .. head, 'status', 'attempt', 'dispatches')
  if turn and turn[1] == 'queued' and (not turn[2] or tonumber(turn[3] or 0) > 0) then
    redis.call('HSET', turns_prefix .. head, 'dispatches', 0)
    redis.call('HDEL', turns_prefix .. head, 'in_line')
    redis.call('ZADD', KEYS[1], now, conversation)
    hastened = hastened + 1
  end
end
return hastened
