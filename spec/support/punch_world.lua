-- punch_world: two hosts behind routers that core.nat_model plays, and TCP's opening handshake between them
-- (p2pd.lab.virtual.tcp), in virtual time: what becomes of two plans (core.punch.plan), and when. Nothing of it
-- touches the network, and the same seed gives the same answer.
--
--   local world = punch_world.new {
--     connect = { type = "symmetric", delta = "independent", value = 7 }, respond = { type = "restricted", … },
--     rtt = 0.04, server_rtt = 0.02, signal = 0.02, loss = 0.02, noise = 5, uninvited = "reset", hops = 1, seed = 7 }
--   local result = world:attempt { tries = 4 }   -- { ok, ms, try, tactic, reason, syns }
local core = require "p2pd.core"
local chance = require "p2pd.lab.virtual.chance"
local handshake = require "p2pd.lab.virtual.tcp"
local wire = require "p2pd.lab.virtual.wire"

local M = {}

local EXTERNAL = { connect = "30.2.1.2", respond = "30.3.1.2" }
local INSIDE = "192.168.1.10" -- of both: homes are like that
local SERVERS = { "30.1.0.3", "30.1.0.4" }
local STUN_PORT = 3478
local START = 1000            -- seconds; any time of this age
local LAN = wire.LAN
local SAMPLE_WAIT = 0.15      -- an answer that is later than this counts as none
local BURST = 0.0002          -- between two SYNs of a burst
local LOCALS = { 20000, 50000 }
local SYN, SYN_ACK = 2, 18

local world = setmetatable({}, { __index = wire.methods })
world.__index = world

-- Time ----------------------------------------------------------------------------------------------------------------

--- Lets time go on until then, or until both ends have the same connection.
function world:run(until_time)
  while self:next_at() <= until_time and not self.met and self.missed ~= self.try do self:step() end
  if not self.met and self.missed ~= self.try then self.now = math.max(self.now, until_time) end
end

-- A connection is one when both ends have it, of the same four.
function world:established(side, socket)
  local own = ("%s:%d"):format(side.external_ip, socket.external_port or socket.local_port)
  local peer = ("%s:%d"):format(socket.ip, socket.port)
  local key = own < peer and own .. " " .. peer or peer .. " " .. own
  local first = self.standing[key]
  self.standing[key] = first or side
  if first and first ~= side and not self.met then self.met = { at = self.now, key = key } end
end

-- Looking at ports ----------------------------------------------------------------------------------------------------

local function fresh_locals(side, count)
  local base = side.next_local
  side.next_local = base + count
  return base
end

-- One SYN to a STUN server from a local port: the external port, or 0 when nobody is told of it.
function world:look(side, local_port, server)
  local lost = self:lost()
  if lost and self.chance() < 0.5 then return 0 end
  local _, port = side.router:outbound(self.now, "tcp", side.ip, local_port, SERVERS[server], STUN_PORT, SYN)
  if lost or self:lost() or not port then return 0 end
  side.router:inbound(self.now, "tcp", SERVERS[server], STUN_PORT, side.external_ip, port, SYN_ACK)
  return port
end

