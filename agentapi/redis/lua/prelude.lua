-- Shared by all scripts. Each gets what it uses, ahead of its package's own prelude
-- (agentapi/redis/script_text.py).

-- Redis's own clock in milliseconds. It stands still while a script runs.
local script_began
local function now_ms()
  if not script_began then
    local time = redis.call('TIME')
    script_began = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return script_began
end

-- A stored number, or 0 for anything else: a script must not stop halfway because of a value that
-- somebody overwrote.
local function stored(value)
  return tonumber(value or '') or 0
end

local function int(number)
  return string.format('%.0f', number)
end

-- How long the answer to an operation is kept for its repeats. Only Redis's client repeats these
-- calls, within seconds.
local ANSWER_TTL = 60000

-- A call that deletes or counts what it finds leaves nothing that tells a repeat what it did. It names
-- its operation, and its answer is kept: this is the answer of an earlier run, or nothing.
local function answer_before(answer_key)
  local answer = redis.call('GET', answer_key)
  return answer and cjson.decode(answer)
end

-- Keep an answer for repeats of its operation, and return it.
local function keep_answer(answer_key, answer)
  redis.call('SET', answer_key, cjson.encode(answer), 'PX', ANSWER_TTL)
  return answer
end
