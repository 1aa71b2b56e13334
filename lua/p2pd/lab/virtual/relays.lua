-- relays: TURN's TCP relays (RFC 6062) at a virtual server: an allocation takes three round trips, and who comes to it
-- is told of at once; the connection that takes a guest over takes two more.
local link = require "p2pd.lab.virtual.link"
local task = require "p2pd.task"
local world = require "p2pd.lab.virtual.world"

local M = {}

local FIRST_PORT = 49152 -- RFC 8656, 7.2
local MOST_GUESTS = 8

local allocation = {}
allocation.__index = allocation

local function permitted(self, ip)
  return self.allowed[ip] == true
end

-- Somebody has come: our side hears of it, and takes it over.
local function guest(self, one, remote)
  local trip = 2 * self.side.delay
  self.net:after(self.side.delay + 2 * trip, function()
    if not self.closed and #self.guests < MOST_GUESTS then self.guests:send { link = one, remote = remote } end
  end)
end

--- An allocation of a side's; waits until it is there.
---@param options { permit: string[]?, family: integer?, timeout: number? }
function M.allocate(net, side, options)
  local trips = 6 * side.delay
  if options.family == 6 then return nil, "EADDRNOTAVAIL: the TURN server has no IPv6 address", "EADDRNOTAVAIL" end
  task.sleep(math.min(trips, options.timeout or trips))
  if options.timeout and options.timeout < trips then
    return nil, "ETIMEDOUT: the TURN server does not answer", "ETIMEDOUT"
  end
  net.relays = net.relays or {}
  net.relay_port = (net.relay_port or FIRST_PORT - 1) + 1
  local self = setmetatable({
    net = net, side = side, ip = world.TURN, port = net.relay_port, server = "turn.virtual", allowed = {},
    guests = task.channel(MOST_GUESTS),
  }, allocation)
  self:allow(options.permit or {})
  net.relays[self.port] = self
  self.owner = {
    opened = function(socket)
      if self.closed or not permitted(self, socket.ip) then return net.server.host:drop(socket) end
      socket.link.way = socket.link.way + side.delay
      guest(self, socket.link, socket.remote)
    end,
  }
  net.server.host:listen(self.port, self.owner)
  return self
end

function allocation:allow(list)
  for _, ip in ipairs(list) do self.allowed[ip] = true end
end

function allocation:permit(...)
  task.sleep(2 * self.side.delay)
  self:allow { ... }
  return true
end

function allocation:wait(timeout)
  local socket, message, code = self.guests:recv(timeout)
  if socket then return socket end
  if self.closed then return nil, "ECLOSED: the relay was closed", "ECLOSED" end
  return nil, message, code
end

--- To another relay, or to a host.
function allocation:connect(ip, port, timeout)
  local net, trip = self.net, 2 * self.side.delay
  local to = ip == world.TURN and net.relays[port]
  if not to or to.closed or not permitted(to, self.ip) then
    task.sleep(timeout or 10)
    return nil, ("ETIMEDOUT: %s:%d does not answer the relay"):format(ip, port), "ETIMEDOUT"
  end
  task.sleep(trip / 2)
  local one = link.new(net, self.side.delay + to.side.delay)
  guest(to, one, ("%s:%d"):format(self.ip, self.port))
  task.sleep(trip / 2 + 2 * trip)
  return { link = one, remote = ("%s:%d"):format(ip, port) }
end

function allocation.failed()
  return nil
end

function allocation:close()
  if self.closed then return end
  self.closed = true
  self.net.relays[self.port] = nil
  self.net.server.host:leave(self.owner)
  self.guests:close()
end

return M
