-- learning: a strategy of strategies that tries first what worked before on this pair of networks. What it remembers
-- lies on disk (p2pd.pipeline.memory), what follows from that is p2pd.pipeline.judging's; here is when each one starts:
--
--   nothing known       as the default pipeline has it: no way starts later than it would there
--   something known     the best at once; one that is drawn, to see whether it is better, at once, too; the others when
--                       the best has had what it usually takes, or has failed
--
-- In each attempt every way has its turn, however badly it did: one that became the only one is found at once.
local combinators = require "p2pd.pipeline.combinators"
local judging = require "p2pd.pipeline.judging"
local memory = require "p2pd.pipeline.memory"
local strategies = require "p2pd.strategy"
local task = require "p2pd.task"

local M = {}

local RELAY_AFTER = 2.4 -- as in lua/p2pd/strategies/default.lua; the spec compares them

local HEAD_START = 0.25 -- seconds for what is drawn, where the best is a relay: that would win against a better one
local LONGEST_NAME = 96 -- bytes

-- Names ---------------------------------------------------------------------------------------------------------------

local function is_relay(child)
  for _, name in ipairs(strategies.leaves(child)) do
    if name ~= "relay" then return false end
  end
  return true
end

-- What each child is known by: what is made of others is told apart by what is in it.
local function ways_of(children)
  local ways, count = {}, {}
  for i, child in ipairs(children) do
    local name = child.name
    if child.children then name = ("%s{%s}"):format(name, table.concat(strategies.leaves(child), " ")) end
    name = name:sub(1, LONGEST_NAME)
    count[name] = (count[name] or 0) + 1
    if count[name] > 1 then name = ("%s #%d"):format(name, count[name]) end
    ways[i] = { name = name, relayed = is_relay(child), child = child }
  end
  return ways
end

