-- Agree with the fleet on the number of queues.
-- KEYS 1 record (hash: queues, at (ms): the start of the newest worker), 2 election (string: name of the
--      lead)
-- ARGV 1 the caller's number of queues, 2 ms for which a record counts even if no worker leads
-- Returns the fleet's number of queues; this is the caller's number unless other workers are alive
-- Promise 3: a wake-up sent to a queue that no worker reads would have to wait for the sweep. So the number
-- changes only while no worker is alive. A running fleet has a lead; the time in argument 2 covers a worker
-- that has just started and is not elected yet.

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
