-- meeting: what a network (p2pd.network) says to who wants to be met at a port that is not mapped: what is in front of
-- the interface that leads out (facts), ports whose external ones are known (holds), and which come next (samples).
local holds = require "p2pd.holds"
local task = require "p2pd.task"

local M = {}

local FACTS = 1.6 -- seconds that a NAT's examination may take, for who waits for it
local HOLD = 3    -- seconds for a hold
local QUIET = 10  -- seconds for which a sample that is not closed keeps an examination from beginning
local ALONE = 0.4 -- seconds for which it keeps another sample from being taken: each would break the other's prediction

-- What is assumed of a router that was not examined.
local UNKNOWN = { nat = "port-restricted", delta = "random", value = 0 }
local PORTS = { first = 1024, last = 65535 }
local UNTRANSLATED = { open = true, ["udp-firewall"] = true }

-- The interface that leads out: that of the default route, if there is one.
local function main(self, family)
  local best
  for _, entry in ipairs(self[family == 4 and "ipv4" or "ipv6"]) do
    for _, one in pairs(self.known) do
      local usable = one.entry == entry and (one.outside or self.loopback_only)
      if usable and (not best or one.address.default and not best.address.default) then best = one end
    end
  end
  if best then return best end
  return nil, ("ENETUNREACH: no interface has an IPv%d address that leads out"):format(family), "ENETUNREACH"
end

-- Waits until the condition holds for the interface that leads out.
local function await(self, family, deadline, holds_for)
  while true do
    local one, message, code = main(self, family)
    if not one then return nil, message, code end
    local left = deadline - task.now()
    if holds_for(one) or left <= 0 then return one end
    self.changed:wait(left)
  end
end

-- Whether its external address is another one. Where nobody has seen it, the kind of the address tells.
local function is_translated(one)
  local seen = one.seen or one.cached and one.cached.external
  if seen then return seen ~= one.address.ip end
  return one.address.family == 4 and (one.address.kind == "private" or one.address.kind == "shared")
end

local function facts_of(one)
  local known, translated = one.examined or one.cached, is_translated(one)
  local facts = {
    ip = one.seen or one.entry.external, local_ip = one.address.ip, translated = translated,
    first = PORTS.first, last = PORTS.last, confidence = 0,
  }
  if one.address.kind == "loopback" then
    facts.nat, facts.delta, facts.value, facts.confidence = "open", "na", 0, 1
  elseif known and (translated or UNTRANSLATED[known.nat] or known.nat == "blocked") then
    facts.nat, facts.delta, facts.value = known.nat, known.delta, known.delta_value
    facts.first, facts.last, facts.confidence = known.first, known.last, known.confidence
  elseif translated then
    facts.nat, facts.delta, facts.value = UNKNOWN.nat, UNKNOWN.delta, UNKNOWN.value
  else -- a firewall, to be on the safe side
    facts.nat, facts.delta, facts.value = "udp-firewall", "na", 0
  end
  return facts
end

local function is_settled(one) return one.settled or one.cached ~= nil end
local function is_ready(one) return one.ready end

local function check_family(family, level)
  if family ~= 4 and family ~= 6 then error("a family is 4 or 6", level + 1) end
end

--- What is in front of the interface that leads out, of TCP. Waits until that was examined; when the time is over
--- before, what the interface itself tells is given, with a confidence of 0.
---@param family integer 4 or 6
---@param timeout? number seconds
---@return p2pd.Facts? facts, string? message, p2pd.Code? code
function M.facts(self, family, timeout)
  check_family(family, 2)
  local one, message, code = await(self, family, task.now() + (timeout or FACTS), is_settled)
  if not one then return nil, message, code end
  return facts_of(one)
end

-- A hold is seen at another address than before: several servers say whether all are.
local function on_moved(self, local_ip)
  for _, one in pairs(self.known) do
    if one.address.ip == local_ip and one.again then one.again:signal() end
  end
