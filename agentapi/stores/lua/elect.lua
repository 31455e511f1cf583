-- Share the sweep with the other workers, and learn whether all of it is done.
-- KEYS 1 election (string: name of the worker that leads)
--      2 shares (hash: owner:<group> -> name of a worker, until:<group> -> ms until which it has the
--        group, swept:<group> -> ms)
--      3 when the group was swept whose last sweep is the longest ago (string: ms)
-- ARGV 1 candidate, 2 ttl, 3 whether the candidate has swept since it last called (0|1),
--      4 number of groups
-- Returns {ms since that sweep, or -1 before the first, a group that the candidate sweeps, ...}
-- Promise 3: a group is free when its worker has not called for the ttl, and to have a group without
-- sweeping it does not count as sweeping. Each caller takes free groups up to its share, then groups of
-- workers that have two more than itself: so the shares differ by one at most, and nothing changes until
-- a worker comes or goes. Two sweepers of a group do no harm (redispatch.lua), they only cost time. Who
-- has group 0 leads. Releases that have one sweeper for all groups read keys 1 and 3: they leave the
-- sweep to the worker that leads.

local candidate, ttl, swept_since = unpack(ARGV)
local now, last_group = now_ms(), tonumber(ARGV[4]) - 1

local shares = {}
local found = redis.call('HGETALL', KEYS[2])
for i = 1, #found, 2 do
  shares[found[i]] = found[i + 1]
end

-- A worker without a group is not counted. There is one only when each group has a worker of its own.
local owners, counts, workers = {}, { [candidate] = 0 }, 1
for group = 0, last_group do
  local owner = shares['owner:' .. group]
  if owner and stored(shares['until:' .. group]) > now then
    if not counts[owner] then
      counts[owner] = 0
      workers = workers + 1
    end
    counts[owner] = counts[owner] + 1
    owners[group] = owner
  end
end

local changes = {}
local function change(field, value)
  shares[field] = value
  changes[#changes + 1] = field
  changes[#changes + 1] = value
end
for group = 0, last_group do
  if owners[group] == candidate and swept_since == '1' then
    change('swept:' .. group, int(now))
  end
end

local function take(group)
  local owner = owners[group]
  if owner then
    counts[owner] = counts[owner] - 1
  end
  counts[candidate] = counts[candidate] + 1
  owners[group] = candidate
  change('owner:' .. group, candidate)
end
local share = math.ceil((last_group + 1) / workers)
for group = 0, last_group do
  if not owners[group] and counts[candidate] < share then
    take(group)
  end
end
-- From the last one on, so that a worker that comes does not take the lead.
for group = last_group, 0, -1 do
  if owners[group] and counts[owners[group]] > counts[candidate] + 1 then
    take(group)
  end
end

local oldest, own = now, {}
for group = 0, last_group do
  local swept = tonumber(shares['swept:' .. group] or '')
  oldest = oldest and swept and math.min(oldest, swept)
  if owners[group] == candidate then
    own[#own + 1] = group
    change('until:' .. group, int(now + tonumber(ttl)))
  end
end
if #changes > 0 then
  redis.call('HSET', KEYS[2], unpack(changes))
end
if own[1] == 0 then
  redis.call('SET', KEYS[1], candidate, 'PX', ttl)
  if oldest then
    redis.call('SET', KEYS[3], int(oldest))
  end
end
return { oldest and now - oldest or -1, unpack(own) }
