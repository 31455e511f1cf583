-- Functions shared by the scripts of the turn protocol. Each script gets only the functions that it uses.
--
-- Conventions: times are in milliseconds of Redis's own clock. If the caller does not hold the lease, a
-- script returns {'fenced'} and changes nothing that the protocol reads (promise 5). A repeated call returns
-- the first answer.

-- The beginning of a stored user message, which is the first message of a turn. Only
-- agentapi.conversation.messages.dumps writes messages, with the fields in this order.
local USER_MESSAGE = '{"v":1,"role":"user"'

-- Return some fields of a hash by name; a missing field is false.
local function named(key, ...)
  local values, found = redis.call('HMGET', key, ...), {}
  for i, name in ipairs({ ... }) do
    found[name] = values[i]
  end
  return found
end

local function ended(status)
  return status == 'completed' or status == 'failed' or status == 'cancelled'
end

-- Add one to a stored number. Any other stored value counts as 0. Returns the new number.
local function count_up(key, field)
  local count = redis.pcall('HINCRBY', key, field, 1)
  if type(count) == 'table' then
    redis.call('HSET', key, field, 1)
    return 1
  end
  return count
end

-- The next two functions convert conversation ids. short_id replaces the 32 hexadecimal digits, or the UUID,
-- at the end of an id by a control character and 16 bytes; no id contains a control character. long_id
-- converts back.
local function long_id(id)
  local mark = string.sub(id, -17, -17)
  if mark ~= '\1' and mark ~= '\2' then
    return id
  end
  local digits = string.format('%08x%08x%08x%08x', struct.unpack('>I4I4I4I4', string.sub(id, -16)))
  if mark == '\2' then
    digits = string.gsub(digits, '^(........)(....)(....)(....)', '%1-%2-%3-%4-')
  end
  return string.sub(id, 1, -18) .. digits
end

