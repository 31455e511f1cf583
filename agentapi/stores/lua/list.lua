-- Read a part of a partition's lists, newest first.
-- KEYS the lists (zsets)
-- ARGV 1 'turns' or 'conversations', 2 where to begin: a time, with '(' before it to leave that time out, or
--      '+inf', 3 an entry with that time after which to begin ('' for none), 4 the earliest time ('-inf' for
--      no limit), 5 number of matches after which to stop, 6 number of entries after which to stop, 7 filter
--      (JSON); its fields for turns: statuses (a list), agent, tenant, user, conversation, code, text, asks,
--      beside (whether the caller reads the archived turns of this time from the archive itself); its fields
--      for conversations: agent, tenant, user, busy, active (a time), idle (a time)
-- Returns {time down to which this part was read, or '' at the end of the lists, number of entries examined,
--      matches, number of archived turns left out}. A match is {entry, time, name, value, ...}.
-- Promise 13. A part never ends between two entries of the same time, so its reader knows all entries down to
-- that time. A turn whose record is in the archive is {turn id, time, 'moved', '1'}; the reader asks the
-- archive whether it matches. Other entries whose record is gone are removed; nothing else changes. The
-- number of entries is limited, so that the script does not block other clients of Redis.

local kind, begin_at, behind, earliest, wanted, most, filter_json = unpack(ARGV)

local CHUNK = 32
local filter = cjson.decode(filter_json)
local partition = partition_prefix(KEYS[1])

-- Return whether an entry is smaller than another one with the same time; the larger one comes first in the
-- list. Compares bytes, as a sorted set does, because Lua would compare by locale.
local function smaller(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then
      return a < b
    end
  end
  return #one < #other
end

-- Go to the next entry of a list: sets reader.entry and reader.time, to nil at the end of the list.
local function advance(reader)
  while true do
    reader.at = reader.at + 2
    if reader.at > #reader.chunk then
      local chunk = redis.pcall('ZREVRANGEBYSCORE', reader.key, begin_at, earliest, 'WITHSCORES', 'LIMIT',
        reader.offset, CHUNK)
      reader.chunk, reader.at, reader.offset = chunk, 1, reader.offset + CHUNK
    end
    -- At the end of a list the chunk is empty. A key of another type counts as an empty list.
    reader.entry, reader.time = reader.chunk[reader.at], tonumber(reader.chunk[reader.at + 1] or '')
    if not reader.entry or behind == '' or reader.time ~= tonumber(begin_at)
      or smaller(reader.entry, behind) then
      return
    end
  end
end

local readers, left_out = {}, {}
for _, key in ipairs(KEYS) do
  local moved = string.find(key, ':list:moved:', 1, true)
  if moved and filter.beside then
    left_out[#left_out + 1] = key
  else
    readers[#readers + 1] = { key = key, offset = 0, chunk = {}, at = 1, moved = moved }
    advance(readers[#readers])
  end
end

-- Convert tables of fields into one flat list, without missing fields.
local function flat(...)
  local found = {}
  for _, fields in ipairs({ ... }) do
    for name, value in pairs(fields) do
      if value then
        found[#found + 1] = name
        found[#found + 1] = value
      end
    end
  end
  return found
end

local wants_status = {}
for _, status in ipairs(filter.statuses or {}) do
  wants_status[status] = true
end

-- The fields that the filter tests. Of an entry that does not match, only these and the fields that show its
-- state are read.
local asked = {}
for _, name in ipairs({ 'agent', 'tenant', 'user', 'conversation' }) do
  if filter[name] then
    asked[#asked + 1] = name
  end
end

-- Return whether a table of fields passes the filter.
local function fits(fields)
  for _, name in ipairs(asked) do
    if filter[name] ~= (fields[name] or '') then
      return false
    end
  end
  return true
end

-- Return why a turn failed: code and text.
local function failure(key)
  local read, outcome = pcall(cjson.decode, redis.call('HGET', key, 'outcome') or '')
  local error = read and type(outcome) == 'table' and outcome.error
  if type(error) ~= 'table' then
    return '', ''
  end
  return tostring(error.code), tostring(error.message)
end

-- Return a turn's fields if it matches. Otherwise return nil, and whether its record is gone.
local function turn(turn_id)
  local key = partition .. 't:' .. turn_id
  local known = fields_of(key, 'status', 'held', unpack(asked))
  local status = known.status
  if not status then
    return nil, true
  end
  if not wants_status[status] or filter.asks and not known.held or not fits(known) then
    return
  end
  local code, text = '', ''
  if status == 'failed' then
    code, text = failure(key)
  end
  if filter.code and filter.code ~= code or filter.text
    and not string.find(string.lower(code .. ' ' .. text), filter.text, 1, true) then
    return
  end
  local fields = fields_of(key, 'agent', 'tenant', 'user', 'conversation', 'kind', 'attempt', 'steps',
    'created', 'started', 'ended', 'wake', 'parent', 'cancel', 'worker')
  return flat({ status = status, code = code, text = text }, fields)
end

-- Return a conversation's fields if it matches. Otherwise return nil, and whether its record is gone.
local function conversation(conversation_id)
  local key = partition .. 'c:' .. conversation_id
  local known = named(key .. ':meta', 'created', 'updated', unpack(asked))
  if not known.created then
    return nil, true
  end
  if not fits(known) then
    return
  end
  local updated = stored(known.updated)
  if filter.active and updated < filter.active or filter.idle and updated > filter.idle then
    return
  end
  local waiting = redis.call('LLEN', key .. ':inbox')
  if filter.busy ~= nil and filter.busy ~= (waiting > 0) then
    return
  end
  local archived = string.match(redis.call('HGET', key .. ':meta', 'archived') or '', ' (%d+)$')
  local messages = archived or int(redis.call('LLEN', key .. ':messages'))
  local counts = { waiting = int(waiting), messages = messages, archived = archived and '1' }
  return flat(counts, named(key .. ':meta', 'created', 'updated', 'agent', 'tenant', 'user', 'turns',
    'tokens', 'cost', 'metadata'))
end

local look = kind == 'turns' and turn or conversation
-- If the filter tests nothing but the status, every archived turn matches.
local certain = #asked == 0
local matches, seen, gone = {}, {}, {}
local reached, looked, found = nil, 0, 0
while true do
  local newest
  for i = 1, #readers do
    local reader = readers[i]
    if reader.entry and (not newest or reader.time > newest.time) then
      newest = reader
    end
  end
  if not newest then
    reached = nil
    break
  end
  local entry, time = newest.entry, newest.time
  if reached and time < reached and (looked >= tonumber(most) or found >= tonumber(wanted)) then
    break
  end
  reached, looked = time, looked + 1
  advance(newest)
  local moved = newest.moved
  local fields, missing
  if not moved then
    fields, missing = look(entry)
  elseif not filter.code and not filter.text and not filter.asks then
    fields = { 'moved', '1' }
  end
  if missing then
    gone[#gone + 1] = { newest.key, entry }
  elseif fields and not seen[entry] then
    seen[entry] = true
    found = found + ((not moved or certain) and 1 or 0)
    matches[#matches + 1] = { entry, int(time), unpack(fields) }
  end
end
for _, entry in ipairs(gone) do
  redis.pcall('ZREM', entry[1], entry[2])
end
local away = 0
for _, key in ipairs(left_out) do
  local count = redis.pcall('ZCOUNT', key, reached and int(reached) or earliest, begin_at)
  away = away + (type(count) == 'number' and count or 0)
end
return { reached and int(reached) or '', looked, matches, away }
