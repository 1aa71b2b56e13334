-- punching: what a ctx has for passing two routers at once: what our router does (facts), ports whose mapping is known
-- (holds, samples), and the burst itself (punchers).
local candidates = require "p2pd.candidates"
local checks = require "p2pd.context.checks"
local scope_module = require "p2pd.scope"
local task = require "p2pd.task"

local methods = {}

local FACTS_TIMEOUT, PORT_TIMEOUT = 2, 2 -- seconds
local SECURE_TIMEOUT = 5                 -- seconds for the proof of both keys; what loses goes sooner
local USUAL_BURST = 64                   -- SYNs of a puncher, unless a strategy wants more
local FEW = 8                            -- SYNs to an address that is not in the peer's
local MOST_AT_ONCE = 8                   -- connections that are proven side by side

-- Calls what the node provides; whoever made this ctx without it gets told so.
local function ask(scope, name, ...)
  local means = scope.root.means[name]
  if not means then return nil, ("ENOTSUP: this node has no %s"):format(name), "ENOTSUP" end
  return means(...)
end

local function check_family(family, level)
  if family ~= 4 and family ~= 6 then error("an address family is 4 or 6", level + 1) end
end

--- What our router does to TCP of this family, as far as it is known by now; waits while it is being examined.
---@param family 4|6
---@return p2pd.Facts? facts, string? message, string? code
function methods:facts(family)
  local scope = checks.working_scope(self, 2)
  check_family(family, 2)
  if scope.closed then return scope_module.refuse_closed() end
  return ask(scope, "facts", family, checks.within(scope, FACTS_TIMEOUT))
end

--- A local port whose external port is known, and stays the same while this strategy has it.
---@param family 4|6
---@return p2pd.Hold? hold, string? message, string? code
function methods:hold(family)
  local scope = checks.working_scope(self, 2)
  check_family(family, 2)
  if scope.closed then return scope_module.refuse_closed() end
  return scope:take(ask(scope, "hold", family, checks.within(scope, PORT_TIMEOUT)))
end

--- Looks which external ports our router gives to new local ports in a row, just now.
---@param family 4|6
---@param options? { count?: integer, local_port?: integer } how many; the first of them, any unless given
---@return p2pd.Samples? samples, string? message, string? code
function methods:sample(family, options)
  local scope = checks.working_scope(self, 2)
  check_family(family, 2)
  options = options or {}
  checks.options(options, { count = "number", local_port = "number" }, 2)
  if scope.closed then return scope_module.refuse_closed() end
  return scope:take(ask(scope, "sample", family, {
    count = options.count, local_port = options.local_port, timeout = checks.within(scope, PORT_TIMEOUT),
  }))
end

local puncher = {}
puncher.__index = puncher
puncher.__name = "p2pd.puncher"

--- Listens on a local port, for the peer's address alone.
function puncher:listen(port)
  return self.core:listen(port)
end

--- Sends a burst of SYNs, at a time of ctx:now().
---@param shots p2pd.Shot[]
---@param options? { at?: number, revive?: integer, revive_gap_ms?: number }
function puncher:fire(shots, options)
  return self.core:fire(shots, options)
end

--- What was sent and what came back.
function puncher:seen()
  return self.core:seen()
end

--- Waits for a connection on which the peer has proven its key. Each one that opens is looked at by a task of its own:
--- a stranger's does not hold up the peer's.
---@param timeout? number seconds
---@return any? pipe, string? message, string? code
function puncher:pipe(timeout)
  checks.seconds(timeout, 2)
  local scope = self.scope
  local deadline = task.now() + (checks.within(scope, timeout) or math.huge)
  local outcomes, room = task.channel(MOST_AT_ONCE), task.channel(MOST_AT_ONCE)
  local tasks <close> = task.group()
  tasks:spawn(function()
    while true do
      room:send(true)
      local socket, message, code = self.core:wait()
      if not socket then return outcomes:send { message = message, code = code, over = true } end
      tasks:spawn(function()
        local pipe, why, what = scope.root.means.adopt { socket = socket, timeout = SECURE_TIMEOUT }
        outcomes:send { pipe = pipe, message = why, code = what }
        room:recv()
      end)
    end
  end)
  local failure
  while true do
    local outcome = outcomes:recv(math.max(0, deadline - task.now()))
    if not outcome then break end
    if outcome.pipe then
      self.proven = true
      return scope:take(outcome.pipe)
    end
    if outcome.over then return nil, outcome.message, outcome.code end
    failure = outcome
  end
  if failure then return nil, failure.message, failure.code end
  return nil, "ETIMEDOUT: no connection came through", "ETIMEDOUT"
end

--- Ends it: what was not handed out as a pipe is closed.
function puncher:close()
  self.scope:release(self)
  if self.granted then self.scope:spend("syns", math.min(0, self.core:seen().sent - self.granted)) end
  self.granted = nil
  self.core:close(self.proven)
  self.ended(self.proven or false)
end

puncher.__close = puncher.close

function puncher:__tostring()
  return "puncher for " .. self.ip
end

local puncher_options = { ip = "string", local_ip = "string", syns = "number", name = "string" }

local never_punched = { unspecified = true, multicast = true, broadcast = true }

--- Something that opens TCP connections to the peer's router and ours at once. In `respond` the address is one of the
--- peer's own.
---@param options { ip: string, local_ip?: string, syns?: integer, name?: string } where the peer is; how many SYNs at
--- most; what the report calls it
---@return p2pd.Puncher? puncher, string? message, string? code
function methods:puncher(options)
  local scope = checks.working_scope(self, 2)
  checks.options(options, puncher_options, 2)
  local ip = options.ip
  if not ip then error("option 'ip' is missing", 2) end
  if scope.closed then return scope_module.refuse_closed() end
  local kind = candidates.kind(ip)
  if not kind then return nil, "EINVAL: the peer names no IP address to meet at", "EINVAL" end
  -- Addresses of the Internet's that are the peer's, and others that would be dialed. Who connects believes its newest
  -- words, too, for a few SYNs.
  local own = kind == "global" and candidates.belongs(ip, self.peer)
  for _, candidate in ipairs((self:candidates())) do own = own or candidate.ip == ip end
  if never_punched[kind] or not own and not (self.role == "connect" and kind == "global") then
    return nil, ("EACCES: %s is not an address of the peer's that may be punched"):format(ip), "EACCES"
  end
  local syns = own and (options.syns or USUAL_BURST) or math.min(options.syns or FEW, FEW)
  local left, granted = scope:left "syns", nil
  if left <= 0 then return nil, "EBUDGET: the budget of SYNs is spent", "EBUDGET" end
  if left < math.huge then granted = math.min(syns, left) end
  local core, message, code = ask(scope, "puncher", {
    remote_ip = ip, local_ip = options.local_ip, syns = granted or syns,
  })
  if not core then return nil, message, code end
  if granted then scope:spend("syns", granted) end
  local ended = scope.root.report:burst(scope.node, ip, options.name, function()
    return core.seen and core:seen() -- means of a test's may have none
  end)
  return scope:take(setmetatable({
    core = core, scope = scope, ip = ip, ended = ended, granted = granted,
  }, puncher))
end

return methods
