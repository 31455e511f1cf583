-- Append events of a running turn that happen between its steps.
-- KEYS 1 turn (hash), 2 lease (hash), 3 events (stream)
-- ARGV 1 turn id, 2 fence, 3 batch number (counted from 1 in each lease), then for each event: type, data
--      (JSON)
-- Returns {'emitted'} or {'fenced'}
-- Promises 5, 10. A repeated call with the newest batch gets the first answer and writes nothing.

local turn_id, fence, batch = unpack(ARGV, 1, 3)

if not owns(KEYS[1], KEYS[2], turn_id, fence) then
  return { 'fenced' }
end
if tonumber(redis.call('HGET', KEYS[2], 'batch') or '0') < tonumber(batch) then
  redis.call('HSET', KEYS[2], 'batch', batch)
  for i = 4, #ARGV, 2 do
    emit(KEYS[1], KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
return { 'emitted' }
