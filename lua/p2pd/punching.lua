-- punching: the parts of which strategies/punch.lua is made. An attempt goes by up to two routes side by side, IPv6 and
-- IPv4; of each route both sides tell the facts: what their router does, and the external ports where they will be.
--
--   a router that keeps a port for all      a hold: its external port is told at once
--   a new one for each, that follow          samples, just before: the next ports are foreseen from them, and told
--   a new one for each, at random            nothing to tell; many tries, if the other side's is kept
--
-- Which burst that makes is p2pd.punch.plan's to say, the same at both ends. The side that is asked answers with its
-- own facts, and fires when its answer arrives; the side that asked fires when it has the answer.
local facts = require "p2pd.punch_facts"
local plans = require "p2pd.punch"
local task = require "p2pd.task"

local M = {}

local FAMILIES = { ipv6 = 6, ipv4 = 4 }
local SAMPLES, FORESEEN = 2, 8 -- ports that are looked at, and foreseen from them, where p2pd.punch does not say
local LEAST_PATIENCE = 0.25    -- seconds that a try gets, and as many signal times:
local SIGNAL_TIMES = 4
local SLOW = 0.4               -- seconds of a message's way from which on the two meet at a time by the true clock,
local BUCKET = 0.25            -- a multiple of this: how long the way takes is then no good guess
local LONGEST_WAIT = 4         -- seconds that a side waits for that at most
local GROWTH = 1.2             -- each try gets so much more time than the one before
local SILENCE = 4              -- seconds without a word after which the side that is asked gives up
local BEHIND = 0.002           -- seconds after its last SYN that a look behind a burst leaves
local SOCKETS, SPRAYS = 256, 1024 -- of a birthday, where nothing suffers from it
local MOST_REVIVED = 12        -- times that one SYN is fired again: a router that was late opens sooner than that
local SHOWN = 4                -- of the ports, in reports

local punch = {}
punch.__index = punch

--- Whether any route may lead somewhere, by the two addresses alone; else nil and why not.
---@param ctx p2pd.Context
---@return boolean?, string? reason
function M.promising(ctx)
  local reason = "the two have no address family in common"
  for name in pairs(FAMILIES) do
    local own, peer = facts.named(ctx.own, name), facts.named(ctx.peer, name)
    if own and peer then
      local tactic, why = facts.tactic(own, peer)
      if tactic then return true end
      reason = why
    end
  end
  return nil, reason
end

