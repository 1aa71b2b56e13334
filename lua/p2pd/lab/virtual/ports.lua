-- ports: what a virtual node knows of its router: facts, holds and samples, as p2pd.meeting gives those of a real one.
local task = require "p2pd.task"
local world = require "p2pd.lab.virtual.world"

local M = {}

local SYN, SYN_ACK = 2, 18
local PORTS = { 20000, 32000 } -- of samples, as p2pd.holds has them
local RANGE = { first = 1024, last = 65535 }
local LOST = 1.2               -- seconds until a SYN's loss has been made up for, or an answer is given up

-- Kinds that no packet can tell apart (DESIGN.md, The lab): who examines them finds the first.
local TAKEN_FOR = { ["symmetric/equal"] = "port-restricted", ["symmetric/preserving"] = "port-restricted" }

--- What an examination finds of a NAT.
---@param nat table parsed (p2pd.lab.nat)
---@return { nat: string, delta: string, value: integer }
function M.examined(nat)
  local delta = nat.delta or "na"
  return { nat = TAKEN_FOR[("%s/%s"):format(nat.type, delta)] or nat.type, delta = delta, value = nat.value or 0 }
end

--- What is told of the router.
function M.facts(side)
  local facts = M.examined(side.nat)
  facts.ip, facts.local_ip, facts.translated, facts.confidence = side.external_ip, side.ip, side.translated, 0.97
  facts.first, facts.last = side.nat.first or RANGE.first, side.nat.last or RANGE.last
  return facts
end

-- One SYN to a STUN server from a local port, whose answer comes two round trips later: the external port, or 0.
local function look(net, side, local_port, server)
  local to = world.STUN[server]
  if net:lost() then return 0 end
  local _, port = side.router:outbound(net.now, "tcp", side.ip, local_port, to.ip, to.port, SYN)
  if not port or net:lost() then return 0 end
  net:after(2 * side.delay, function()
    side.router:inbound(net.now, "tcp", to.ip, to.port, side.external_ip, port, SYN_ACK)
  end)
  return port
end

local function round_trips(side)
  return 4 * side.delay
end

local function no_close() end

-- Holds ---------------------------------------------------------------------------------------------------------------

local hold = {}
hold.__index = hold
hold.__name = "p2pd.hold"
hold.close, hold.__close = no_close, no_close

local function open(net, side)
  local local_port = side.host:any_port()
  local one = setmetatable({
    local_port = local_port, external_ip = side.external_ip, external_port = local_port, translated = side.translated,
  }, hold)
  if side.translated then one.external_port = look(net, side, local_port, 1) end
  return one.external_port ~= 0 and one or nil
end

--- Keeps a hold ready, as a node does that has been up for a while.
function M.warm(net, side)
  local facts = M.examined(side.nat)
  local kept = facts.nat ~= "blocked" and (facts.nat ~= "symmetric" or facts.delta == "equal")
  if side.translated and kept then side.warm = open(net, side) end
end

--- The one that is ready, or a new one.
function M.hold(net, side)
  local one = side.warm
  side.warm = nil
  if one then
    net:after(0, function() M.warm(net, side) end)
    return one
  end
  one = open(net, side)
  if not side.translated then return one end
  task.sleep(one and round_trips(side) or LOST)
  one = one or open(net, side)
  if one then return one end
  return nil, "ETIMEDOUT: no STUN server answers over TCP", "ETIMEDOUT"
end

-- Samples -------------------------------------------------------------------------------------------------------------

local sample = {}
sample.__index = sample
sample.__name = "p2pd.sample"
sample.close, sample.__close = no_close, no_close

--- Which ports new local ports get now.
---@param options { count: integer?, local_port: integer? }
function M.sample(net, side, options)
  local count = options.count or 2
  local first = options.local_port or PORTS[1] + math.floor(net.chance() * (PORTS[2] - PORTS[1] - count))
  local list, seen = setmetatable({}, sample), 0
  task.sleep(0.0003)
  for place = 1, count do
    local server = (place - 1) % #world.STUN + 1
    local port = look(net, side, first + place - 1, server)
    list[place] = {
      local_port = first + place - 1, external_port = port, server_ip = world.STUN[server].ip,
      external_ip = port ~= 0 and side.external_ip or nil,
    }
    seen = seen + (port ~= 0 and 1 or 0)
  end
  task.sleep(round_trips(side) + (seen < count and 0.1 or 0))
  if seen > 0 then return list end
  return nil, "ETIMEDOUT: no STUN server answers over TCP", "ETIMEDOUT"
end

return M
