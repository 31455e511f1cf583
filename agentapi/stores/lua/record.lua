-- Record a step of a running turn. A recorded step never runs again.
-- KEYS 1 turn (hash), 2 lease (hash), 3 journal (list), 4 events (stream)
-- ARGV 1 turn id, 2 fence, 3 index of the step, 4 step (JSON), 5 event data (JSON), 6 line of the log
-- Returns {'recorded', cancel_requested (0|1), steered (0|1)}, {'fenced'} or {'gap', length}
-- Promises 5, 6. A repeated call finds its index taken, and returns 'recorded' without writing.

local turn_id, fence, position, step, event, mark = unpack(ARGV)

local mine, cancel, steered = owns(KEYS[1], KEYS[2], turn_id, fence)
if not mine then
  return refuse_write(KEYS[1], fence, 'record')
end
local length = redis.call('LLEN', KEYS[3])
local index = tonumber(position)
if index > length then
  return { 'gap', length }
end
if index == length then
  redis.call('RPUSH', KEYS[3], step)
  redis.call('HSET', KEYS[1], 'steps', int(index + 1))
  note(KEYS[1], now_ms(), mark)
  emit(KEYS[1], KEYS[4], 'step', event)
end
return { 'recorded', cancel, steered }
