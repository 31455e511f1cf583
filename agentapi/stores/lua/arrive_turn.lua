-- Bring the record of a turn back from the archive.
-- KEYS 1 turn (hash), 2 copies (zset)
-- ARGV 1 turn id, 2 version of the copy ('' if the archive has none), 3 when the record expires (ms), 4
--      retention of a turn, 5... name and value of each field
-- Returns {'back'}, {'elsewhere'} (it is not in the archive any more, or has expired) or {'lost'} (it
--      must be there, and is not)
-- Promises 3, 4: the record and its place in the lists change together. The copy in the archive means
-- nothing from then on, and is noted as a leftover. A repeat finds the record.

local turn_id, version, expires, retention = unpack(ARGV, 1, 4)

local now = now_ms()
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { 'back' }
end
local status, accepted = moved_turn(KEYS[1])
if not status then
  return { 'elsewhere' }
end
local left = version ~= '' and tonumber(expires) - now or 0
if left <= 0 and version == '' and stored(accepted) > now - tonumber(retention) then
  return { 'lost' }
end
redis.call('ZREM', list_key(KEYS[1], 'moved:' .. status), turn_id)
if version ~= '' then
  redis.call('ZADD', KEYS[2], int(now), turn_note('d', version, turn_id))
end
if left <= 0 then
  return { 'elsewhere' }
end
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'returned', int(now))
redis.call('PEXPIRE', KEYS[1], int(left))
redis.pcall('ZADD', list_key(KEYS[1], status), accepted, turn_id)
return { 'back' }
