-- Take turns out of Redis whose copies are in the archive, but for their place in a list.
-- KEYS 1 the list that they are in (zset), 2 the list of such turns that are in the archive (zset), 3 copies
--      (zset), 4 what is known of copies (hash)
-- ARGV 1 prefix of turn keys, then for each turn: 2 id, 3 version of the copy, 4 state that was copied, 5 when
--      the copy expires (ms)
-- Returns for each turn: 1 (its record is in the archive) or 0 (the copy means nothing: a leftover)
-- Promises 3, 4: whatever has happened to a turn since its copy was begun wins. The note of the copy must
-- still be there: otherwise somebody may have deleted the copy. A repeat finds the turn in the second list.
-- How long the turns are kept is noted, for as long as any of them has a place.

local prefix = ARGV[1]
local now, gone = now_ms(), {}
local kept, last = stored(redis.call('HGET', KEYS[4], 'kept')), 0

for i = 2, #ARGV, 4 do
  local turn_id, version, state, expires = unpack(ARGV, i, i + 3)
  local turn_key = prefix .. turn_id
  local noted = redis.call('ZREM', KEYS[3], turn_note('m', version, turn_id)) == 1
  local accepted = redis.call('ZSCORE', KEYS[1], turn_id)
  if noted and accepted and record_state(turn_key) == state and stands_alone(turn_key, turn_id) then
    redis.call('ZREM', KEYS[1], turn_id)
    redis.call('ZADD', KEYS[2], accepted, turn_id)
    redis.call('UNLINK', turn_key)
    kept, last = math.max(kept, stored(expires) - stored(accepted)), math.max(last, stored(expires))
    gone[#gone + 1] = 1
  elseif not noted and redis.call('EXISTS', turn_key) == 0 and redis.call('ZSCORE', KEYS[2], turn_id) then
    gone[#gone + 1] = 1
  else
    redis.call('ZADD', KEYS[3], int(now), turn_note('d', version, turn_id))
    gone[#gone + 1] = 0
  end
end
if last > 0 then
  redis.call('HSET', KEYS[4], 'kept', int(kept))
  -- enqueue.lua may look for what is left a day after the end.
  local needed = last - now + 2 * LONGEST_MOVED
  if redis.call('PTTL', KEYS[4]) < needed then
    redis.call('PEXPIRE', KEYS[4], int(needed))
  end
end
return gone