end

local function holds_of(self)
  if not self.holds then
    self.holds = holds.new {
      keep = self.options.keep, -- seconds between two questions, for tests
      servers = function(family) return self.speakers:addresses(family) end,
      heard = function(server, over_tcp) self.speakers:heard(server, over_tcp) end,
      on_moved = function(local_ip) on_moved(self, local_ip) end,
    }
    if self.closed then self.holds:close() end
  end
  return self.holds
end

-- How holds are to be made there.
local function where_of(one)
  local known = one.examined or one.cached
  return {
    local_ip = one.address.ip, translated = one.address.kind ~= "loopback" and is_translated(one),
    equal = known and known.nat == "symmetric" and known.delta == "equal" or nil,
  }
end

-- Where each destination sees another port, or nobody gets in, a hold is of no use.
local function is_worth_keeping(one)
  local known = one.examined or one.cached
  return not known or known.nat ~= "blocked" and (known.nat ~= "symmetric" or known.delta == "equal")
end

--- From now on a hold is kept ready for each family where addresses are translated.
function M.warm_up(self)
  if not self.is_warm or #self.options.stun == 0 then return end
  for _, family in ipairs { 4, 6 } do
    local one = main(self, family)
    if one and one.ready and one.outside then
      local where = where_of(one)
      local keep_one = where.translated and is_worth_keeping(one)
      if keep_one then holds_of(self):warm(where) elseif self.holds then self.holds:cool(where.local_ip) end
    end
  end
end

--- A local port whose external one is known and stays what it is until the hold is closed: nobody else gets the same.
---@param family integer 4 or 6
---@param timeout? number seconds
---@return p2pd.Hold? hold, string? message, p2pd.Code? code
function M.hold(self, family, timeout)
  check_family(family, 2)
  local deadline = task.now() + (timeout or HOLD)
  local one, message, code = await(self, family, deadline, is_ready)
  if not one then return nil, message, code end
  local where = where_of(one)
  if where.translated and #self.options.stun == 0 then
    return nil, "ENOTSUP: without a STUN server the ports that a router gives cannot be known", "ENOTSUP"
  end
  return holds_of(self):take(where, deadline)
end

-- No examination begins until what is returned was called, or QUIET seconds are over. `alone`: nor is another such
-- sample taken, for ALONE seconds.
local function keep_quiet(self, alone)
  while alone and task.now() < self.alone_until do self.changed:wait(self.alone_until - task.now()) end
  local alone_until = alone and task.now() + ALONE
  self.alone_until = alone_until or self.alone_until
  self.quiet_until = math.max(self.quiet_until, task.now() + QUIET)
  self.samples = self.samples + 1
  return function()
    self.samples = self.samples - 1
    if alone_until == self.alone_until then self.alone_until = 0 end
    if self.samples == 0 then self.quiet_until = 0 end
    self.changed:signal()
  end
end

--- Which external ports new local ports get, just now: consecutive local ports, one to each of `count` STUN servers, in
--- the order of their SYNs. What got no answer has the external port 0. No examination begins until it is closed; nor
--- another sample from any port, for a while.
---@param family integer 4 or 6
---@param options? { count: integer?, local_port: integer?, timeout: number? }
---@return p2pd.Samples? sample, string? message, p2pd.Code? code
function M.sample(self, family, options)
  check_family(family, 2)
  local one, message, code = main(self, family)
  if not one then return nil, message, code end
  if #self.options.stun == 0 or not one.outside then
    return nil, "ENOTSUP: without a STUN server the ports that a router gives cannot be known", "ENOTSUP"
  end
  local done = keep_quiet(self, not (options or {}).local_port)
  local sample
  local _ <close> = setmetatable({}, { __close = function() if not sample then done() end end })
  sample, message, code = holds_of(self):sample(where_of(one), options or {})
  if not sample then return nil, message, code end
  sample.on_close = done
  return sample
end

return M
