-- Count the death of a process that ran a suspect turn and nothing else: running -> queued.
-- KEYS 1 turn (hash), 2 lease (hash), 3 due (zset)
-- ARGV 1 turn id, 2 conversation id, 3 the process (its claim token begins with it)
-- Returns {'perished', deaths, agent}, or {'gone'} (the process did not have the turn)
-- Promise 12: only such a death counts. The worker that started the process reports it, so nothing is counted
-- if both die together, for example when a machine is lost. A repeated call finds that the process is already
-- counted, and returns the first answer.

local turn_id, conversation_id, process = unpack(ARGV)

local turn = redis.call('HMGET', KEYS[1], 'perished', 'deaths', 'agent', 'status')
if turn[1] == process then
  return { 'perished', tonumber(turn[2]), turn[3] }
end
local lease = redis.call('HMGET', KEYS[2], 'turn', 'token')
if not turn[4] or lease[1] ~= turn_id or string.sub(lease[2], 1, #process) ~= process then
  return { 'gone' }
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'status', 'queued', 'suspect', 1, 'perished', process)
local deaths = count_up(KEYS[1], 'deaths')
count_up(KEYS[1], 'losses')
note(KEYS[1], now_ms(), '"x",' .. int(deaths))
redis.call('ZADD', KEYS[3], int(now_ms()), conversation_id)
return { 'perished', deaths, turn[3] }
