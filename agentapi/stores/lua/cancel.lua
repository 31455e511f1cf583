-- Cancel a turn: queued|parked -> cancelled at once; a running one is asked to stop.
-- KEYS 1 turn (hash), 2 inbox (list), 3 lease (hash), 4 meta (hash), 5 messages (list),
--      6 journal (list), 7 events (stream), 8 due (zset)
-- ARGV 1 turn id, 2 conversation id, 3 dispatch grace, 4 retention of the turn, 5 retention of
--      its events
-- Returns {'cancelled', next turn id or ''}, {'requested'}, {'ended', status} or {'missing'}
-- Promises 2, 3, 5. A running turn whose lease has expired has no worker that could stop: it
-- ends here, under a new epoch, so that a worker presumed dead cannot write.

local status = redis.call('HGET', KEYS[1], 'status')
if not status then
  return { 'missing' }
end
if status == 'cancelled' and redis.call('HGET', KEYS[1], 'committed') == 'cancel' then
  return { 'cancelled', redis.call('HGET', KEYS[1], 'next') }
end
if ended(status) then
  return { 'ended', status }
end
local now = now_ms()
if status == 'running' then
  local expires = redis.call('HGET', KEYS[3], 'expires')
  if expires and tonumber(expires) > now then
    redis.call('HSET', KEYS[1], 'cancel', int(now))
    return { 'requested' }
  end
end
if redis.call('HGET', KEYS[3], 'turn') == ARGV[1] then
  redis.call('HINCRBY', KEYS[4], 'epoch', 1)
  redis.call('DEL', KEYS[3])
end
redis.call('DEL', KEYS[6])
local following = leave_inbox(KEYS[2], KEYS[8], ARGV[1], ARGV[2], tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'status', 'cancelled', 'ended', int(now), 'committed', 'cancel',
  'next', following)
emit(KEYS[1], KEYS[7], 'cancelled', '{}')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[7], ARGV[5])
if redis.call('LLEN', KEYS[2]) == 0 then
  expire_idle(KEYS[4], KEYS[5])
end
return { 'cancelled', following }
