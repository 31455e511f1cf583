-- Let go of all leases of a process that is known to be dead.
-- KEYS 1 due (zset)
-- ARGV 1 the process (its claims' tokens begin with it), 2 prefix of the partition's
--      conversation keys
-- Returns the conversations whose lease ended, for redispatch.lua
-- Promise 7. The leases expire now and their conversations are overdue: what the caller does
-- not dispatch, the sweep does. Lease keys are made from the due index: they are in its hash slot.

local process, conversations_prefix = unpack(ARGV)

local freed = {}
local now = int(now_ms())
-- An index that is not one has no entries.
for _, conversation in ipairs(redis.pcall('ZRANGE', KEYS[1], 0, -1)) do
  local lease = conversations_prefix .. conversation .. ':lease'
  local token = redis.pcall('HGET', lease, 'token')
  if type(token) == 'string' and string.sub(token, 1, #process) == process then
    redis.call('HSET', lease, 'expires', now)
    redis.call('ZADD', KEYS[1], now, conversation)
    freed[#freed + 1] = conversation
  end
end
return freed
