-- Delete turns that are in the archive, beyond the number of turns to keep.
-- KEYS 1 the list that the turns are in (zset), 2 copies (zset)
-- ARGV for each turn: 1 id, 2 version of the copy ('' if the archive has none), 3 conversation id, 4 whether
--      the conversation has an idle time (0|1), 5 whether another turn has continued the turn (0|1)
-- Returns the number of deleted turns
-- Promise 3. If a turn's conversation was created for that turn alone, and nothing has happened in it since,
-- the conversation is deleted with it. The copy becomes a leftover. A repeated call finds the turns gone.

local deleted = 0
for i = 1, #ARGV, 5 do
  local turn_id, version, conversation_id, idle, successor = unpack(ARGV, i, i + 4)
  if redis.call('ZREM', KEYS[1], turn_id) == 1 then
    drop_unnamed(KEYS[1], turn_id, {
      conversation = conversation_id, idle = idle == '1', successor = successor == '1',
    })
    redis.pcall('SREM', partition_prefix(KEYS[1]) .. 'c:' .. conversation_id .. ':strays', turn_id)
    if version ~= '' then
      redis.call('ZADD', KEYS[2], int(now_ms()), turn_note('d', version, turn_id))
    end
    deleted = deleted + 1
  end
end
return deleted
