-- world: means (lua/p2pd/context.lua) without a network, for specs of strategies in virtual time. It counts what is
-- open.
local context = require "p2pd.context"
local report = require "p2pd.report"
local task = require "p2pd.task"

local M = {}

local world = {}
world.__index = world

local pipe = {}
pipe.__index = pipe

function pipe:close()
  if self.closed then return end
  self.closed = true
  self.world.pipes[self] = nil
end

--- A pipe that counts as open until it is closed.
function world:pipe(remote)
  local new = setmetatable({ world = self, remote = remote, closed = false }, pipe)
  self.pipes[new] = true
  self.opened = self.opened + 1
  return new
end

--- How many pipes and arrivals are open.
function world:open_count()
  local count = 0
  for _ in pairs(self.pipes) do count = count + 1 end
  for _ in pairs(self.arrivals) do count = count + 1 end
  return count
end

local arrival = {}
arrival.__index = arrival

function arrival:wait(timeout)
  local remote, message, code = self.queue:recv(timeout)
  if not remote then return nil, message, code end
  return self.world:pipe(remote)
end

function arrival:close()
  self.world.arrivals[self] = nil
  self.queue:close()
end

--- What the strategies reach: dials are answered by `hosts["ip:port"] = { after = seconds, code = "E…" }` (without a
--- code they succeed; an address that is not listed never answers), requests by `on_request(fields, world)`.
---@param options? { hosts?: table, on_request?: function, prefixes?: table, loopback_only?: boolean }
function M.new(options)
  options = options or {}
  local self = setmetatable({
    hosts = options.hosts or {}, pipes = {}, arrivals = {}, dialed = {}, requests = {}, replies = {}, opened = 0,
  }, world)
  local means = {}
  function means.dial(how)
    local to = how.ip .. ":" .. how.port
    self.dialed[#self.dialed + 1] = { to = to, at = task.now(), role = how.role, token = how.token }
    local host = self.hosts[to] or { after = math.huge }
    if host.after > how.timeout then
      task.sleep(how.timeout)
      return nil, ("ETIMEDOUT: %s does not answer"):format(to), "ETIMEDOUT"
    end
    task.sleep(host.after)
    if host.code then return nil, ("%s: %s refuses"):format(host.code, to), host.code end
    return self:pipe(to)
  end
  function means.expect(token)
    local expected = setmetatable({ world = self, token = token, queue = task.channel(8) }, arrival)
    self.arrivals[expected] = true
    return expected
  end
  function means.send(fields)
    self.requests[#self.requests + 1] = fields
    return true
  end
  function means.request(fields, timeout)
    self.requests[#self.requests + 1] = fields
    if options.on_request then return options.on_request(fields, self) end
    task.sleep(timeout or math.huge)
    return nil, "ETIMEDOUT: no reply", "ETIMEDOUT"
  end
  function means.reply(message, fields)
    self.replies[#self.replies + 1] = { to = message, fields = fields, at = task.now() }
    return true
  end
  function means.converse()
    local inbox = task.channel(8)
    return {
      receive = function(_, timeout)
        local message = inbox:recv(timeout)
        if message then return message end
        return nil, "ETIMEDOUT: nothing was said", "ETIMEDOUT"
      end,
      close = function() inbox:close() end,
    }
  end
  function means.prefixes() return options.prefixes or {} end
  function means.loopback_only() return options.loopback_only or false end
  self.means = means
  return self
end

--- Lets a connection arrive for every token that is expected.
function world:arrive(remote)
  for expected in pairs(self.arrivals) do expected.queue:send(remote) end
end

--- A parsed address with one IPv4 interface; `fields` replaces parts of it.
function M.address(fields)
  fields = fields or {}
  local entry = {
    netiface_index = 1, if_index = 0, external = "8.8.8.8", internal = "192.168.1.5", port = 4000,
    nat = "port-restricted", delta = "random", delta_value = 0,
  }
  for key in pairs(entry) do
    if fields[key] ~= nil then entry[key] = fields[key] end
  end
  return {
    signal = fields.signal or { 0, 1 }, ipv4 = fields.ipv4 or { entry }, ipv6 = fields.ipv6 or {},
    node_id = fields.node_id or "node", machine_id = fields.machine_id or "machine",
  }
end

--- Where the peer of M.attempt answers, at its address.
---@return table world
function M.reachable()
  return M.new { hosts = { ["8.8.8.8:4000"] = { after = 0 } } }
end

--- An attempt on a world of its own, or on `world`.
---@param options? { world: table?, role: string?, deadline: number? }
---@return p2pd.Context ctx, table world, p2pd.Report report
function M.attempt(options)
  options = options or {}
  local here, own_report = options.world or M.new(), report.new()
  return context.new {
    peer = M.address { machine_id = "theirs" }, own = M.address { port = 5000, external = "9.9.9.9" },
    role = options.role or "connect", attempt = ("a"):rep(16), means = here.means, report = own_report,
    deadline = options.deadline,
  }, here, own_report
end

return M
