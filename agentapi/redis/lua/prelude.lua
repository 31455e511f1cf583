-- Functions shared by all scripts. Each script gets only the functions that it uses, before those of its
-- package's own prelude (agentapi/redis/script_text.py).

-- Return the time of Redis's own clock in milliseconds. It does not change while a script runs.
local script_began
local function now_ms()
  if not script_began then
    local time = redis.call('TIME')
    script_began = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return script_began
end

-- Return a stored value as a number, or 0 if it is not one. A script must not stop halfway because somebody
-- overwrote a value.
local function stored(value)
  return tonumber(value or '') or 0
end

local function int(number)
  return string.format('%.0f', number)
end

-- How long the answer to an operation is kept for repeated calls (ms). Only the Redis client repeats these
-- calls, within seconds.
local ANSWER_TTL = 60000

-- Return the answer that an earlier run of the same operation stored, or nothing. A call that deletes or
-- counts data needs this: after the first run, nothing else shows what that run did. So the call names its
-- operation, and the answer is stored under that name.
local function answer_before(answer_key)
  local answer = redis.call('GET', answer_key)
  return answer and cjson.decode(answer)
end

-- Store an answer for repeated calls of its operation, and return it.
local function keep_answer(answer_key, answer)
  redis.call('SET', answer_key, cjson.encode(answer), 'PX', ANSWER_TTL)
  return answer
end
