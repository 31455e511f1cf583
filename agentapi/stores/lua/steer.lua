-- Let the messages that steer a running turn join it, as its next steps.
-- KEYS 1 turn (hash), 2 lease (hash), 3 journal (list), 4 events (stream), 5 inbox (list)
-- ARGV 1 turn id, 2 fence, 3 index of the next step, 4 prefix of turn keys, 5 template of a step: JSON in
--      which "$input" stands for the message
-- Returns {'steered', steps}, {'fenced'} or {'gap', length}
-- Promises 2, 5, 6: messages join in the order of their acceptance, each exactly once, because a message
-- leaves the inbox together with the write of its step. A repeated call finds steps at that index and returns
-- them.

local turn_id, fence, position, prefix, format = unpack(ARGV)

if not owns(KEYS[1], KEYS[2], turn_id, fence) then
  return refuse_write(KEYS[1], fence, 'steer')
end
local length = redis.call('LLEN', KEYS[3])
local index = tonumber(position)
if index > length then
  return { 'gap', length }
end
if index < length then
  return { 'steered', redis.call('LRANGE', KEYS[3], index, -1) }
end
redis.call('HDEL', KEYS[1], 'steered')
local steps = {}
local joined = redis.call('HGET', KEYS[1], 'merged')
for _, other in ipairs(redis.call('LRANGE', KEYS[5], 1, -1)) do
  local key = prefix .. other
  local new = named(key, 'steers', 'status', 'input')
  if new.steers == turn_id and new.status == 'queued' then
    local text = string.gsub(cjson.encode(new.input), '%%', '%%%%')
    local step = string.gsub(format, '"%$input"', text)
    redis.call('RPUSH', KEYS[3], step)
    note(KEYS[1], now_ms(), '"u"')
    redis.call('LREM', KEYS[5], 1, other)
    redis.pcall('ZREM', list_key(KEYS[1], 'queued'), other)
    redis.call('HSET', key, 'status', 'merged', 'into', turn_id)
    emit(key, key .. ':events', 'joined', cjson.encode({ turn = turn_id }))
    emit(KEYS[1], KEYS[4], 'step',
      '{"index":' .. int(length + #steps) .. ',"kind":"user","tools":[],"calls":[]}')
    joined = (joined and joined .. ' ' or '') .. other
    steps[#steps + 1] = step
  end
end
if #steps > 0 then
  redis.call('HSET', KEYS[1], 'merged', joined, 'steps', int(length + #steps))
end
return { 'steered', steps }