--- Two fresh ports, side by side; and when the answers are there: TCP takes two round trips.
function world:sample(side, count)
  local samples, base, all = {}, fresh_locals(side, count), true
  for i = 1, count do
    local local_port = base + i - 1
    samples[i] = { local_port = local_port, external_port = self:look(side, local_port, (i - 1) % #SERVERS + 1) }
    all = all and samples[i].external_port ~= 0
  end
  return samples, self.now + (all and 2 * self.server_rtt or SAMPLE_WAIT)
end

function world:hold(side)
  if side.hold then return side.hold end
  local base = fresh_locals(side, 1)
  side.hold = base
  local _, port = side.router:outbound(self.now, "tcp", side.ip, base, SERVERS[1], STUN_PORT, SYN)
  side.router:inbound(self.now, "tcp", SERVERS[1], STUN_PORT, side.external_ip, port, SYN_ACK)
  side.hold_port = port
  return base
end

-- Sides ---------------------------------------------------------------------------------------------------------------

local function side_of(self, role, nat, seed)
  local made = { seed = seed, noise = self.noise > 0 and self.noise or nil, uninvited = self.uninvited }
  for key, value in pairs(nat) do made[key] = value end
  local translates = nat.type ~= "open" and nat.type ~= "udp-firewall"
  made.external = translates and { EXTERNAL[role] } or {}
  local side = {
    role = role, router = core.nat_model.new(made), external_ip = EXTERNAL[role],
    ip = translates and INSIDE or EXTERNAL[role], delay = self.rtt / 4,
    next_local = LOCALS[1] + math.floor(self.chance() * (LOCALS[2] - LOCALS[1])),
    facts = { nat = nat.type, delta = nat.delta or "na", value = nat.value, first = nat.first, last = nat.last },
  }
  side.host = handshake.host(self, side)
  self.by_ip[side.external_ip] = side
  return side
end

--- `connect`, `respond`: routers, as core.nat_model.new takes them. Times in seconds; `hops`: routers between the two;
--- `skew`: how far the two starts may be apart.
function M.new(options)
  local self = setmetatable({
    rtt = options.rtt or 0.04, server_rtt = options.server_rtt or 0.02, signal = options.signal or 0.02,
    loss = options.loss or 0, noise = options.noise or 0, uninvited = options.uninvited or "drop",
    hops = options.hops or 0, skew = options.skew or 0.002, chance = chance.of(options.seed or 1), now = START,
    heap = {}, order = 0, by_ip = {}, numbers = 0,
    standing = {}, syns = 0, try = 0,
  }, world)
  self.connect = side_of(self, "connect", options.connect, 2 * (options.seed or 1))
  self.respond = side_of(self, "respond", options.respond, 2 * (options.seed or 1) + 1)
  self.connect.peer, self.respond.peer = self.respond, self.connect
  return self
end

-- Attempts ------------------------------------------------------------------------------------------------------------

-- What a side can say of itself before a try, and when.
function world:prepare(side, needs)
  local facts, own = side.facts, {}
  for key, value in pairs(facts) do own[key] = value end
  if needs.own_hold then
    own.locals = { self:hold(side) }
    own.ports = { side.hold_port }
    return own, self.now
  end
  if needs.own_samples == 0 then return own, self.now end
  local samples, ready = self:sample(side, needs.own_samples)
  local found, message = core.punch.predict {
    nat = facts.nat, delta = facts.delta, value = facts.value, first = facts.first, last = facts.last,
    samples = samples, count = needs.own_ports,
  }
  if not found then return own, ready, message end
  own.locals, own.ports = found.locals, found.ports
  side.next_local = side.next_local + needs.own_ports + 1 -- and one that looks behind them
  return own, ready
end

-- Fires a side's plan now. Of a router that foresees: one more look right behind the burst tells what it really got.
function world:fire(side, plan)
  for _, port in ipairs(plan.listen) do side.host:listen(port) end
  local start, last = self.now, 0
  for _, shot in ipairs(plan.shots) do
    last = shot.at_ms / 1000
    self:at(start + last, function()
      side.host:connect {
        local_port = shot.local_port, ip = side.peer.external_ip, port = shot.remote_port, ttl = shot.ttl,
        listens = shot.listens, revive = plan.revive,
      }
    end)
  end
  return last
end

-- The true ports of a side's shots, when they are known; nil: they are not.
function world:behind(side, own, count, last, done)
  self:at(self.now + last + BURST + LAN, function()
    local list = {}
    for i = 1, count do list[i] = { own.locals[i], 0 } end
    local local_port = own.locals[count] + 1
    local port = self:look(side, local_port, 1)
    list[count + 1] = { local_port, port }
    self:at(self.now + 2 * self.server_rtt, function()
      local facts = side.facts
      local found, unknown = core.punch.between {
        nat = facts.nat, delta = facts.delta, value = facts.value, first = facts.first, last = facts.last, list = list,
      }
      done(unknown == 0 and table.move(found.ports, 1, count, 1, {}) or nil)
    end)
  end)
end

local function plan_of(self, side, own, peer, try)
  return core.punch.plan {
    own = own, peer = peer, role = side.role, try = try, rtt_ms = self.rtt * 1000, budget = self.budget,
    seed = math.floor(self.chance() * 1e9),
  }
end

local function is_chain(facts)
  return facts.nat == "symmetric" and (facts.delta == "dependent" or facts.delta == "preserving")
end

-- A chain tells the other side what its shots really got, and that side aims anew (`exact`).
function world:correct(side, own, peer, try, last)
  if not is_chain(own) then return end
  self:behind(side, own, math.min(2, #own.locals), last, function(ports)
    if ports and ports[1] == own.ports[1] and ports[2] == own.ports[2] then return end
    if not ports or is_chain(side.peer.facts) then
      -- Nothing will come of this try: the next one begins when the side that connects knows.
      self:at(self.now + (side.role == "connect" and 0 or self.signal), function() self.missed = try end)
      return
    end
    local told = { exact = true }
    for key, value in pairs(own) do told[key] = told[key] or value end
    told.ports, told.locals = ports, nil
    self:at(self.now + self.signal, function()
      local plan = plan_of(self, side.peer, peer, told, try)
      if plan then self:fire(side.peer, plan) end
    end)
  end)
end

-- What the side that responds fires before the other one has its answer: who is called has to have opened by then, and
-- a chain breaks while it waits. All else starts at both ends at the same time.
local function is_early(tactic, facts)
  local kept = facts.nat ~= "symmetric" or facts.delta == "equal"
  return tactic == "call" and kept or tactic == "window" and is_chain(facts)
end

--- One after another, up to `tries`: facts go to the side that responds, its own come back, and both fire.
---@return table result { ok, ms, try, tactic, reason, syns }
function world:attempt(options)
  local connect, respond, began = self.connect, self.respond, self.now
  local tactic, needs, reason = core.punch.tactic(connect.facts, respond.facts)
  local result = { ok = false, tactic = tactic, reason = reason }
  if tactic == "none" then return result end
  local other = { own_hold = needs.peer_hold, own_samples = needs.peer_samples, own_ports = needs.peer_ports }
  self.budget = options and options.budget
  for try = 1, options and options.tries or 1 do
    result.try, self.try = try, try
    -- Where both foresee, who asks looks when the other one does: ports that are told earlier would only grow old.
    local mine, ready, why
    if tactic ~= "cross" then mine, ready, why = self:prepare(connect, needs) end
    self:run(self.now + self.signal)
    if tactic == "cross" then mine, ready, why = self:prepare(connect, needs) end
    local theirs, other_ready, other_why = self:prepare(respond, other)
    if why or other_why then
      result.reason = why or other_why
      self:run(math.max(ready, other_ready) + self.signal)
    else
      -- Each side has the other's ports a signal's time after they were known.
      local back = math.max(ready, other_ready + self.signal)
      local fires = math.max(other_ready, ready + self.signal)
      if not is_early(tactic, respond.facts) then fires = math.max(fires, back) end
      fires = fires + self.skew * (2 * self.chance() - 1)
      self:run(math.min(fires, back))
      local ends = 0
      for _, one in ipairs { { respond, theirs, mine, fires }, { connect, mine, theirs, back } } do
        local side, own, peer, at = table.unpack(one)
        local plan, message = plan_of(self, side, own, peer, try)
        result.reason = message
        if not plan then return result end
        self:at(at, function()
          local last = self:fire(side, plan)
          if not (options and options.blind) then self:correct(side, own, peer, try, last) end
        end)
        ends = math.max(ends, at + plan.wait_ms / 1000)
      end
      self:run(ends)
    end
    if self.met then break end
    connect.host:close()
    respond.host:close()
  end
  result.syns = self.syns
  if self.met then result.ok, result.ms = true, (self.met.at - began) * 1000 end
  return result
end

return M
