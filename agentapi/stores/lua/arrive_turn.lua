-- Restore a turn's record from the archive.
-- KEYS 1 turn (hash), 2 copies (zset)
-- ARGV 1 turn id, 2 when a script reported that the record is in the archive (ms), 3 how long after that
--      report a copy from the archive may be used, 4 version of the copy ('' if the archive has none), 5 when
--      the record expires (ms), 6 retention of a turn (used if the retention of the partition's archived
--      turns is unknown), 7... name and value of each field
-- Returns {'back'}, {'elsewhere'} (the record is no longer in the archive, has expired, or the caller is too
--      late) or {'lost'} (the archive should have the record, but does not)
-- Promises 3, 4: the record and its place in the lists change together. From then on the copy in the archive
-- is not valid, and is recorded as a leftover. A repeated call finds the record. A caller that was paused may
-- hold an outdated copy: the turn may have come back, changed, and moved again in the meantime. That takes
-- longer than argument 3 allows, so the script refuses such a copy.

local turn_id, asked, valid, version, expires, retention = unpack(ARGV, 1, 6)

local now = now_ms()
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { 'back' }
end
local status, accepted = moved_turn(KEYS[1])
if not status or tonumber(asked) < now - tonumber(valid) then
  return { 'elsewhere' }
end
local left = version ~= '' and tonumber(expires) - now or 0
if left <= 0 and version == '' and stored(accepted) > now - longest_kept(KEYS[1], retention) then
  return { 'lost' }
end
redis.call('ZREM', list_key(KEYS[1], 'moved:' .. status), turn_id)
if version ~= '' then
  redis.call('ZADD', KEYS[2], int(now), turn_note('d', version, turn_id))
end
if left <= 0 then
  return { 'elsewhere' }
end
for i = 7, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'returned', int(now))
redis.call('PEXPIRE', KEYS[1], int(left))
redis.pcall('ZADD', list_key(KEYS[1], status), accepted, turn_id)
return { 'back' }
