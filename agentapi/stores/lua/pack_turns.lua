-- Return the state of a partition's oldest ended turns, and note that copies of them are about to be made.
-- KEYS 1 a list of ended turns (zset), 2 copies (zset), 3 the newest version of copies (hash)
-- ARGV 1 status of the list, 2 number of turns at its beginning to skip, 3 how long ago a turn must have
--      ended, 4 how much longer ago than that it must have been accepted, 5 how long a turn that came back
--      from the archive stays, 6 the most turns to examine, 7 bytes of records after which to stop, 8 time
--      after which a note becomes a leftover, 9 prefix of turn keys, 10 name of this call
-- Returns {number of turns examined, whether there are more (0|1), now, turns}. A turn is {id, version of the
--      copy, time left, state, its messages (JSON, '' if its record has them), fields (flat)}
-- Promises 3, 4: nothing is removed from Redis here. Any later change of a turn changes its state, which
-- depart_turns.lua compares.
-- A turn stays in Redis if it ended too recently, has events, a journal or blobs, waits for a hook, refers to
-- a history that is not in Redis, took longer than a day, or expires soon. Versions grow with every call that
-- finds turns, and with the clock; the copy with the newest version is the valid one. A repeated call finds
-- the name of its call and uses the same version.

local status, leave_out, after_time, earlier, rest_time, most, max_bytes, patience, prefix, call =
  unpack(ARGV)

local now, after, rest = now_ms(), tonumber(after_time), tonumber(rest_time)

-- Return what is copied of a turn besides its fields: its messages as JSON, or '' if its record has them.
-- Returns nil if the turn stays.
local function copied(turn_key, turn_id)
  local turn = fields_of(turn_key, 'status', 'created', 'ended', 'returned', 'unstored', 'at', 'messages',
    'conversation')
  local took = stored(turn.ended) - stored(turn.created)
  if turn.status ~= status or turn.unstored or stored(turn.ended) > now - after
    or stored(turn.returned) > now - rest or took > LONGEST_MOVED or took < 0
    or redis.call('PTTL', turn_key) <= after or not stands_alone(turn_key, turn_id) then
    return nil
  end
  if not turn.at or turn.messages then
    return ''
  end
  return text_of(turn_key, turn)
end

-- Return the version of this call's copies.
local function next_version()
  local last = redis.call('HMGET', KEYS[3], 'version', 'call')
  if last[2] == call then
    return last[1]
  end
  local version = int(math.max(stored(last[1]) + 1, now))
  redis.call('HSET', KEYS[3], 'version', version, 'call', call)
  if redis.call('PTTL', KEYS[3]) < LONGEST_MOVED then
    redis.call('PEXPIRE', KEYS[3], LONGEST_MOVED)
  end
  return version
end

local version
local newest = int(now - after - tonumber(earlier))
local entries = redis.pcall('ZRANGEBYSCORE', KEYS[1], '-inf', newest, 'LIMIT', leave_out, most)
local looked, bytes, turns = 0, 0, {}
for _, turn_id in ipairs(entries) do
  if bytes >= tonumber(max_bytes) then
    break
  end
  looked = looked + 1
  local turn_key = prefix .. turn_id
  local text = copied(turn_key, turn_id)
  if text then
    version = version or next_version()
    redis.call('ZADD', KEYS[2], int(now + tonumber(patience)), turn_note('m', version, turn_id))
    local fields = flat_list(record(turn_key))
    for i = 1, #fields do
      bytes = bytes + #fields[i]
    end
    bytes = bytes + #text
    local left = redis.call('PTTL', turn_key)
    turns[#turns + 1] = { turn_id, version, int(left), record_state(turn_key), text, fields }
  end
end
local more = looked < #entries or #entries == tonumber(most)
return { looked, more and 1 or 0, int(now), turns }