-- Leaves in the report what was foreseen, and what came of it.
local function tell(ctx, burst)
  local seen, plan = burst.puncher:seen(), burst.plan
  ctx:note(("%s try %d"):format(burst.name, burst.try), {
    tactic = plan.tactic, ours = table.concat(burst.ours, " ", 1, math.min(#burst.ours, SHOWN)),
    theirs = table.concat(burst.theirs, " ", 1, math.min(#burst.theirs, SHOWN)), sent = seen.sent,
    refused = seen.refused, unreachable = seen.unreachable, connected = seen.connected, accepted = seen.accepted,
  })
end

-- The attempt ---------------------------------------------------------------------------------------------------------

--- An attempt: asks for the facts of our routers. `message` is the request of the side that is answered.
---@param ctx p2pd.Context
---@param message? table
---@return table? punch, string? message, string? code
function M.new(ctx, message)
  local self = setmetatable({
    ctx = ctx, asked = message ~= nil, routes = {}, try = 0, events = task.channel(32), updates = {}, bursts = {},
    share = 1,
  }, punch)
  if message and type(message.routes) ~= "table" then
    return nil, "EINVAL: the request names no routes", "EINVAL"
  end
  self:listen()
  local why, code = "EADDRNOTAVAIL: the two have no address family in common", "EADDRNOTAVAIL"
  local looking = {}
  for name, family in pairs(FAMILIES) do
    if #ctx.own[name] > 0 and #ctx.peer[name] > 0 then
      looking[name] = ctx:spawn(function() return table.pack(ctx:facts(family)) end)
    end
  end
  for name, one in pairs(looking) do
    local known, wrong, what = table.unpack(one:wait(), 1, 3)
    if known then
      self.routes[name] = { name = name, family = FAMILIES[name], facts = known }
    else
      why, code = wrong, what
    end
  end
  if not next(self.routes) then return nil, why, code end
  return self
end

local function failed(self, route, message, code)
  route.reason, route.code = message, code
  self.events:send { failed = true }
end

-- Hears what the peer says besides requests and replies: that it tries anew, ports that it foresees, or that it cannot
-- go on by a route.
function punch:listen()
  self.ctx:spawn(function()
    while true do
      local message = self.ctx:receive()
      if not message then return end
      local route = self.routes[message.route]
      if self.asked and type(message.routes) == "table" then
        self.events:send { message = message }
      elseif route and message.exact == true and math.tointeger(message.try) == self.try then
        self:aim_again(route, message)
      elseif self.asked and route and type(message.ports) == "table" then
        local try = math.tointeger(message.try) -- it may be told sooner than the try begins here
        local told = (try == self.try or try == self.try + 1) and self:update(message.route, try)
        if told and #told == 0 then told:send(message.ports) end
      elseif route and message.missed == true and math.tointeger(message.try) == self.try then
        self.events:send { missed = self.try }
      elseif route and type(message.failed) == "string" and math.tointeger(message.try) == self.try then
        failed(self, route, "EUNREACHABLE: the peer cannot go on: " .. message.failed, "EUNREACHABLE")
      end
    end
  end)
end

-- Our part of a route is over: the other side need not wait for it.
function punch:give_up(route, message, code)
  self.ctx:send { route = route.name, try = self.try, failed = (message:gsub("^E%w+: ", "")) }
  failed(self, route, message, code)
end

-- Where the ports that the peer foresees for this try arrive.
function punch:update(name, try)
  local key = ("%s %d"):format(name, try)
  if not self.updates[key] then self.updates[key] = task.channel(1) end
  return self.updates[key]
end

--- Makes our ports ready, of all routes at once: a hold, or samples. What the try before has opened may still come
--- through; what is older is closed.
---@param try integer
function punch:prepare(try)
  self.try = math.tointeger(try) or 1
  for _, burst in ipairs(self.bursts) do
    if burst.try < self.try - 1 then burst.puncher:close() end
  end
  for _, route in pairs(self.routes) do
    route.own = { locals = {}, ports = {} }
    for key, value in pairs(route.facts) do route.own[key] = value end
    route.ready = self.ctx:spawn(self.make_ready, self, route, route.own)
  end
end

function punch:make_ready(route, own)
  local ctx = self.ctx
  if facts.is_kept(own) then
    local hold, message, code = ctx:hold(route.family)
    if not hold then return nil, message, code end
    own.locals, own.ports, own.ip = { hold.local_port }, { hold.external_port }, hold.external_ip
    return true
  end
  if not facts.is_foreseen(own) then return true end
  local tactic, needs = facts.tactic(own, route.peer or facts.named(ctx.peer, route.name))
  -- The side that is asked looks when it is asked: the fresher both looks are, the likelier they hold.
  if tactic == "cross" and not self.asked and self.try > 1 then ctx:sleep(ctx:signal_time()) end
  local samples, message, code = ctx:sample(route.family, { count = tactic and needs.own_samples or SAMPLES })
  if not samples then return nil, message, code end
  if route.samples then route.samples:close() end
  route.samples = samples
  local foreseen
  foreseen, message, code = plans.predict {
    nat = own.nat, delta = own.delta, value = own.value, first = own.first, last = own.last, samples = samples,
    count = tactic and needs.own_ports or FORESEEN,
  }
  if not foreseen then return nil, message, code end
  own.locals, own.ports = foreseen.locals, foreseen.ports
  -- Who asked tells them at once: the request has gone without them.
  if not self.asked then ctx:send { route = route.name, try = self.try, ports = own.ports } end
  return true
end

--- What we tell the peer of each route. Ports that are to be foreseen follow when they are, unless `complete`.
---@param complete? boolean
---@return table<string, table>
function punch:offer(complete)
  local routes = {}
  for name, route in pairs(self.routes) do
    if not route.reason then
      local own = route.own
      local ready, message, code = true, nil, nil
      if complete or not facts.is_foreseen(own) then ready, message, code = route.ready:wait() end
      if ready then
        routes[name] = {
          ip = own.ip, nat = own.nat, delta = own.delta, value = own.value, first = own.first, last = own.last,
          ports = (complete or not facts.is_foreseen(own)) and own.ports or nil,
        }
      else
        route.reason, route.code = message, code
      end
    end
  end
  return routes
end

-- Compares what both sides say; returns why none of the routes leads anywhere, if so.
function punch:compare(said)
  local possible, message, code = false, "EUNREACHABLE: the peer names no route that this node has", "EUNREACHABLE"
  for name, route in pairs(self.routes) do
    local peer = facts.read(type(said) == "table" and said[name])
    route.tactic = nil
    if peer and not route.reason then
      local tactic, why = facts.tactic(route.own, peer)
      route.peer, route.tactic = peer, tactic
      route.reason = not tactic and ("EUNREACHABLE: " .. why) or nil
      self.ctx:note(name, { own = facts.words(route.own), peer = facts.words(peer), tactic = tactic or why })
    end
    possible = possible or route.tactic ~= nil and not route.reason
    if route.reason then message, code = route.reason, route.code or "EUNREACHABLE" end
  end
  if not possible then return message, code end
end

-- The burst -----------------------------------------------------------------------------------------------------------

-- What the last message tells of how other flows fare while this node sprays.
function punch:feel(age)
  if type(age) ~= "number" then return end
  self.first_age = self.first_age or age
  self.share = facts.share(self.share, self.first_age, age)
end

-- What this try fires by the route, as far as both sides' ports are known.
function punch:plan(route)
  local plan, message, code = plans.plan {
    own = route.own, peer = route.peer, role = self.ctx.role, try = self.try, seed = math.random(0),
    rtt_ms = 2000 * self.ctx:signal_time(),
    budget = { sockets = math.ceil(SOCKETS * self.share), sprays = math.ceil(SPRAYS * self.share) },
  }
  if plan then plan.revive.times = math.min(plan.revive.times, MOST_REVIVED) end
  return plan, message, code
end

local function fire_at(puncher, plan, at)
  return puncher:fire(plan.shots, { at = at, revive = plan.revive.times, revive_gap_ms = plan.revive.gap_ms })
end

-- Opens the way of one route: our ports are ready, and the peer's are known.
function punch:fire(route, at)
  local ctx, own, peer, try = self.ctx, route.own, route.peer, self.try
  local plan, message, code = self:plan(route)
  if not plan then return nil, message, code end
  local puncher
  puncher, message, code = ctx:puncher {
    ip = peer.ip, local_ip = own.local_ip, syns = math.max(1, #plan.shots * (1 + plan.revive.times)),
    name = ("%s try %d"):format(route.name, try),
  }
  if not puncher then return nil, message, code end
  for _, port in ipairs(plan.listen) do
    local listening
    listening, message, code = puncher:listen(port)
    if not listening then return nil, message, code end
  end
  local fired
  fired, message, code = fire_at(puncher, plan, at)
  if not fired then return nil, message, code end
  ctx:spawn(function()
    local pipe = puncher:pipe()
    if pipe then self.events:send { pipe = pipe } end
  end)
  route.puncher = puncher
  local began = math.max(at or 0, ctx:now())
  if facts.is_chain(own) then
    ctx:spawn(self.look_behind, self, route, own, plan, began)
  elseif route.samples then
    ctx:spawn(self.let_others, self, route, plan, began)
  end
  self.bursts[#self.bursts + 1] = {
    name = route.name, try = try, plan = plan, puncher = puncher, ours = own.ports, theirs = peer.ports,
  }
  route.until_s = began + plan.wait_ms / 1000
  return true
end

-- Waits until the last SYN of a burst has left.
local function wait_for_last(ctx, plan, at)
  ctx:sleep(math.max(0, at + plan.shots[#plan.shots].at_ms / 1000 + BEHIND - ctx:now()))
end

-- Our SYNs have left: other punches of this node may take ports.
function punch:let_others(route, plan, at)
  local samples = route.samples
  wait_for_last(self.ctx, plan, at)
  samples:close()
end

-- A chain that a foreign flow has broken gave our SYNs other ports than were told. A look behind them tells: the peer
-- hears of the true ones and aims again; where that does not help, it hears that the next try may begin.
function punch:look_behind(route, own, plan, at)
  local ctx, list, try = self.ctx, {}, self.try
  local last = plan.shots[#plan.shots]
  for i, entry in ipairs(route.samples) do list[i] = entry end
  for _, shot in ipairs(plan.shots) do list[#list + 1] = { shot.local_port, 0 } end
  wait_for_last(ctx, plan, at)
  local look = ctx:sample(route.family, { count = 1, local_port = last.local_port + 1 })
  if not look then return end
  look:close()
  route.samples:close()
  list[#list + 1] = look[1]
  local seen, unknown = plans.between {
    nat = own.nat, delta = own.delta, value = own.value, first = own.first, last = own.last, list = list,
  }
  if not seen or try ~= self.try then return end
  local ports, same = {}, unknown == 0
  for i = 1, #plan.shots do
    ports[i] = seen[#seen - 1 - #plan.shots + i].external_port
    same = same and ports[i] == own.ports[i]
  end
  if same then return end
  if unknown == 0 and not facts.is_chain(route.peer) then
    ctx:send { route = route.name, try = try, ports = ports, exact = true }
  else
    ctx:send { route = route.name, try = try, missed = true }
    self.events:send { missed = try }
  end
end

-- The peer's SYNs have other ports than it has told before.
function punch:aim_again(route, message)
  local puncher, peer = route.puncher, route.peer
  local ports = facts.read_ports(message.ports)
  if not puncher or #ports == 0 then return end
  peer.ports, peer.exact = ports, true
  local plan = self:plan(route)
  if plan then fire_at(puncher, plan) end
end

--- The side that asked: it has the answer, and fires as soon as its own ports are ready, which the other side is told;
--- or at the time that the answer names.
---@param reply table
---@return string? message, string? code when there is no way
function punch:meet(reply)
  local message, code = self:compare(reply.routes)
  if message then return message, code end
  self:feel(reply.age)
  local wait = type(reply.at) == "number" and reply.at - self.ctx:clock() or 0
  local at = wait > 0 and wait < LONGEST_WAIT and self.ctx:now() + wait or nil
  for _, route in pairs(self.routes) do
    if route.tactic and not route.reason then
      self.ctx:spawn(function()
        local ready, why, what = route.ready:wait()
        if ready then ready, why, what = self:fire(route, at) end
        if not ready then self:give_up(route, why, what) end
      end)
    end
  end
end

-- Of which tactics the side that is asked fires before its answer has arrived: what it opens is to be open by then.
local function is_early(route)
  return route.tactic == "window" and facts.is_chain(route.own) or route.tactic == "call" and facts.is_kept(route.own)
end

--- The side that is asked: it answers when its own ports are ready, and fires when the answer has arrived, so that both
--- bursts leave at the same time.
---@param message table the request
---@return string? message, string? code when there is no way
function punch:answer(message)
  local why, code = self:compare(message.routes)
  if why then return why, code end
  self:feel(message.age)
  local routes = self:offer(true)
  if not next(routes) then
    for _, route in pairs(self.routes) do why, code = route.reason or why, route.code or code end
    return why, code
  end
  local try = self.try
  for name in pairs(routes) do
    local route = self.routes[name]
    if route.tactic and is_early(route) and #route.peer.ports > 0 then
      route.fired = try
      local fired, wrong, what = self:fire(route)
      if not fired then self:give_up(route, wrong, what) end
    end
  end
  local way = self.ctx:signal_time()
  local clock = self.ctx:clock()
  local agreed = way > SLOW and math.ceil((clock + 1.5 * way) / BUCKET) * BUCKET or nil
  self.ctx:reply(message, { try = try, routes = routes, at = agreed })
  local at = self.ctx:now() + (agreed and agreed - clock or way)
  for name in pairs(routes) do
    local route = self.routes[name]
    if route.tactic and route.fired ~= try then
      self.ctx:spawn(function()
        if facts.is_foreseen(route.peer) and #route.peer.ports == 0 then
          local ports = self:update(name, try):recv(SILENCE)
          if not ports then return end
          route.peer.ports = facts.read_ports(ports)
        end
        local fired, wrong, what = self:fire(route, at)
        if not fired then self:give_up(route, wrong, what) end
      end)
    end
  end
end

-- Waiting -------------------------------------------------------------------------------------------------------------

--- How long a try is given before the next one.
---@param try integer
---@return number seconds
function punch:patience(try)
  return (LEAST_PATIENCE + SIGNAL_TIMES * self.ctx:signal_time()) * GROWTH ^ (try - 1)
end

-- Whether something may still come of this try.
function punch:is_alive()
  for _, route in pairs(self.routes) do
    if route.tactic and not route.reason then return true end
  end
  return false
end

-- When nothing will come of the bursts that are out.
local function over_at(self, at_least)
  local at = at_least
  for _, route in pairs(self.routes) do at = math.max(at, route.until_s or 0) end
  return at
end

local function next_event(self, timeout, wanted)
  local deadline = task.now() + timeout
  while true do
    local event = self.events:recv(math.max(0, over_at(self, deadline) - task.now()))
    if not event or event[wanted] or event.pipe then return event end
    if event.missed == self.try and wanted == "pipe" then return event end
    if event.failed and not self:is_alive() then return nil end
  end
end

--- The pipe, when it comes within this time; else whether it is known that none will.
---@param timeout number seconds
---@return any? pipe, boolean? missed
function punch:pipe(timeout)
  local event = next_event(self, timeout, "pipe") or {}
  return event.pipe, event.missed ~= nil
end

--- The pipe, or the peer's next request when it tries anew.
---@return any? pipe, table? message
function punch:pipe_or_message()
  local event = next_event(self, SILENCE, "message")
  return event and event.pipe, event and event.message
end

--- Why it did not work, as a failure.
function punch:failure()
  for _, route in pairs(self.routes) do
    if route.reason then return nil, route.reason, route.code or "EUNREACHABLE" end
  end
  local sent, refused, unreachable = 0, 0, 0
  for _, burst in ipairs(self.bursts) do
    local seen = burst.puncher:seen()
    sent, refused, unreachable = sent + seen.sent, refused + seen.refused, unreachable + seen.unreachable
  end
  local answers = refused > 0 and refused .. " refused" or unreachable > 0 and unreachable .. " unreachable"
    or "no answer"
  return nil, ("ETIMEDOUT: nothing came through in %d tries (%d SYNs, %s)"):format(self.try, sent, answers), "ETIMEDOUT"
end

--- However it ends, the report gets what was seen.
function punch:__close()
  for _, burst in ipairs(self.bursts) do tell(self.ctx, burst) end
end

return M
