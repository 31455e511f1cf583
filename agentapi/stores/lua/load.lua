-- Open a conversation and read its newest messages.
-- KEYS 1 messages (list), 2 meta (hash)
-- ARGV 1 tenant id, 2 max messages, 3 max bytes (-1 for no bound)
-- Returns {'loaded', messages} or {'tenant'}
-- Promise 4: messages of one turn are appended by one script, so a reader sees all or none.

local known = redis.call('HMGET', KEYS[2], 'created', 'tenant')
if known[1] and known[2] ~= ARGV[1] then
  return { 'tenant' }
end
return { 'loaded', (newest_messages(KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]))) }
