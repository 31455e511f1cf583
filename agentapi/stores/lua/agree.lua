-- Agree with the fleet on the number of queues.
-- KEYS 1 record (hash: queues, at (ms): the start of the newest worker), 2 election
--        (string: name of the worker that leads)
-- ARGV 1 the caller's number of queues, 2 ms for which a record counts though nobody leads
-- Returns the fleet's number, which is the caller's unless other workers live
-- Promise 3: a wake-up that is sent to a queue which no worker reads waits for the sweep. Only a
-- fleet without workers changes its number: while workers live one of them leads, and one that started
-- just now has not been elected yet.

local queues, fresh = unpack(ARGV)

local recorded = tonumber(redis.call('HGET', KEYS[1], 'queues') or '')
if recorded and recorded ~= tonumber(queues) then
  local at = tonumber(redis.call('HGET', KEYS[1], 'at') or '') or 0
  if redis.call('EXISTS', KEYS[2]) == 1 or now_ms() - at < tonumber(fresh) then
    return recorded
  end
end
redis.call('HSET', KEYS[1], 'queues', queues, 'at', int(now_ms()))
return tonumber(queues)