local function short_id(id)
  local dashed = string.sub(id, -13, -13) == '-'
  local tail = string.sub(id, dashed and -36 or -32)
  local digits = dashed and string.gsub(tail, '-', '') or tail
  if #digits ~= 32 or string.find(digits, '[^0-9a-f]') then
    return id
  end
  local function word(i)
    return tonumber(string.sub(digits, i, i + 7), 16)
  end
  local bytes = struct.pack('>I4I4I4I4', word(1), word(9), word(17), word(25))
  local short = string.sub(id, 1, -#tail - 1) .. (dashed and '\2' or '\1') .. bytes
  return (not dashed or long_id(short) == id) and short or id
end

-- Return what a turn's log, as a list of marks, says about its worker and usage: the worker of the last
-- claim, and the usage of the last model response. The latter is the usage of the turn if there was only one
-- response.
local function told_by(marks)
  local worker, usage
  for _, mark in ipairs(marks) do
    if mark[2] == 'c' then
      worker = mark[4]
    elseif mark[2] == 'm' and tonumber(mark[5]) and tonumber(mark[6]) and tonumber(mark[7])
      and tonumber(mark[8]) then
      usage = table.concat(mark, ',', 5, 8)
    end
  end
  return worker, usage
end

-- Return a turn's log as a list of marks, each of them a list, and its worker and usage (see told_by).
-- Returns only the text if it is longer than LONG, because parsing it would block Redis, or if it has nested
-- values or null.
local function short_log(log)
  local LONG = 2048
  if #log > LONG or string.find(log, '{', 1, true) or string.find(log, ',[', 1, true)
    or string.find(log, 'null', 1, true) then
    return log
  end
  local read, marks = pcall(cjson.decode, '[' .. string.gsub(log, '\n', ',') .. ']')
  if not read then
    return log
  end
  return marks, told_by(marks)
end

local function long_log(log)
  if type(log) == 'string' then
    return log
  end
  local lines = {}
  for i, mark in ipairs(log) do
    lines[i] = cjson.encode(mark)
  end
  return table.concat(lines, '\n'), told_by(log)
end

-- Names of fields that a packed record (below) stores by position, or does not store.
local NOT_NAMED = {
  v = 1, status = 1, created = 1, started = 1, ended = 1, conversation = 1, agent = 1, tenant = 1,
  worker = 1, attempt = 1, steps = 1, events = 1, committed = 1, at = 1, usage = 1, size = 1, idle = 1,
  log = 1, metadata = 1, stream = 1, input = 1, compact = 1, dispatches = 1, claimed = 1, released = 1,
  parked = 1, perished = 1, in_line = 1, ready = 1, look = 1, wake = 1, failing = 1, failures = 1,
  failures_at = 1, waits_for = 1, kept = 1
}

-- The metadata that the gateway stores with a turn whose conversation it created.
local IMPLICIT = '{"agentapi:gateway":{"implicit":true}}'

-- Pack the record of a turn that refers to its messages into one MessagePack array. Redis stores a hash
-- compactly as long as no value has ever been longer than 64 bytes, so the array is cut into the fields '0',
-- '1', ... 'v', 'status' and what is written after the end are fields of their own. A later release may
-- append to the array.
-- turn: its fields by name. Returns a flat list of names and values to store.
local function packed(turn)
  local PIECE, PIECES = 63, 16
  local usual = { user = '', kind = 'agent', on_abort = 'drop' }
  local others
  for name, value in pairs(turn) do
    if not NOT_NAMED[name] and value ~= usual[name] then
      others = others or {}
      others[name] = value
    end
  end
  local created, log, worker, used = stored(turn.created), short_log(turn.log or '')
  local text = cmsgpack.pack({
    others or false,
    tonumber(turn.created) or false,
    turn.started and stored(turn.started) - created or false,
    stored(turn.ended) - created,
    short_id(turn.conversation or ''),
    turn.agent or false,
    turn.tenant or false,
    turn.worker ~= worker and turn.worker or false,
    tonumber(turn.attempt) or false,
    tonumber(turn.steps) or false,
    tonumber(turn.events) or false,
    tonumber(turn.committed, 16),
    turn.at,
    turn.usage ~= used and turn.usage,
    tonumber(turn.size),
    log,
    tonumber(turn.idle) or false,
    turn.stream == '1',
    turn.metadata == IMPLICIT or turn.metadata ~= '{}' and turn.metadata or false,
  })
  if #text > PIECES * PIECE then
    PIECE = #text
  end
  local flat = { 'v', '3', 'status', turn.status }
  for first = 1, #text, PIECE do
    flat[#flat + 1] = tostring(#flat / 2 - 2)
    flat[#flat + 1] = string.sub(text, first, first + PIECE - 1)
  end
  return flat
end

-- Unpack what `packed` has packed. Returns fields by name. wanted: a table with the names of the needed
-- fields, or nil for all.
local function unpacked(text, wanted)
  local others, created, started, ended_after, conversation, agent, tenant, worker, attempt, steps,
    events, committed, at, usage, size, log, idle, stream, metadata = unpack(cmsgpack.unpack(text))
  local turn = others or {}
  local function wants(name)
    return not wanted or wanted[name] ~= nil
  end
  local function add(name, value)
    if value and wants(name) then
      turn[name] = tostring(value)
    end
  end
  add('created', created)
  add('started', started and created + started)
  add('ended', created + ended_after)
  add('conversation', wants('conversation') and long_id(conversation))
  add('agent', agent)
  add('tenant', tenant)
  add('attempt', attempt)
  add('steps', steps)
  add('events', events)
  add('size', size)
  add('idle', idle)
  add('committed', wants('committed') and string.format('%08x', committed))
  add('at', at)
  add('stream', stream and 1)
  add('metadata', metadata == true and IMPLICIT or metadata)
  if wants('log') or wants('worker') or wants('usage') then
    local text_of_log, last_worker, used = long_log(log)
    add('log', text_of_log)
    add('worker', worker or last_worker)
    add('usage', usage or used)
  end
  return turn
end

-- Return all fields of a turn by name, except the messages in the history that it refers to. If a packed
-- record is broken, or a later release wrote it, its fields are returned as they are stored. wanted: see
-- unpacked.
local function record(turn_key, wanted)
  local flat, fields = redis.call('HGETALL', turn_key), {}
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  if not fields['0'] or fields.v ~= '3' then
    return fields
  end
  local pieces = {}
  while fields[tostring(#pieces)] do
    pieces[#pieces + 1] = fields[tostring(#pieces)]
  end
  local read, turn = pcall(unpacked, table.concat(pieces), wanted)
  if not read then
    return fields
  end
  for name, value in pairs(fields) do
    if name == 'log' and turn.log then
      -- This was added to the log after the turn ended.
      turn.log = turn.log .. '\n' .. value
    elseif not string.find(name, '^%d') then
      turn[name] = value
    end
  end
  return turn
end

-- Return some fields of a turn by name; a missing field is false.
local function fields_of(turn_key, ...)
  local found = named(turn_key, '0', ...)
  if found['0'] then
    local turn = record(turn_key, found)
    for name in pairs(found) do
      found[name] = turn[name] or false
    end
  end
  return found
end

-- Convert fields by name into a flat list.
local function flat_list(fields)
  local flat = {}
  for name, value in pairs(fields) do
    flat[#flat + 1], flat[#flat + 2] = name, value
  end
  return flat
end

-- A turn's log tells people what happened to the turn and when. It is a field of the turn's hash with one
-- JSON array per line: [ms since the turn's acceptance, kind, ...]. agentapi/turns/marks.py reads it. If a
-- log is longer than LONGEST_LOG bytes, only its last lines are kept, at most SHORTENED_LOG bytes.
local LONGEST_LOG, SHORTENED_LOG = 16384, 12288

-- Return a line of a turn's log. mark: the kind and its data, as JSON.
local function log_line(created, at, mark)
  return '[' .. int(at - stored(created)) .. ',' .. mark .. ']'
end

-- Add a line to a turn's log.
local function note(turn_key, at, mark)
  local turn = named(turn_key, 'created', 'log', '0')
  if turn['0'] then
    turn.created = record(turn_key, { created = 1 }).created
  end
  if not turn.created then
    return
  end
  local log = log_line(turn.created, at, mark)
  if turn.log then
    log = turn.log .. '\n' .. log
  end
  if #log > LONGEST_LOG then
    log = string.match(log, '\n(.*)$', #log - SHORTENED_LOG) or ''
  end
  redis.call('HSET', turn_key, 'log', log)
end

-- Refuse a write of a worker that has lost the turn, and note it in the log, once for each kind of write and
-- lease. Returns the answer for the script's caller.
local function refuse_write(turn_key, fence, script)
  local turn = fields_of(turn_key, 'created', 'log')
  local epoch = string.match(fence, '^%d+')
  if turn.created and epoch then
    local mark = '"f","' .. script .. '",' .. int(tonumber(epoch) - stored(turn.created))
    if not string.find(turn.log or '', mark .. ']', 1, true) then
      note(turn_key, now_ms(), mark)
    end
  end
  return { 'fenced' }
end

-- Note in the log who decided about a call. A long decision is noted without its reason and arguments.
local function note_decision(turn_key, at, call_id, given)
  local LONGEST_DECISION = 2048
  if #given > LONGEST_DECISION then
    local decision = cjson.decode(given)
    local by = type(decision.by) == 'string' and decision.by or nil
    given = cjson.encode({ verdict = decision.verdict, by = by, cut = true })
  end
  note(turn_key, at, '"d",' .. cjson.encode(call_id) .. ',' .. given)
end

-- Append an event. Its number is the turn's count of events so far. Its stream id is the number plus one,
-- because 0-0 is not a valid stream id. Returns the number.
local function emit(turn_key, events_key, kind, data)
  local number = redis.pcall('HINCRBY', turn_key, 'events', 1)
  if type(number) == 'table' then
    -- Somebody overwrote the count; the last entry of the stream has the number.
    local last = redis.call('XREVRANGE', events_key, '+', '-', 'COUNT', 1)[1]
    number = (last and stored(string.match(last[1], '^%d+')) or 0) + 1
    redis.call('HSET', turn_key, 'events', int(number))
  end
  redis.call('XADD', events_key, int(number) .. '-0', 'type', kind, 'data', data)
  return int(number - 1)
end

-- Return whether the caller holds the lease: whether the lease has the caller's turn and fence
-- ('epoch:token').
local function has_lease(lease_key, turn_id, fence)
  local lease = redis.call('HMGET', lease_key, 'turn', 'epoch', 'token')
  return lease[1] == turn_id and (lease[2] or '') .. ':' .. (lease[3] or '') == fence
end

-- Return whether the caller holds the lease and the turn exists. Without this check, a write would create a
-- hash in place of a deleted one. Also returns whether a cancellation was requested (0|1), and whether
-- messages wait to steer the turn (0|1).
local function owns(turn_key, lease_key, turn_id, fence)
  if not has_lease(lease_key, turn_id, fence) then
    return false
  end
  local turn = redis.call('HMGET', turn_key, 'status', 'cancel', 'steered')
  return turn[1], turn[2] and 1 or 0, turn[3] and 1 or 0
end

-- Return the epoch of a new owner, and store it. The epoch grows with every claim and with the clock, so it
-- is new even if earlier epochs were lost with a deleted conversation or in a failover.
local function next_epoch(meta_key)
  local before = stored(redis.call('HGET', meta_key, 'epoch'))
  local epoch = int(math.max(before + 1, now_ms()))
  redis.call('HSET', meta_key, 'epoch', epoch)
  return epoch
end

-- Return the newest messages: at least the newest whole turn, and beyond it as many as fit both limits (-1
-- for no limit). Reads in pieces from the end, so the cost depends on the window and not on the history. Also
-- returns the number of all messages.
local function newest_messages(messages_key, max_messages, max_bytes)
  local total = redis.call('LLEN', messages_key)
  if total == 0 or max_messages == 0 or max_bytes == 0 then
    return {}, total
  end
  if max_messages < 0 and max_bytes < 0 then
    return redis.call('LRANGE', messages_key, 0, -1), total
  end
  local newest_first, bytes, whole = {}, 0, false
  while #newest_first < total do
    local have = #newest_first
    local size = 64
    if max_messages > have and max_messages - have < size then
      size = max_messages - have
    end
    local piece = redis.call('LRANGE', messages_key, -have - size, -have - 1)
    for i = #piece, 1, -1 do
      newest_first[#newest_first + 1] = piece[i]
      bytes = bytes + #piece[i]
      whole = whole or string.sub(piece[i], 1, #USER_MESSAGE) == USER_MESSAGE
    end
    local full = (max_messages >= 0 and #newest_first >= max_messages)
      or (max_bytes >= 0 and bytes >= max_bytes)
    if full and whole then
      break
    end
  end
  local oldest_first = {}
  for i = #newest_first, 1, -1 do
    oldest_first[#oldest_first + 1] = newest_first[i]
  end
  return oldest_first, total
end

-- Return the prefix of all keys of a partition, 'agentapi:{p}:', from any of these keys. Scripts build keys
-- that are not among KEYS from it; those are in the same hash slot as the given key.
local function partition_prefix(key)
  return string.sub(key, 1, #'agentapi:{000}:')
end

-- Refuse a call that needs a history that is in the archive. The error tells the Redis client where the
-- history is; the client restores it and repeats the call (agentapi/redis/archived.py). Returns the error, or
-- nil if the history is in Redis.
local function away(meta_key)
  local archived = redis.call('HGET', meta_key, 'archived')
  if archived then
    local conversation_id = string.sub(meta_key, #partition_prefix(meta_key) + 3, -#':meta' - 1)
    return redis.error_reply('ARCHIVED ' .. string.match(archived, '^%S+') .. ' ' .. conversation_id)
  end
end

-- A turn whose record is in the archive has only one entry left in Redis, in one of these lists by time of
-- acceptance. Releases that do not know archived turns do not know these lists either.
local MOVED = { 'completed', 'cancelled' }

-- For a turn whose record is in the archive, return how it ended and when it was accepted (ms). Returns nil
-- for any other turn.
local function moved_turn(turn_key)
  local partition = partition_prefix(turn_key)
  local prefix = partition .. 'list:moved:'
  if redis.call('EXISTS', prefix .. MOVED[1], prefix .. MOVED[2]) == 0 then
    return
  end
  local turn_id = string.sub(turn_key, #partition + #'t:' + 1)
  for _, status in ipairs(MOVED) do
    local accepted = redis.pcall('ZSCORE', prefix .. status, turn_id)
    if type(accepted) == 'string' then
      return status, accepted
    end
  end
end

-- Refuse a call that needs a turn whose record is in the archive, as `away` does for a conversation. Call it
-- only if there is no record. Returns an error that contains the current time, or nil if the turn does not
-- exist.
local function away_turn(turn_key)
  if moved_turn(turn_key) then
    local turn_id = string.sub(turn_key, #partition_prefix(turn_key) + #'t:' + 1)
    return redis.error_reply('ARCHIVED TURN ' .. turn_id .. ' ' .. int(now_ms()))
  end
end

-- Return the key of a conversation's meta hash, from the key of its messages.
local function meta_key_of(messages_key)
  return string.sub(messages_key, 1, -#':messages' - 1) .. ':meta'
end

-- The lists of a partition are for people who look for turns and conversations. Each is a sorted set by time
-- of acceptance or creation. These times never change, so a reader's position stays valid. A turn is in one
-- list at a time: queued (no worker has claimed it), begun, or how it ended. Scripts write lists with pcall,
-- so that a broken list cannot block a turn.

local function list_key(key, name)
  return partition_prefix(key) .. 'list:' .. name
end

-- Move a turn to another list. Returns whether it was in the first list.
local function move_turn(turn_key, turn_id, accepted, from, to)
  if redis.pcall('ZREM', list_key(turn_key, from), turn_id) ~= 1 then
    return false
  end
  redis.pcall('ZADD', list_key(turn_key, to), int(stored(accepted)), turn_id)
  return true
end

-- Move a turn to the list of its final status, and add its end to the stream of ends. A turn that is in no
-- list, because an older release accepted it, is added to neither. A turn that must not be stored is removed
-- from the lists, unless it failed and may be retried. If workers have a hook for the agent's ends, the end
-- is kept in 'untold' until the hook was called.
-- turn: some of its fields. how: status, the event's number and data, retention of turns.
local function list_end(turn_key, turn_id, turn, how)
  local prefix = partition_prefix(turn_key)
  if move_turn(turn_key, turn_id, turn.created, 'begun', how.status)
    or move_turn(turn_key, turn_id, turn.created, 'queued', how.status) then
    if turn.unstored and how.status ~= 'failed' then
      redis.pcall('ZREM', list_key(turn_key, how.status), turn_id)
    end
    local code = ''
    if how.status == 'failed' then
      local read, data = pcall(cjson.decode, how.data)
      code = read and type(data) == 'table' and data.code or ''
    end
    redis.pcall('XADD', prefix .. 'ends', '*', 'turn', turn_id, 'number', how.number, 'status',
      how.status, 'conversation', turn.conversation or '', 'agent', turn.agent or '', 'tenant',
      turn.tenant or '', 'user', turn.user or '', 'code', code)
  end
  local agent = turn.agent or ''
  if redis.call('EXISTS', prefix .. 'hooked:' .. agent) == 1 then
    redis.pcall('ZADD', prefix .. 'untold', int(now_ms()), turn_id .. ':' .. how.number .. ':' .. agent)
    -- This deletes the ends if no worker has the hook any more.
    redis.pcall('PEXPIRE', prefix .. 'untold', how.retention)
  end
end

-- Remove those entries of a list, in a range of ranks, whose record is gone. Scripts that add entries check a
-- few entries from time to time, so a list is never much longer than the number of its records. The key of a
-- record is before .. entry .. after.
local function trim_list(key, first, last, before, after)
  local entries = redis.pcall('ZRANGE', key, first, last)
  for i = 1, #entries do
    if redis.call('EXISTS', before .. entries[i] .. after) == 0 then
      redis.call('ZREM', key, entries[i])
    end
  end
end

-- Add a new conversation to the list of conversations.
local function list_conversation(meta_key, created)
  local prefix = partition_prefix(meta_key) .. 'c:'
  local key = list_key(meta_key, 'conversations')
  redis.pcall('ZADD', key, created, string.sub(meta_key, #prefix + 1, -#':meta' - 1))
  local now = now_ms()
  if now % 4 ~= 0 then
    return
  end
  local count = redis.pcall('ZCARD', key)
  if type(count) == 'number' then
    -- Idle times differ, so entries without a record may be anywhere in the list.
    local first = math.floor(now / 4) % count
    trim_list(key, first, first + 11, prefix, ':meta')
  end
end

-- How long an operation with an id from its caller (append, reset, open, remove) is remembered (ms). Repeated
-- calls come within seconds: from the Redis client, from a producer, or from the producer's client.
local OPERATION_TTL = 3600000

-- Marks an entry of a dropped conversation's remains that names a history before a reset.
local WAS = '\1was:'

-- Return the key that remembers an operation on a conversation. The id is hashed, because users choose ids
-- freely.
local function operation_key(meta_key, operation)
  return partition_prefix(meta_key) .. 'op:' .. redis.sha1hex(meta_key .. '\0' .. operation)
end

-- Return the key of the bytes of a conversation's images and files.
local function blobs_key(messages_key)
  return string.sub(messages_key, 1, -#':messages' - 1) .. ':blobs'
end

-- Let an idle conversation expire after its idle time, if it has one. known: the idle time, if the caller has
-- already read it.
local function expire_idle(meta_key, messages_key, known)
  local ttl = known or stored(redis.call('HGET', meta_key, 'ttl'))
  if ttl > 0 then
    redis.call('PEXPIRE', meta_key, int(ttl))
    redis.call('PEXPIRE', messages_key, int(ttl))
    redis.call('PEXPIRE', blobs_key(messages_key), int(ttl))
  end
end

-- Return the agent of a turn, or ''. The turn's key is built from the prefix of all turn keys of the
-- partition, so it is in the same hash slot as the given keys.
local function agent_of(prefix, turn_id)
  return turn_id ~= '' and fields_of(prefix .. turn_id, 'agent').agent or ''
end

-- Return since when a turn could run. Until its wake-up is late, the entry in due shows this time; afterwards
-- the field 'ready' does (redispatch.lua).
local function ready_since(ready, status, attempt, wake, due, grace)
  if ready then
    return stored(ready)
  end
  if status == 'parked' then
    return wake and stored(wake) or stored(due)
  end
  -- A new head is due at the time by which its wake-up should have been claimed.
  return (status == 'queued' and not attempt) and stored(due) - grace or stored(due)
end

-- Return why a turn is claimed. The fence of the previous claim shows how that claim ended.
local function cause_of_claim(status, attempt, suspect, released, meta_key)
  if not attempt then
    return 'first'
  end
  if status == 'running' then
    return 'lease_expired'
  end
  if status == 'parked' then
    return 'woken'
  end
  local epoch = redis.call('HGET', meta_key, 'epoch')
  if released and epoch and string.match(released, '^%d+') == epoch then
    return 'worker_stopped'
  end
  return suspect and 'lease_expired' or 'retried'
end

-- Return the head of an inbox, or nothing. A turn without a hash (after a failover, an eviction or a deletion
-- by hand) would never end, so it is removed, and the next turn is due now.
local function head_of(inbox_key)
  local partition = partition_prefix(inbox_key)
  local gone = false
  local head = redis.call('LINDEX', inbox_key, 0)
  while head and redis.call('HEXISTS', partition .. 't:' .. head, 'status') == 0 do
    gone = true
    redis.call('LPOP', inbox_key)
    redis.call('DEL', partition .. 't:' .. head)
    head = redis.call('LINDEX', inbox_key, 0)
  end
  if gone then
    local conversation = string.sub(inbox_key, 1, -#':inbox' - 1)
    local conversation_id = string.sub(conversation, #partition + 3)
    if head then
      redis.call('ZADD', partition .. 'due', int(now_ms()), conversation_id)
    else
      redis.call('ZREM', partition .. 'due', conversation_id)
      expire_idle(conversation .. ':meta', conversation .. ':messages')
    end
  end
  return head
end

-- Remove an ended turn from the inbox, and set when the conversation is due next. Returns the id of the turn
-- to dispatch now, or ''.
local function leave_inbox(inbox_key, due_key, turn_id, conversation_id, grace)
  local was_head = redis.call('LINDEX', inbox_key, 0) == turn_id or head_of(inbox_key) == turn_id
  redis.call('LREM', inbox_key, 1, turn_id)
  if not was_head then
    return ''
  end
  local following = head_of(inbox_key)
  if following then
    redis.call('ZADD', due_key, int(now_ms() + grace), conversation_id)
    return following
  end
  redis.call('ZREM', due_key, conversation_id)
  return ''
end

-- Return the entry of an errand, which is work that one partition must do in another. Errands are in the due
-- index, next to conversations. Conversation ids have no control characters, so the two cannot be confused.
local function errand(kind, turn_id)
  return '\1' .. kind .. ':' .. turn_id
end

-- The calls of a turn that wait without a worker are fields of one hash.
-- For a call that needs a decision: q:<call> the question, x:<call> when it expires, d:<call> the decision in
-- that case, a:<call> the decision, s:<call> the epoch that the decision was handed to.
-- For a call that the client makes: f:<call> the call, x:<call> and d:<call> as above, o:<call> its output.
-- For a call that delegates: k:<call> its child turns, w:<child> if the parent waits for the child, r:<child>
-- the child's reply; open is the number of children that the parent waits for.

-- Give expired questions their default decision, and expired calls of the client their default output.
local function settle_expired(calls_key, now)
  local turn_key = string.sub(calls_key, 1, -#':calls' - 1)
  local fields = redis.call('HGETALL', calls_key)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 2) == 'x:' and tonumber(fields[i + 1]) <= now then
      local call = string.sub(fields[i], 3)
      local default = redis.call('HGET', calls_key, 'd:' .. call)
      if redis.call('HEXISTS', calls_key, 'f:' .. call) == 1 then
        if redis.call('HSETNX', calls_key, 'o:' .. call, default) == 1 then
          note(turn_key, tonumber(fields[i + 1]), '"a",' .. cjson.encode(call) .. ',true')
        end
      elseif redis.call('HSETNX', calls_key, 'a:' .. call, default) == 1 then
        note_decision(turn_key, tonumber(fields[i + 1]), call, default)
      end
    end
  end
end

-- Return whether a call waits for the client.
local function client_waits(calls_key)
  for _, field in ipairs(redis.call('HKEYS', calls_key)) do
    local waits = string.sub(field, 1, 2) == 'f:'
    if waits and redis.call('HEXISTS', calls_key, 'o:' .. string.sub(field, 3)) == 0 then
      return true
    end
  end
  return false
end

-- Hand the decisions to the worker of an epoch, and store the epoch with them: a later worker must know that
-- this one may have made the call. Returns the hash of calls, flat.
local function take_calls(calls_key, epoch, now)
  if redis.call('EXISTS', calls_key) == 0 then
    return {}
  end
  settle_expired(calls_key, now)
  for _, field in ipairs(redis.call('HKEYS', calls_key)) do
    if string.sub(field, 1, 2) == 'a:' then
      redis.call('HSETNX', calls_key, 's:' .. string.sub(field, 3), epoch)
    end
  end
  return redis.call('HGETALL', calls_key)
end

-- Let a parked turn continue now.
local function wake_parked(turn_key, due_key, conversation_id, now, grace)
  redis.call('HSET', turn_key, 'wake', int(now))
  redis.call('ZADD', due_key, int(now + grace), conversation_id)
end

-- Add the errands of a turn that ends: deliver its reply to its parent, and cancel the children that still
-- run. Remove the errands that it no longer needs.
local function leave_errands(turn_key, turn_id, calls_key, due_key, delay)
  local tree = redis.call('HMGET', turn_key, 'parent', 'held', 'deadline')
  local now = now_ms()
  if tree[1] then
    redis.call('ZADD', due_key, int(now + delay), errand('deliver', turn_id))
  end
  if tree[2] then
    for _, field in ipairs(redis.call('HKEYS', calls_key)) do
      if string.sub(field, 1, 2) == 'w:' then
        redis.call('ZADD', due_key, int(now), errand('cancel', string.sub(field, 3)))
      end
    end
    redis.call('ZREM', due_key, errand('start', turn_id))
  end
  if tree[3] then
    redis.call('ZREM', due_key, errand('expire', turn_id))
  end
end

-- Return the names of the blobs that came with a turn's message, as the keys of a table.
local function blobs_of(turn_key)
  local attached = fields_of(turn_key, 'attachments').attachments
  local names = {}
  for _, attachment in ipairs(attached and cjson.decode(attached) or {}) do
    if attachment.blob then
      names[attachment.blob] = true
    end
  end
  return names
end

-- Return the key of a conversation's strays: turns that failed or were cancelled and left nothing in the
-- history, so that the history does not mention them. drop.lua needs them.
local function strays_key(messages_key)
  return string.sub(messages_key, 1, -#':messages' - 1) .. ':strays'
end

-- Add a turn to the strays, for at least as long as the turn is kept.
local function note_stray(messages_key, turn_id, time)
  local key = strays_key(messages_key)
  redis.pcall('SADD', key, turn_id)
  if redis.call('PTTL', key) < tonumber(time) then
    redis.pcall('PEXPIRE', key, time)
  end
end

-- Delete the images and files of a turn that leaves nothing in the history, unless the history or a waiting
-- turn refers to the same bytes. Those of a failed turn are kept for retry.lua, for as long as the turn
-- itself. kept: that time in ms, or false.
local function drop_blobs(turn_key, inbox_key, messages_key, kept)
  local names = blobs_of(turn_key)
  if not next(names) then
    return
  end
  for _, other in ipairs(redis.call('LRANGE', inbox_key, 0, -1)) do
    for name in pairs(blobs_of(partition_prefix(inbox_key) .. 't:' .. other)) do
      names[name] = nil
    end
  end
  local first, page = 0, nil
  repeat
    page = redis.call('LRANGE', messages_key, first, first + 999)
    first = first + #page
    for _, message in ipairs(page) do
      for name in pairs(names) do
        if string.find(message, name, 1, true) then
          names[name] = nil
        end
      end
    end
  until #page == 0 or not next(names)
  local blobs = blobs_key(messages_key)
  for name in pairs(names) do
    local bytes = kept and redis.call('HGET', blobs, name)
    if bytes then
      redis.call('HSET', turn_key .. ':blobs', name, bytes)
      redis.call('PEXPIRE', turn_key .. ':blobs', kept)
    end
    redis.call('HDEL', blobs, name)
  end
end

-- For a turn that leaves nothing in the history, store where the history ended: the position of the last
-- message and its SHA-1. A fork of the turn begins there.
local function note_place(turn_key, messages_key)
  if redis.call('HEXISTS', meta_key_of(messages_key), 'archived') == 1 then
    return
  end
  local last = redis.call('LINDEX', messages_key, -1)
  local position = int(redis.call('LLEN', messages_key) - 1)
  redis.call('HSET', turn_key, 'place', position .. ':' .. (last and redis.sha1hex(last) or ''))
end

-- Return how long an ended turn and its events are kept (ms). unstored: how long a turn that must not be
-- stored and its events are kept; false for other turns.
local function retention(times, unstored)
  if not unstored then
    return times
  end
  return {
    turn = int(math.min(tonumber(times.turn), stored(unstored))),
    events = int(math.min(tonumber(times.events), stored(unstored))),
  }
end

-- Let an ended turn's events expire. Redis allocates four kilobytes for a stream in advance; a stream
-- restored from a dump takes only the bytes that it needs. Readers do not notice the change. If the Redis
-- user may not use RESTORE, the stream stays as it is.
local function retire_events(events_key, time)
  local SMALL = 100
  local dump = redis.call('XLEN', events_key) <= SMALL and redis.call('DUMP', events_key)
  local restored = dump and redis.pcall('RESTORE', events_key, time, dump, 'REPLACE')
  if not restored or restored.err then
    redis.call('PEXPIRE', events_key, time)
  end
end

-- Let an ended turn expire after its retention, with its events and the messages that joined it.
local function retire(turn_key, events_key, times, joined)
  redis.call('PEXPIRE', turn_key, times.turn)
  retire_events(events_key, times.events)
  for merged in string.gmatch(joined or '', '%S+') do
    local merged_key = partition_prefix(turn_key) .. 't:' .. merged
    redis.call('PEXPIRE', merged_key, times.turn)
    redis.call('PEXPIRE', merged_key .. ':events', times.events)
  end
end

-- Delete the journal of a turn that has ended. If the turn has parked for its client, its journal is kept as
-- long as the turn, so that its earlier parts stay readable.
local function drop_journal(turn_key, journal_key, retention)
  if redis.call('HEXISTS', turn_key, 'segments') == 1 then
    redis.call('PEXPIRE', journal_key, retention)
  else
    redis.call('DEL', journal_key)
  end
end

-- End a turn without a worker. keys, times: see cancel_turn. how: status, committed, data of the event, and
-- the outcome if there is one. Returns the id of the turn to dispatch now, or ''.
local function end_turn(keys, turn_id, conversation_id, times, how)
  local ended_turn = redis.call('HMGET', keys.turn, 'merged', 'unstored')
  local kept = retention(times, ended_turn[2])
  leave_errands(keys.turn, turn_id, keys.calls, keys.due, 0)
  drop_journal(keys.turn, keys.journal, times.turn)
  redis.call('DEL', keys.calls)
  local following = leave_inbox(keys.inbox, keys.due, turn_id, conversation_id, times.grace)
  redis.call('HSET', keys.turn, 'status', how.status, 'ended', int(now_ms()), 'committed',
    how.committed, 'next', following)
  if how.outcome then
    redis.call('HSET', keys.turn, 'outcome', how.outcome)
  end
  how.number, how.retention = emit(keys.turn, keys.events, how.status, how.data), times.turn
  list_end(keys.turn, turn_id,
    named(keys.turn, 'agent', 'conversation', 'tenant', 'user', 'created', 'unstored'), how)
  drop_blobs(keys.turn, keys.inbox, keys.messages, how.status == 'failed' and kept.turn)
  note_place(keys.turn, keys.messages)
  note_stray(keys.messages, turn_id, kept.turn)
  retire(keys.turn, keys.events, kept, ended_turn[1])
  if redis.call('LLEN', keys.inbox) == 0 then
    expire_idle(keys.meta, keys.messages)
  end
  return following
end

-- Cancel a turn that has not ended. keys: turn, journal, events, inbox, lease, meta, messages, due, calls.
-- times: grace, turn (retention), events (retention). by_worker: whether a worker must end it, because it
-- leaves messages and only workers write messages.
-- Returns 'requested' or 'cancelled', the id of the turn to dispatch now, or '', and the process to notify,
--      which runs the turn, or ''.
local function cancel_turn(keys, turn_id, conversation_id, times, by_worker)
  local now = now_ms()
  local lease = redis.call('HMGET', keys.lease, 'turn', 'expires', 'token')
  local mine = lease[1] == turn_id
  if mine and stored(lease[2]) > now then
    redis.call('HSET', keys.turn, 'cancel', int(now))
    return 'requested', '', string.match(lease[3] or '', '^[^:]*')
  end
  if by_worker then
    redis.call('HSET', keys.turn, 'cancel', int(now))
    redis.call('ZADD', keys.due, int(now + times.grace), conversation_id)
    return 'requested', turn_id, ''
  end
  if mine then
    -- The new epoch fences off the worker that is presumed dead.
    next_epoch(keys.meta)
    redis.call('DEL', keys.lease)
  end
  local how = { status = 'cancelled', committed = 'cancel', data = '{}' }
  return 'cancelled', end_turn(keys, turn_id, conversation_id, times, how), ''
end

-- Open a conversation for a tenant, and create it if it does not exist. It belongs to the tenant that created
-- it. agent: the agent of its newest turn, or nil. ttl: its new idle time (0 leaves it unchanged, a negative
-- number removes it).
-- Returns whether the conversation belongs to this tenant, and whether it had an idle time before.
local function open_conversation(meta_key, user_id, tenant_id, ttl, agent)
  local now = int(now_ms())
  local known = redis.call('HMGET', meta_key, 'created', 'tenant', 'ttl')
  if known[1] and known[2] ~= tenant_id then
    return false
  end
  local fields = { 'updated', now }
  if not known[1] then
    fields = { 'updated', now, 'created', now, 'user', user_id, 'tenant', tenant_id }
  end
  if tonumber(ttl) > 0 then
    fields[#fields + 1], fields[#fields + 2] = 'ttl', ttl
  elseif tonumber(ttl) < 0 then
    redis.call('HDEL', meta_key, 'ttl')
  end
  if agent then
    fields[#fields + 1], fields[#fields + 2] = 'agent', agent
  end
  redis.call('HSET', meta_key, unpack(fields))
  if not known[1] then
    list_conversation(meta_key, now)
  end
  return true, known[3] ~= false
end

-- Return whether a conversation exists and belongs to a tenant.
local function belongs(meta_key, tenant_id)
  local known = redis.call('HMGET', meta_key, 'created', 'tenant')
  return known[1] and known[2] == tenant_id
end

-- Return the turn id of a stored message, or the item id if the message came over HTTP. It is the last field
-- that agentapi.conversation.messages.dumps writes. Quotes within text are escaped, so text cannot match.
local function turn_of(message)
  local found = string.match(string.sub(message, -160), '"turn_id":"([^"\\]*)"}$')
  if found then
    return found
  end
  local read, data = pcall(cjson.decode, message)
  return read and type(data) == 'table' and data.turn_id
end

-- Remove a turn's messages from a history, and from the count of its summary. They are next to each other,
-- because they were appended together. meta_key: nil for a history without a summary. Returns the number of
-- removed messages, and the position of the first one.
local function take_back(messages_key, meta_key, turn_id)
  local ending = ',"turn_id":"' .. turn_id .. '"}'
  local last, found, first_found = redis.call('LLEN', messages_key) - 1, 0, 0
  while last >= 0 do
    local first = math.max(0, last - 999)
    local page = redis.call('LRANGE', messages_key, first, last)
    for i = #page, 1, -1 do
      if string.sub(page[i], -#ending) == ending then
        found, first_found = found + 1, first + i - 1
        redis.call('LSET', messages_key, first_found, 'removed')
      elseif found > 0 then
        first = 0
        break
      end
    end
    last = first - 1
  end
  if found == 0 then
    return 0, 0
  end
  redis.call('LREM', messages_key, -found, 'removed')
  local covered = meta_key and stored(redis.call('HGET', meta_key, 'covered')) or 0
  if covered > first_found then
    redis.call('HSET', meta_key, 'covered', int(covered - math.min(found, covered - first_found)))
  end
  return found, first_found
end

-- Return the histories of a conversation before its resets to which turns still refer: key and generation of
-- each.
local function set_aside_before(meta_key, messages_key)
  local found = {}
  for generation in string.gmatch(redis.call('HGET', meta_key, 'was') or '', '%S+') do
    local key = messages_key .. ':was:' .. generation
    if redis.call('EXISTS', key) == 1 then
      found[#found + 1] = { key = key, generation = generation }
    end
  end
  return found
end

-- Clear a history: rename it for the turns that refer to it, or delete it if there are none.
local function set_aside(meta_key, messages_key)
  local refers = redis.call('HMGET', meta_key, 'refers', 'generation')
  local left = stored(refers[1]) - now_ms()
  if left > 0 and redis.call('EXISTS', messages_key) == 1 then
    local was, generation = {}, refers[2] or '0'
    for _, before in ipairs(set_aside_before(meta_key, messages_key)) do
      was[#was + 1] = before.generation
    end
    was[#was + 1] = generation
    redis.call('RENAME', messages_key, messages_key .. ':was:' .. generation)
    redis.call('PEXPIRE', messages_key .. ':was:' .. generation, int(left))
    redis.call('HSET', meta_key, 'was', table.concat(was, ' '))
  end
  redis.call('DEL', messages_key)
end

-- Return the messages that a turn has left in a history, or nil if they are gone. They are next to each
-- other, at the given position or before it, because messages only move towards the beginning of a history.
local function messages_of(messages_key, turn_id, position, count)
  local ending = ',"turn_id":"' .. turn_id .. '"}'
  local last = position + count - 1
  while last >= 0 do
    local first = math.max(0, last - math.max(count, 64) + 1)
    if last == position + count - 1 then
      first = position
    end
    local piece = redis.call('LRANGE', messages_key, first, last)
    for i = #piece, 1, -1 do
      if string.sub(piece[i], -#ending) == ending then
        local start = first + i - count
        local found = start >= 0 and redis.call('LRANGE', messages_key, start, start + count - 1) or {}
        local whole = #found == count and string.sub(found[1], -#ending) == ending
        return whole and found or nil
      end
    end
    last = first - 1
  end
end

-- Return the messages of a turn that refers to its conversation's history, as a JSON list, or nil if they are
-- gone. turn: its fields by name. A history that was reset is kept for such turns (see set_aside).
local function text_of(turn_key, turn)
  local generation, position, count = string.match(turn.at, '^(%d+):(%d+):(%d+)$')
  if not generation then
    return nil
  end
  local partition = partition_prefix(turn_key)
  local conversation = partition .. 'c:' .. (turn.conversation or '')
  local messages_key = conversation .. ':messages'
  if (redis.call('HGET', conversation .. ':meta', 'generation') or '0') ~= generation then
    messages_key = messages_key .. ':was:' .. generation
  end
  local turn_id = string.sub(turn_key, #partition + #'t:' + 1)
  local found = messages_of(messages_key, turn_id, tonumber(position), tonumber(count))
  return found and '[' .. table.concat(found, ',') .. ']'
end

-- Return a turn's fields as a flat list. If the turn refers to its conversation's history, its messages are
-- in the field 'messages'. If the history has lost them, the list is empty, as for a turn that does not
-- exist. If the history is in the archive, the result is an error (see away).
local function whole_turn(turn_key)
  local turn = record(turn_key)
  if turn.at and not turn.messages then
    turn.messages = text_of(turn_key, turn)
    if not turn.messages then
      return away(partition_prefix(turn_key) .. 'c:' .. (turn.conversation or '') .. ':meta') or {}
    end
  end
  return flat_list(turn)
end

-- Delete an ended turn of a conversation, with the messages that were merged into it. Returns when it was
-- accepted (ms) and the bytes of its input; or nil, and whether the turn exists but has not ended.
local function forget_turn(turn_key, conversation_id)
  local turn = fields_of(turn_key, 'status', 'conversation', 'created', 'merged', 'size', 'input', 'options')
  if not turn.status or turn.conversation ~= conversation_id then
    return nil, false
  end
  if not ended(turn.status) then
    return nil, true
  end
  local size = stored(turn.size) + #(turn.input or '') + #(turn.options or '')
  redis.pcall('ZREM', list_key(turn_key, turn.status),
    string.sub(turn_key, #partition_prefix(turn_key) + #'t:' + 1))
  for merged in string.gmatch(turn.merged or '', '%S+') do
    local merged_key = partition_prefix(turn_key) .. 't:' .. merged
    redis.call('UNLINK', merged_key, merged_key .. ':events')
  end
  local conversation = partition_prefix(turn_key) .. 'c:' .. conversation_id
  redis.pcall('SREM', conversation .. ':strays', string.sub(turn_key, #partition_prefix(turn_key) + 3))
  redis.call('UNLINK', turn_key, turn_key .. ':events', turn_key .. ':journal',
    turn_key .. ':calls', turn_key .. ':blobs')
  return int(stored(turn.created)), size
end

-- Return a hash of the state of a conversation that is not in use. Any write to its history changes its meta
-- hash, the number of its messages or blobs, or its last message, so it changes this hash too.
local function state_of(meta_key, messages_key)
  local fields, parts = redis.call('HGETALL', meta_key), {}
  for i = 1, #fields, 2 do
    parts[#parts + 1] = fields[i] .. '\0' .. fields[i + 1]
  end
  table.sort(parts)
  parts[#parts + 1] = redis.call('LLEN', messages_key)
  parts[#parts + 1] = redis.call('HLEN', blobs_key(messages_key))
  parts[#parts + 1] = redis.call('LINDEX', messages_key, -1) or ''
  return redis.sha1hex(table.concat(parts, '\0'))
end

-- A turn's record moves to the archive only if the turn took at most this long (ms).
local LONGEST_MOVED = 86400000

-- Return for how long after their acceptance a partition's archived turns are kept at most (ms). This was
-- stored when their copies moved, so it does not depend on the caller's settings. retention: used if the
-- stored value is lost.
local function longest_kept(any_key, retention)
  local kept = stored(redis.pcall('HGET', partition_prefix(any_key) .. 'copied', 'kept'))
  return kept > 0 and kept or tonumber(retention)
end

-- Return a hash of the state of an ended turn, or nil if it has no record.
local function record_state(turn_key)
  local fields, parts = redis.call('HGETALL', turn_key), {}
  for i = 1, #fields, 2 do
    parts[#parts + 1] = fields[i] .. '\0' .. fields[i + 1]
  end
  table.sort(parts)
  return #parts > 0 and redis.sha1hex(table.concat(parts, '\0')) or nil
end

-- Return whether an ended turn has nothing in Redis but its record: no events, no journal, calls or blobs for
-- a retry, and no end that waits for a hook.
local function stands_alone(turn_key, turn_id)
  if redis.call('EXISTS', turn_key .. ':events', turn_key .. ':journal', turn_key .. ':calls',
    turn_key .. ':blobs') > 0 then
    return false
  end
  local untold = partition_prefix(turn_key) .. 'untold'
  if redis.call('EXISTS', untold) == 0 then
    return true
  end
  local turn = fields_of(turn_key, 'events', 'agent')
  local entry = turn_id .. ':' .. int(stored(turn.events) - 1) .. ':' .. (turn.agent or '')
  return not redis.call('ZSCORE', untold, entry)
end

-- Return the entry of `copies` for a copy of a turn. The letter after the version distinguishes it from
-- entries for conversations.
local function turn_note(kind, version, turn_id)
  return kind .. ':' .. version .. 't:' .. turn_id
end

-- Delete the conversation that was created for one turn alone, if nothing has happened in it since. turn: the
-- turn's fields conversation, idle, successor.
local function drop_unnamed(any_key, turn_id, turn)
  local conversation_id = turn.conversation or ''
  local conversation = partition_prefix(any_key) .. 'c:' .. conversation_id
  local newest = turn.idle and not turn.successor and redis.call('LLEN', conversation .. ':inbox') == 0
    and redis.call('LINDEX', conversation .. ':messages', -1)
  if newest and turn_of(newest) == turn_id then
    redis.call('UNLINK', conversation .. ':meta', conversation .. ':messages', conversation .. ':blobs',
      conversation .. ':lease')
    redis.pcall('ZREM', list_key(any_key, 'conversations'), conversation_id)
  end
end
