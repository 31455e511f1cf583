-- Wake parked turns of a partition whose provider is back: parked -> parked, due soon.
-- KEYS 1 waiting (set): conversations whose turns wait for the provider, 2 due (zset)
-- ARGV 1 prefix of conversation keys, 2 prefix of turn keys, 3 the provider, 4 the most conversations to
--      examine, 5 time over which to spread the wake-ups, 6 fraction of a step by which this partition's
--      wake-ups are shifted (0 to 1)
-- Returns {number of turns woken, number of conversations left}
-- Promise 3. Turns wake one after the other, because a provider that has just returned must not receive all
-- their calls at the same moment. No wake-up becomes later. Conversations whose head has ended or waits for
-- something else are dropped from the set. A repeated call wakes the remaining ones.

local conversations_prefix, turns_prefix, provider, limit, spread, shift = unpack(ARGV)

local now = now_ms()
local conversations = redis.call('SPOP', KEYS[1], limit)
local step = tonumber(spread) / math.max(#conversations, 1)
local woken = 0
for i, conversation in ipairs(conversations) do
  local head = redis.call('LINDEX', conversations_prefix .. conversation .. ':inbox', 0)
  local turn = head and redis.call('HMGET', turns_prefix .. head, 'status', 'waits_for', 'wake')
  if turn and turn[1] == 'parked' and turn[2] then
    local waits = false
    for _, name in ipairs(cjson.decode(turn[2]).names) do
      waits = waits or name == provider
    end
    local wake = now + step * (i - 1 + tonumber(shift))
    if waits and wake < stored(turn[3]) then
      redis.call('HSET', turns_prefix .. head, 'wake', int(wake))
      redis.call('ZADD', KEYS[2], int(wake), conversation)
      woken = woken + 1
    end
  end
end
return { woken, redis.call('SCARD', KEYS[1]) }