local function network_of(address, with_internal)
  local list, seen = {}, {}
  for _, section in ipairs { address.ipv4, address.ipv6 } do
    for _, one in ipairs(section) do
      local text = one.external
      if with_internal and one.internal ~= one.external then text = ("%s (%s)"):format(text, one.internal) end
      if not seen[text] then list[#list + 1], seen[text] = text, true end
    end
  end
  table.sort(list)
  return #list > 0 and table.concat(list, ", ") or "nowhere"
end

local function pair_of(ctx)
  return { own = network_of(ctx.own, true), node = ctx.peer.node_id, peer = network_of(ctx.peer, false) }
end

-- When each starts ----------------------------------------------------------------------------------------------------

-- Those in `ways` by the order that a `prefer` around wants; of equal children each has its own place.
local function ordered(ctx, ways)
  local list, left, result = {}, {}, {}
  for i, way in ipairs(ways) do list[i], left[i] = way.child, way end
  for i, child in ipairs(ctx:order(list)) do
    for k, way in ipairs(left) do
      if way.child == child then
        result[i] = table.remove(left, k)
        break
      end
    end
  end
  return result
end

-- The ways in their order; `gap` says how long after one the next one starts. A relay that has not connected lately
-- waits until the others had their chance.
local function plan(ctx, all, pair)
  local judged = judging.judge(memory.get(pair), all)
  local by_name, first, last = {}, {}, {}
  for _, way in ipairs(all) do by_name[way.name] = way end
  for _, name in ipairs(judged.order) do
    local way = by_name[name]
    local waits = way.relayed and not judged.ways[name].usual
    table.insert(waits and last or first, { name = name, child = way.child, relayed = way.relayed, waits = waits })
  end
  local leads = judged.beside and by_name[judged.best].relayed
  if leads then first[1], first[2] = first[2], first[1] end
  local ways = ordered(ctx, table.move(last, 1, #last, #first + 1, first))
  return ways, function(i)
    local before = ways[i].name
    if before == judged.best and ways[i + 1].name ~= judged.beside then return judged.patience end
    if before == judged.beside then
      return leads and math.min(HEAD_START, judged.patience) or judged.patience
    end
    if before == judged.best then return 0 end
    return combinators.patience(ctx, i)
  end
end

-- What became of them -------------------------------------------------------------------------------------------------

local function way_of(entry, way, place)
  for i, each in ipairs(entry.ways) do
    if each.name == way.name then
      table.insert(entry.ways, place, table.remove(entry.ways, i))
      return each
    end
  end
  local new = { name = way.name, relayed = way.relayed or nil, tries = 0, connected = 0, failed = 0, seen = {} }
  table.insert(entry.ways, place, new)
  return new
end

-- One that was cut off says something only when it was slower than the one that connected.
local function outcome_of(way, winner, now)
  if not winner then return nil end -- the peer is not there, perhaps: that says nothing of its ways
  local ran = (way.ended or now) - way.began
  if way == winner then return ran end
  if way.failed or ran >= winner.ended - winner.began then return -ran end
end

local function remember(pair, ways, winner)
  local now, any = task.now(), false
  for _, way in ipairs(ways) do any = any or way.failed or way == winner end
  if not any then return end
  memory.change(pair, function(entry)
    entry.attempts = entry.attempts + 1
    for place, way in ipairs(ways) do
      local known = way_of(entry, way, place)
      if way.began and not way.skipped then
        known.tries = known.tries + 1
        known.connected = known.connected + (way == winner and 1 or 0)
        known.failed = known.failed + (way.failed and 1 or 0)
        local seconds = outcome_of(way, winner, now)
        if seconds then
          local ms = math.max(1, math.floor(math.abs(seconds) * 1000 + 0.5))
          table.insert(known.seen, { entry.attempts, seconds < 0 and -ms or ms })
        end
      end
    end
  end)
end

-- The combinator ------------------------------------------------------------------------------------------------------

local function run(ctx, ways, gap)
  local ended, started, over = task.channel(#ways), 0, 0
  local began, next_at, message, code = ctx:now(), ctx:now(), nil, nil
  local function start()
    started = started + 1
    local way = ways[started]
    way.began = ctx:now()
    next_at = way.began + (started < #ways and gap(started) or 0)
    ctx:spawn(function() ended:send({ way, ctx:try(way.child) }) end)
  end
  local function next_start()
    if ways[started + 1].waits then return over == started and 0 or math.max(next_at, began + RELAY_AFTER) end
    return next_at
  end
  while over < #ways do
    while started < #ways and next_start() <= ctx:now() do start() end
    local result = ended:recv(started < #ways and math.max(0, next_start() - ctx:now()) or nil)
    if result then
      local way, pipe, why, what = result[1], result[2], result[3], result[4]
      way.ended, over = ctx:now(), over + 1
      if pipe then return pipe, way end
      way.skipped, way.failed = what == "ESKIPPED", what ~= "ESKIPPED"
      if way.failed then message, code = why, what end
      if way == ways[started] then next_at = ctx:now() end
    else
      start() -- whatever the clock's grain
    end
  end
  return nil, nil, message or "ESKIPPED: nothing in it applies", code or "ESKIPPED"
end

--- The one first that did best before on this pair of networks (ours, and the peer's), the others beside it when it has
--- had what it usually takes. Where nothing is known yet they start as the default pipeline's do.
---@param list (p2pd.Strategy|string|function)[]
---@return p2pd.Strategy
function M.learn(list)
  local fine, made = pcall(combinators.race, list) -- it knows what a list of strategies is
  if not fine then error(made, 2) end
  local children, all = made.children, nil
  return {
    name = "learn", children = children, rebuild = M.learn,
    connect = function(ctx)
      all = all or ways_of(children)
      local pair = pair_of(ctx)
      local ways, gap = plan(ctx, all, pair)
      local winner
      -- However it ends: what has failed by then is known.
      local _ <close> = setmetatable({}, { __close = function() remember(pair, ways, winner) end })
      local pipe, message, code
      pipe, winner, message, code = run(ctx, ways, gap)
      if pipe then return pipe end
      return nil, message, code
    end,
  }
end

-- Telling of it -------------------------------------------------------------------------------------------------------

local function rounded(seconds)
  return seconds and math.floor(seconds * 1000 + 0.5) or nil
end

--- What `learn` knows: for each pair of networks, the latest first, how each way went and what would be tried first.
---@return p2pd.Scores[]
function M.scores()
  local list = {}
  for i, pair in ipairs(memory.all()) do
    local judged = judging.judge(pair)
    local ways = {}
    for k, way in ipairs(pair.ways) do
      local weighed, recent = judged.ways[way.name], {}
      for r, each in ipairs(way.seen) do recent[r] = each[2] end
      ways[k] = {
        name = way.name, tries = way.tries, connected = way.connected, failed = way.failed, recent_ms = recent,
        usual_ms = rounded(weighed.usual), chance = weighed.chance, counts_ms = rounded(weighed.cost),
      }
    end
    list[i] = {
      own = pair.own, node = pair.node, peer = pair.peer, attempts = pair.attempts, at = pair.at, ways = ways,
      first = judged.best, beside = judged.beside, why = judged.why,
    }
  end
  return list
end

local function ago(seconds)
  if seconds < 120 then return ("%d s ago"):format(seconds) end
  if seconds < 7200 then return ("%d min ago"):format(seconds // 60) end
  if seconds < 172800 then return ("%d h ago"):format(seconds // 3600) end
  return ("%d days ago"):format(seconds // 86400)
end

local function way_line(way, width)
  local parts = { ("connected %d of %d times"):format(way.connected, way.tries) }
  if way.failed > 0 then parts[#parts + 1] = ("failed %d"):format(way.failed) end
  if way.usual_ms then parts[#parts + 1] = ("usually in %d ms, counts as %d"):format(way.usual_ms, way.counts_ms) end
  return ("  %-" .. width .. "s  %s"):format(way.name, table.concat(parts, ", "))
end

--- The same for a person.
---@return string
function M.text()
  local lines = {}
  for _, pair in ipairs(M.scores()) do
    lines[#lines + 1] = ("to %s at %s, from %s: %d attempt%s, the last %s"):format(pair.node:sub(1, 12), pair.peer,
      pair.own, pair.attempts, pair.attempts == 1 and "" or "s", ago(math.max(0, os.time() - pair.at)))
    local width = 0
    for _, way in ipairs(pair.ways) do width = math.max(width, #way.name) end
    for _, way in ipairs(pair.ways) do lines[#lines + 1] = way_line(way, width) end
    lines[#lines + 1] = ("  first: %s"):format(pair.first and pair.first .. ", as " .. pair.why or pair.why)
  end
  if #lines == 0 then return "nothing was learnt yet: pipelines with p2pd.pipeline.learn do" end
  return table.concat(lines, "\n")
end

return M
