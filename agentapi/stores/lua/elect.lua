-- Give a worker its share of the sweep, and report the age of the oldest last sweep.
-- KEYS 1 election (string: name of the lead), 2 shares (hash: owner:<group> -> name of a worker,
--      until:<group> -> ms until which that worker has the group, swept:<group> -> ms), 3 time of the oldest
--      last sweep among all groups (string: ms)
-- ARGV 1 candidate, 2 ttl, 3 whether the candidate has swept since its last call (0|1), 4 number of groups
-- Returns {ms since the oldest last sweep (-1 if a group was never swept), each group that the candidate
--      sweeps, ...}
-- Promise 3: a group is free when its worker has not called within the ttl. Owning a group does not count as
-- sweeping it. Each caller takes free groups up to its share. Then it takes groups from workers that have at
-- least two groups more than itself. So the shares differ by at most one, and nothing changes until a worker
-- joins or leaves. Two sweepers of one group do no harm (see redispatch.lua); they only cost time. The owner
-- of group 0 is the lead. Releases with a single sweeper for all groups read keys 1 and 3, and leave the
-- sweep to the lead.

local candidate, ttl, swept_since = unpack(ARGV)
local now, last_group = now_ms(), tonumber(ARGV[4]) - 1

local shares = {}
local found = redis.call('HGETALL', KEYS[2])
for i = 1, #found, 2 do
  shares[found[i]] = found[i + 1]
end

-- Workers without a group are not counted. They exist only if every group has a worker of its own.
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
-- Start with the last group, so that a worker that joins does not take over the lead.
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
