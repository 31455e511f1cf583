-- End all leases of a dead process in one partition.
-- KEYS 1 due (zset)
-- ARGV 1 the process (its claim tokens begin with it), 2 prefix of the partition's conversation keys
-- Returns the conversations that lost a lease, for redispatch.lua
-- Promise 7. The leases expire now, and their conversations are overdue. If the caller does not dispatch one
-- of them, the sweep does. The keys of leases are built from the due index, and are in its hash slot.

local process, conversations_prefix = unpack(ARGV)

local freed = {}
local now = int(now_ms())
-- A key of another type counts as an empty index.
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
