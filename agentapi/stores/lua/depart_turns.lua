-- Remove turns whose copies are in the archive from Redis, except for their place in a list.
-- KEYS 1 the list that the turns are in (zset), 2 the list of archived turns (zset), 3 copies (zset), 4 facts
--      about the copies (hash, 'copied' in docs/protocol.md)
-- ARGV 1 prefix of turn keys, then for each turn: 2 id, 3 version of the copy, 4 state that was copied,
--      5 when the copy expires (ms)
-- Returns for each turn: 1 (its record is in the archive) or 0 (the copy is not valid and becomes a leftover)
-- Promises 3, 4: any change to a turn since its copy was begun wins over the move. The note about the copy
-- must still exist; otherwise somebody may have deleted the copy. A repeated call finds the turn in the
-- second list. The script also records how long the archived turns are kept, for as long as any of them has a
-- place in a list.

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
  -- enqueue.lua still reads this a day after the last copy has expired.
  local needed = last - now + 2 * LONGEST_MOVED
  if redis.call('PTTL', KEYS[4]) < needed then
    redis.call('PEXPIRE', KEYS[4], int(needed))
  end
end
return gone
