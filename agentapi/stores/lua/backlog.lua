-- Count the conversations of a partition by what their heads wait for.
-- KEYS 1 due (zset)
-- ARGV 1 prefix of conversation keys, 2 prefix of turn keys, 3 dispatch grace, 4 time within which running
--      and new turns are due, 5 the most entries to examine that are due within that time, and the most that
--      are due later
-- Returns {ready, running, since when the longest waiting ready turn could run (0 for none), now, its id,
--      conversation and agent ('' for none), reason, number of turns parked for it, ...}
-- Promise 3: it counts the turns that must advance. It only reads. If the partition has more entries than it
-- may examine, the counts are estimates from the entries that are due first: Redis serves no other client
-- while a script runs.

local conversations_prefix, turns_prefix, grace_time, near_time, most = unpack(ARGV)

local EVENTS = 5
local now, grace = now_ms(), tonumber(grace_time)
local ready, running, first, parked = 0, 0, 0, {}
local first_turn, first_conversation = '', ''

-- Return why a turn is parked. Its newest event of type 'parked' has the reason.
local function reason_of(turn_key)
  local events = redis.pcall('XREVRANGE', turn_key .. ':events', '+', '-', 'COUNT', EVENTS)
  for i = 1, #events do
    local fields = events[i][2]
    if fields[2] == 'parked' then
      local read, data = pcall(cjson.decode, fields[4])
      return read and type(data) == 'table' and type(data.reason) == 'string' and data.reason or 'other'
    end
  end
  return 'other'
end

local function waits(since, weight, turn_id, conversation_id)
  ready = ready + weight
  if since > 0 and (first == 0 or since < first) then
    first, first_turn, first_conversation = since, turn_id, conversation_id
  end
end

local function count(conversation_id, due, weight)
  local head = redis.pcall('LINDEX', conversations_prefix .. conversation_id .. ':inbox', 0)
  if type(head) ~= 'string' then
    return
  end
  local turn_key = turns_prefix .. head
  local turn = redis.pcall('HMGET', turn_key, 'status', 'attempt', 'wake', 'ready', 'in_line')
  local status = turn[1]
  if status == 'queued' then
    waits(ready_since(turn[4], status, turn[2], turn[3], turn[5] or due, grace), weight, head,
      conversation_id)
  elseif status == 'running' then
    -- A heartbeat postpones the entry in due, so a running turn that is due has an expired lease.
    if due <= now then
      waits(turn[4] and stored(turn[4]) or due, weight, head, conversation_id)
    else
      running = running + weight
    end
  elseif status == 'parked' and turn[3] and stored(turn[3]) <= now then
    waits(turn[4] and stored(turn[4]) or stored(turn[3]), weight, head, conversation_id)
  elseif status == 'parked' then
    local reason = reason_of(turn_key)
    parked[reason] = (parked[reason] or 0) + weight
  end
end

local function look(from, to)
  local found = redis.pcall('ZRANGEBYSCORE', KEYS[1], from, to, 'WITHSCORES', 'LIMIT', 0, most)
  if found.err or #found == 0 then
    return
  end
  local weight = redis.call('ZCOUNT', KEYS[1], from, to) / (#found / 2)
  for i = 1, #found, 2 do
    if string.byte(found[i]) ~= 1 then
      count(found[i], tonumber(found[i + 1]), weight)
    end
  end
end

local near = int(now + tonumber(near_time))
look('-inf', near)
look('(' .. near, '+inf')
local agent = first > 0 and redis.call('HGET', turns_prefix .. first_turn, 'agent') or ''
local answer = { int(ready), int(running), int(first), int(now), first_turn, first_conversation, agent }
for reason, turns in pairs(parked) do
  answer[#answer + 1] = reason
  answer[#answer + 1] = int(turns)
end
return answer
