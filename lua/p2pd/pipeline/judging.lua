-- judging: what is to be made of how ways to a peer went before. Pure: from what p2pd.pipeline.memory holds of a pair
-- of networks to which way is tried first, which one beside it, and why.
local M = {}

local FORGET = 32         -- attempts after which an outcome counts no more: what failed then may work now
local RELAYED = 1         -- seconds that a relayed connection counts more: it costs somebody else, all the time
local MARGIN, SLACK = 1.5, 0.02 -- what a way gets beyond what it usually takes: times that, and seconds more
local PATIENCE = 1        -- seconds that it gets at most

-- Chance --------------------------------------------------------------------------------------------------------------

-- The same numbers for the same text: what is decided can be told beforehand (FNV-1a, then splitmix64).
local function chance_of(text)
  local state = 0xcbf29ce484222325
  for i = 1, #text do state = (state ~ text:byte(i)) * 0x100000001b3 end
  return function()
    state = state + 0x9e3779b97f4a7c15
    local z = (state ~ state >> 30) * 0xbf58476d1ce4e5b9
    z = (z ~ z >> 27) * 0x94d049bb133111eb
    return ((z ~ z >> 31) >> 11) * 2.0 ^ -53
  end
end

-- A number of the beta distribution for whole a and b: the a-th smallest of a + b - 1 that are uniform.
local function beta(random, a, b)
  local all = {}
  for i = 1, a + b - 1 do all[i] = random() end
  table.sort(all)
  return all[a]
end

-- Ways ----------------------------------------------------------------------------------------------------------------

local function median(times)
  table.sort(times)
  local middle = (#times + 1) // 2
  return #times % 2 == 1 and times[middle] or (times[middle] + times[middle + 1]) / 2
end

-- What the outcomes that still count say of a way.
local function weigh(way, attempts)
  local times, counted = {}, 0
  for _, each in ipairs(way.seen) do
    if attempts - each[1] < FORGET then
      counted = counted + 1
      if each[2] >= 0 then times[#times + 1] = each[2] / 1000 end
    end
  end
  local weighed = {
    name = way.name, extra = way.relayed and RELAYED or 0,
    counted = counted, connected = #times, usual = #times > 0 and median(times) or nil,
    chance = (#times + 1) / (counted + 2),
  }
  weighed.cost = weighed.usual and (weighed.usual + weighed.extra) / weighed.chance
  return weighed
end

-- Thompson sampling (Russo et al., A Tutorial on Thompson Sampling, 2018): each way's chance is drawn from what is
-- believed of it, and the draw that promises the least time decides. A way of which little is known is drawn wide, and
-- so comes up now and then; one that failed eight times almost never, until that is forgotten. UCB would need a scale
-- for times that nobody knows; this needs but successes, and with the draws fixed by the pair and the number of the
-- attempt it can be told beforehand and tested. It costs no time: what is drawn runs beside the best, not in its place.
local function drawn(pair, weighed, best)
  local least, choice
  for _, way in ipairs(weighed) do
    local random = chance_of(("%s %s %s %d %s"):format(pair.own, pair.node, pair.peer, pair.attempts, way.name))
    -- One that has not connected yet could be twice as quick as the best. A relay is not tried on the off chance.
    local time = way.usual and way.usual + way.extra or (best.usual + best.extra) / 2
    local cost = time / beta(random, 1 + way.connected, 1 + way.counted - way.connected)
    if (way.usual or not way.relayed) and (not least or cost < least) then least, choice = cost, way end
  end
  return choice ~= best and choice or nil
end

local function words(best, beside, patience)
  local text = "%s connected in %d of the %d tries that count, usually in %.0f ms%s; the others follow %.0f ms later"
  text = text:format(best.name, best.connected, best.counted, best.usual * 1000,
      best.relayed and ", and nothing without a relay did better" or "", patience * 1000)
  if not beside then return text end
  return ("%s; beside it %s, %s"):format(text, beside.name, beside.counted == 0 and "of which nothing is known"
    or ("which connected in %d of %d, to see whether it is better now"):format(beside.connected, beside.counted))
end

--- What is to be tried first. Nothing is decided while none of these ways has connected lately.
---@param pair p2pd.pipeline.Pair? what is known
---@param ways? { name: string, relayed: boolean? }[] those in question; all that are known unless given
---@return { ways: table<string, table>, order: string[], best: string?, beside: string?, patience: number?,
---          why: string }
function M.judge(pair, ways)
  local known, weighed, by_name, order = {}, {}, {}, {}
  for _, way in ipairs(pair and pair.ways or {}) do known[way.name] = way end
  for i, each in ipairs(ways or pair.ways) do
    local way = weigh(known[each.name] or { name = each.name, seen = {} }, pair and pair.attempts or 0)
    way.relayed, way.place = each.relayed, i
    weighed[i], by_name[each.name], order[i] = way, way, each.name
  end
  local judged = { ways = by_name, order = order, why = "nothing has connected lately: as the default pipeline has it" }
  local best
  for _, way in ipairs(weighed) do
    if way.cost and (not best or way.cost < best.cost) then best = way end
  end
  if not best then return judged end
  local beside = drawn(pair, weighed, best)
  local patience = math.min(PATIENCE, best.usual * MARGIN + SLACK)
  table.sort(weighed, function(a, b)
    if a == b then return false end
    if a == best or b == best then return a == best end
    if a == beside or b == beside then return a == beside end
    if a.cost and b.cost and a.cost ~= b.cost then return a.cost < b.cost end
    if (a.cost ~= nil) ~= (b.cost ~= nil) then return a.cost ~= nil end
    return a.place < b.place
  end)
  for i, way in ipairs(weighed) do order[i] = way.name end
  judged.best, judged.beside, judged.patience = best.name, beside and beside.name, patience
  judged.why = words(best, beside, patience)
  return judged
end

return M
