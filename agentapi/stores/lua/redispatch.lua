-- Decide for which overdue conversations of a partition to dispatch the head again.
-- KEYS 1 due (zset)
-- ARGV 1 prefix of conversation keys, 2 prefix of turn keys, 3 dispatch grace, 4 longest grace, 5 due time of
--      the newest claimed wake-up of the broker's queue ('' if the queue is empty), 6 the longest time for
--      which a wake-up is assumed to be in the queue, 7 name of this call, 8... conversation ids
-- Returns a flat list of what to dispatch: conversation id, turn id, agent, ...
-- Promises 3, 7. The grace doubles with every dispatch that no worker claims, so that a long queue does not
-- fill with copies. A wake-up that is still in the queue is not sent again: the queue is not empty, and no
-- wake-up sent clearly later has been claimed. Such a wake-up is checked again after it has waited twice as
-- long. Heads whose turn is gone are skipped. A repeated call finds the name of its call. If two workers
-- sweep a partition, the second finds nothing overdue.

local conversations_prefix, turns_prefix, grace_time, longest_grace_time, claimed_until,
  longest_in_line_time, look_name = unpack(ARGV, 1, 7)

local ONE_SECOND = 1000
local now = now_ms()
local grace, longest_grace = tonumber(grace_time), tonumber(longest_grace_time)
local claimed, longest_in_line = tonumber(claimed_until), tonumber(longest_in_line_time)

-- Return the turn to dispatch and its agent, or nothing.
local function look(conversation_id)
  local due = tonumber(redis.call('ZSCORE', KEYS[1], conversation_id) or '')
  if not due then
    return
  end
  local inbox_key = conversations_prefix .. conversation_id .. ':inbox'
  if due > now then
    local first = redis.call('LINDEX', inbox_key, 0) or ''
    local sent = redis.call('HMGET', turns_prefix .. first, 'look', 'agent')
    if sent[1] == look_name then
      return first, sent[2]
    end
    return
  end
  local head = head_of(inbox_key)
  if not head then
    redis.call('ZREM', KEYS[1], conversation_id)
    return
  end
  local turn_key = turns_prefix .. head
  local turn = redis.call('HMGET', turn_key, 'agent', 'attempt', 'dispatches', 'in_line', 'status')
  local sent = (turn[5] == 'queued' and not turn[2]) or tonumber(turn[3] or 0) > 0
  -- The wake-up was sent when the turn became due. The field in_line keeps that time while the entry in due
  -- is postponed, so the wake-up's age counts from the first time, however often it is found in the queue.
  local waits_since = tonumber(turn[4] or due)
  local waited = now - waits_since
  if sent and claimed and claimed <= waits_since + ONE_SECOND and waited < longest_in_line then
    redis.call('HSET', turn_key, 'in_line', int(waits_since))
    redis.call('ZADD', KEYS[1], int(now + math.max(grace, waited)), conversation_id)
    return
  end
  redis.call('HDEL', turn_key, 'in_line')
  -- From here on the entry in due no longer shows since when the turn could run.
  local first_wait = turn[5] == 'queued' and not turn[2] and not turn[3]
  redis.call('HSETNX', turn_key, 'ready', int(first_wait and waits_since - grace or waits_since))
  redis.call('HSET', turn_key, 'look', look_name)
  local dispatches = count_up(turn_key, 'dispatches')
  -- A turn that was never claimed was already dispatched once, when it became the head.
  local sent_before = turn[2] and dispatches - 1 or dispatches
  local lengthened = math.min(grace * 2 ^ sent_before, longest_grace)
  redis.call('ZADD', KEYS[1], int(now + lengthened), conversation_id)
  return head, turn[1]
end

local found = {}
for i = 8, #ARGV do
  local turn_id, agent = look(ARGV[i])
  if turn_id then
    found[#found + 1] = ARGV[i]
    found[#found + 1] = turn_id
    found[#found + 1] = agent
  end
end
return found
