-- outside: whether strangers get in to an endpoint of ours: a TURN server of the settings relays a connection to it
-- (RFC 6062), so that it comes from an address to which nothing was sent.
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {}

-- Seconds.
local CONNECT = 1                 -- for the connection that makes our mapping
local KNOWN = 3                   -- for one to an endpoint that is known to be there
local RELAY = 1.5                 -- for a relay
local LEAST, ROUNDS, MOST = 0.2, 3, 1 -- for a test's connection, which takes 2 round trips
local AGAIN = 0.1                 -- until it is tried once more beside: a SYN may be lost

local outside = {}
outside.__index = outside

--- Nil when no TURN server of the settings can be used.
---@param turn p2pd.TurnServer[]?
function M.new(turn)
  local servers = {}
  for _, server in ipairs(turn or {}) do
    if server.user and server.password then servers[#servers + 1] = server end
  end
  return #servers > 0 and setmetatable({ servers = servers }, outside) or nil
end

--- Whether a connection from outside comes through to this endpoint: true or false by the first server that can tell,
--- nil when none can.
---@param ip string
---@param port integer
---@param timeout? number seconds for the connection
---@return boolean? comes_in, string? message, string? code
function outside:reach(ip, port, timeout)
  local turn = require "p2pd.turn"
  local comes_in, message, code
  for _, server in ipairs(self.servers) do
    comes_in, message, code = turn.probe(server, ip, port, timeout or KNOWN)
    if comes_in ~= nil then return comes_in end
  end
  return nil, message, code
end

-- A relay with an address of this family by the first server that gives one, by whatever family it is asked.
local function allocate(self, family)
  local turn = require "p2pd.turn"
  for _, server in ipairs(self.servers) do
    local allocation = turn.allocate { server = server, family = family, timeout = RELAY }
    if allocation then return allocation end
  end
end

-- Has a relay connect to a port of ours from which something went out to a STUN server at another address.
local function try(self, local_ip, servers)
  local relay <close> = allocate(self, core.address.ip(local_ip).family)
  local other
  for _, server in ipairs(relay and servers or {}) do
    if server.ip ~= relay.ip then other = other or server end
  end
  if not other or not core.punch then return nil end
  local stun = require "p2pd.stun"
  local connection <close> = stun.connect {
    ip = other.ip, port = other.port, local_ip = local_ip, timeout = CONNECT,
  }
  if not connection then return nil end
  local listener <close> = core.punch.open { remote_ip = relay.ip, local_ip = local_ip }
  if not listener or not listener:listen(connection.local_port) then return nil end
  if not relay:permit(connection.external_ip) then return nil end
  local guest <close>, _, code = relay:connect(connection.external_ip, connection.external_port,
    math.min(MOST, LEAST + ROUNDS * connection.rtt))
  if guest then return true end
  if code == "EHOSTUNREACH" or code == "ETIMEDOUT" then return false end
end

--- Whether strangers get in by a port of ours once something went out from it to somebody else; what p2pd.nat's `turn`
--- asks. It is tried twice, the second time a moment later: one connection that comes in is proof. Nil when it cannot
--- be tried, as when there is no STUN server at another address than the relay's.
---@param local_ip string
---@param servers { ip: string, port: integer }[] STUN servers
---@return boolean?
function outside:lets_in(local_ip, servers)
  local tasks <close> = task.group()
  for number = 1, 2 do
    tasks:spawn(function()
      if number == 2 then task.sleep(AGAIN) end
      return try(self, local_ip, servers)
    end)
  end
  local answer
  for _, one in ipairs(tasks) do
    local comes_in = one:wait()
    if comes_in then return true end
    if comes_in == false then answer = false end
  end
  return answer
end

return M
