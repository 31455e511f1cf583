-- Take ends that the hooks of some agents must be called for.
-- KEYS 1 untold (zset)
-- ARGV 1 name of this call, 2 time for which the ends are taken, 3 the most ends to take, 4... names of
--      agents
-- Returns a flat list: end (turn id, number of its event and agent), turn (flat hash), ...
-- Promise 13: an end stays until a hook was called for it, and becomes available again if the worker that
-- took it is silent for too long. An end is deleted if a retry has undone it, or if no worker has a hook for
-- its agent any more. A repeated call finds the name of its call and takes the same ends.

local call, taken_for, most = unpack(ARGV, 1, 3)

local AT_ONCE = 1000
local partition = partition_prefix(KEYS[1])
local operation = operation_key(KEYS[1], call)
local taken = answer_before(operation)
if not taken then
  local mine = {}
  for i = 4, #ARGV do
    mine[ARGV[i]] = true
  end
  local now = now_ms()
  taken = {}
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(now), 'LIMIT', 0, AT_ONCE)
  for _, entry in ipairs(due) do
    local turn_id, number, agent = string.match(entry, '^([^:]*):(%d+):(.*)$')
    local turn = fields_of(partition .. 't:' .. (turn_id or ''), 'status', 'events')
    local stands = ended(turn.status) and int(stored(turn.events) - 1) == number
    if not stands or not mine[agent]
      and redis.call('EXISTS', partition .. 'hooked:' .. agent) == 0 then
      redis.call('ZREM', KEYS[1], entry)
    elseif mine[agent] and #taken < tonumber(most) then
      redis.call('ZADD', KEYS[1], int(now + tonumber(taken_for)), entry)
      taken[#taken + 1] = entry
    end
  end
  if #taken > 0 then
    keep_answer(operation, taken)
  end
end
local found = {}
for _, entry in ipairs(taken) do
  local turn = whole_turn(partition .. 't:' .. string.match(entry, '^[^:]*'))
  if turn.err then
    return turn
  end
  found[#found + 1] = entry
  found[#found + 1] = turn
end
return found
