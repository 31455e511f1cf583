-- Add a stored chat completion to its tenant's list.
-- KEYS 1 the tenant's chat completions (zset: turn id -> time in ms)
-- ARGV 1 turn id, 2 retention of turns in ms
-- Returns {'listed'}
-- Promise: a chat completion is listed once, at the time of the first call. A repeated call only extends the
-- time for which the list is kept. Entries older than twice the retention of turns are deleted.

local turn_id, retention = ARGV[1], tonumber(ARGV[2])

local now = now_ms()
redis.call('ZADD', KEYS[1], 'NX', int(now), turn_id)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', int(now - 2 * retention))
redis.call('PEXPIRE', KEYS[1], int(2 * retention))
return { 'listed' }
