-- world: a network in virtual time (core.task.virtual): two hosts behind routers that core.nat_model plays, and between
-- them servers: two for STUN, one for TURN. The same seed gives the same course of things, as far as the tasks' own
-- chance allows.
local core = require "p2pd.core"
local chance = require "p2pd.lab.virtual.chance"
local link = require "p2pd.lab.virtual.link"
local task = require "p2pd.task"
local tcp = require "p2pd.lab.virtual.tcp"
local wire = require "p2pd.lab.virtual.wire"

local M = {}

local EXTERNAL = { from = "30.2.1.2", to = "30.3.1.2" }
local INSIDE = { from = "192.168.2.10", to = "192.168.3.10" }
local TURN = "30.1.0.3"
local PREFIX = 24
local EPSILON = 1e-8 -- seconds: what rounding of times makes
local HOPS = 2       -- routers between two hosts, for SYNs that are to die before the second

---@type { ip: string, port: integer }[]
M.STUN = { { ip = "30.1.0.3", port = 3478 }, { ip = "30.1.0.4", port = 3478 } }
M.TURN = TURN

local world = setmetatable({}, { __index = wire.methods })

-- `now` is the tasks' time.
function world.__index(_, key)
  if key == "now" then return task.now() end
  return world[key]
end

-- Time ----------------------------------------------------------------------------------------------------------------

function world.reach() end

-- Something is to happen before all else.
function world:hurry()
  if self.waits then self.changed:signal() end
end

-- Lets things happen when their time has come, until it is cancelled.
local function drive(self)
  while true do
    local now = task.now()
    while self:next_at() <= now + EPSILON do self:step() end
    self.waits = true
    local left = self:next_at() - now
    self.changed:wait(left < math.huge and left or nil)
    self.waits = false
  end
end

--- Lets something happen so many seconds from now.
function world:after(seconds, what)
  self:at(task.now() + seconds, what)
end

-- Connections ---------------------------------------------------------------------------------------------------------

--- A socket is a connection at its end. What both ends have, of the same four, is a link.
function world:established(side, socket)
  local own = ("%s:%d"):format(side.external_ip, socket.external_port or socket.local_port)
  local peer = ("%s:%d"):format(socket.ip, socket.port)
  local key = own < peer and own .. " " .. peer or peer .. " " .. own
  local way = side.delay + (self.by_ip[socket.ip] or side).delay
  local one = self.links[key] or link.new(self, way)
  self.links[key] = one
  socket.link, socket.remote = one, peer
  if socket.owner and socket.owner.opened then socket.owner.opened(socket) else side.host:drop(socket) end
end

-- Sides ---------------------------------------------------------------------------------------------------------------

local function attach(self, side)
  side.host = tcp.host(self, side)
  self.by_ip[side.external_ip] = side
  return side
end

local function home(self, name, nat, seed)
  local made = { seed = seed, noise = self.noise > 0 and self.noise or nil, uninvited = self.uninvited }
  for key, value in pairs(nat) do made[key] = value end
  local translates = nat.type ~= "open" and nat.type ~= "udp-firewall"
  made.external = translates and { EXTERNAL[name] } or {}
  local ip = translates and INSIDE[name] or EXTERNAL[name]
  return attach(self, {
    name = name, nat = nat, router = core.nat_model.new(made), external_ip = EXTERNAL[name], ip = ip,
    translated = translates, delay = self.delay, prefixes = { { ip = ip, prefix = PREFIX, interface = "eth0" } },
  })
end

--- `from`, `to`: their NATs, parsed (p2pd.lab.nat).
---@param options { from: table, to: table, conditions: p2pd.lab.MatrixConditions, seed: integer }
function M.new(options)
  local conditions = options.conditions
  local self = setmetatable({
    delay = conditions.delay_ms / 1000, loss = conditions.loss, noise = conditions.noise,
    uninvited = conditions.uninvited, hops = HOPS, chance = chance.of(options.seed),
    heap = {}, order = 0, by_ip = {}, numbers = 0, syns = 0, links = {}, changed = task.condition(),
  }, world)
  self.from = home(self, "from", options.from, 2 * options.seed)
  self.to = home(self, "to", options.to, 2 * options.seed + 1)
  self.from.peer, self.to.peer = self.to, self.from
  self.server = attach(self, {
    name = "server", router = core.nat_model.new { type = "open", external = {} }, external_ip = TURN, ip = TURN,
    delay = 0,
  })
  self.tasks = task.group()
  self.tasks:spawn(drive, self)
  return self
end

function world:__close()
  getmetatable(self.tasks).__close(self.tasks)
end

return M
