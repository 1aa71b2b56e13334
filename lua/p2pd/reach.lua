-- reach: by which means two computers can meet, by what is known of their routers. Pure: the table of lua/doc/nat.md.
local M = {}

-- What two routers are to each other depends on these alone.
local CLASS_OF = {
  open = "reachable", ["full-cone"] = "cone", restricted = "cone", ["port-restricted"] = "strict",
  ["udp-firewall"] = "strict", symmetric = "random", blocked = "blocked",
}
local FORESEEABLE = { equal = true, preserving = true, independent = true, dependent = true }

local PUNCH, TRIES, RELAY = "punch", "punch by many tries", "relay"

-- Where nobody can simply be dialed. A cone's router does not look at the port that a packet comes from, so that a peer
-- whose ports nobody can foresee gets in too.
local MEETING = {
  cone = { cone = PUNCH, strict = PUNCH, foreseeable = PUNCH, random = PUNCH, blocked = RELAY },
  strict = { cone = PUNCH, strict = PUNCH, foreseeable = PUNCH, random = TRIES, blocked = RELAY },
  foreseeable = { cone = PUNCH, strict = PUNCH, foreseeable = PUNCH, random = RELAY, blocked = RELAY },
  random = { cone = PUNCH, strict = TRIES, foreseeable = RELAY, random = RELAY, blocked = RELAY },
  blocked = { cone = RELAY, strict = RELAY, foreseeable = RELAY, random = RELAY, blocked = RELAY },
}

-- What blocked networks still let out: a listener there can be dialed from everywhere.
local LET_OUT = { [80] = true, [443] = true }

--- The means, from the quickest to the slowest.
M.means = { "direct", "reverse", PUNCH, TRIES, RELAY }

--- The kinds of peers, for pictures: the seven types, symmetric ones twice.
M.kinds = {
  { nat = "open", delta = "na" }, { nat = "udp-firewall", delta = "na" }, { nat = "full-cone", delta = "equal" },
  { nat = "restricted", delta = "equal" }, { nat = "port-restricted", delta = "equal" },
  { nat = "symmetric", delta = "independent" }, { nat = "symmetric", delta = "random" },
  { nat = "blocked", delta = "na" },
}

local function class_of(side, level)
  if type(side) ~= "table" then error("a side is a table, not a " .. type(side), level + 1) end
  local class = CLASS_OF[side.nat] or error(("'%s' is no type of NAT"):format(tostring(side.nat)), level + 1)
  if side.mapped_port and class ~= "blocked" then return "reachable" end
  if class == "random" and FORESEEABLE[side.delta] then return "foreseeable" end
  return class
end

--- What a side is to others: "reachable", "cone", "strict", "foreseeable", "random" or "blocked".
---@param side p2pd.Side
---@return p2pd.ReachClass
function M.class(side)
  return (class_of(side, 2))
end

local function same_router(us, them)
  return us.external ~= nil and us.external == them.external and not us.carrier and not them.carrier
end

-- Whether one who is of this class gets through to that side by dialing it.
local function can_dial(class, side, side_class)
  if side_class ~= "reachable" then return false end
  return class ~= "blocked" or LET_OUT[side.mapped_port or side.port] == true
end

local function ways_between(us, them, level)
  local ours, theirs = class_of(us, level + 1), class_of(them, level + 1)
  local ways, near = {}, same_router(us, them)
  if near or can_dial(ours, them, theirs) then ways[1] = "direct" end
  if near or can_dial(theirs, us, ours) then ways[#ways + 1] = "reverse" end
  local meeting = MEETING[ours] and MEETING[ours][theirs]
  if meeting and meeting ~= RELAY then ways[#ways + 1] = meeting end
  ways[#ways + 1] = RELAY
  return ways
end

--- By which means two sides can meet, from the quickest to the slowest, as seen by the first, who calls. A relay is
--- always the last.
---@param us p2pd.Side
---@param them p2pd.Side
---@return p2pd.ReachMeans[]
function M.ways(us, them)
  return (ways_between(us, them, 2))
end

--- The quickest of them.
---@param us p2pd.Side
---@param them p2pd.Side
---@return p2pd.ReachMeans
function M.best(us, them)
  return ways_between(us, them, 2)[1]
end

return M
