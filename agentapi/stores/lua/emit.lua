-- Show clients what a running turn does between its steps.
-- KEYS 1 turn (hash), 2 lease (hash), 3 events (stream)
-- ARGV 1 turn id, 2 fence, 3 batch number, counting from 1 in each lease, then for each event:
--      type, data (JSON)
-- Returns {'emitted'} or {'fenced'}
-- Promises 5, 10. A repeat of the newest batch answers without writing.

if not owns(KEYS[1], KEYS[2], ARGV[1], ARGV[2]) then
  return { 'fenced' }
end
if tonumber(redis.call('HGET', KEYS[2], 'batch') or '0') < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[2], 'batch', ARGV[3])
  for i = 4, #ARGV, 2 do
    emit(KEYS[1], KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
return { 'emitted' }
