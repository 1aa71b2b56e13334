-- turn: TCP relays at TURN servers (RFC 8656, RFC 6062): `require "p2pd.turn"`.
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {
  methods = core.turn.methods, -- for spec/meta_spec.lua
}

local TIMEOUT = 5     -- seconds, unless the caller says otherwise
local PATIENCE = 0.25 -- seconds in which one server should answer, before one more is asked
local PROBE = 3       -- seconds for a connection to be made, or not

local common = { ip = "string", family = "number", timeout = "number", permit = "table" }

local function check(options, more, level)
  if type(options) ~= "table" then error("a table of options is expected, not a " .. type(options), level + 1) end
  for key, value in pairs(options) do
    local kind = common[key] or more[key]
    if not kind then error(("unknown option '%s'"):format(tostring(key)), level + 1) end
    if type(value) ~= kind then error(("'%s' is a %s, not a %s"):format(key, type(value), kind), level + 1) end
  end
  for key, ip in pairs { ip = options.ip, permit = options.permit } do
    for _, text in ipairs(type(ip) == "table" and ip or { ip }) do
      if type(text) ~= "string" or not core.address.ip(text) then
        error(("'%s' is no IP address"):format(key), level + 1)
      end
    end
  end
  if options.family and options.family ~= 4 and options.family ~= 6 then error("'family' is 4 or 6", level + 1) end
  if #(options.permit or {}) > 32 then error("'permit' is too long", level + 1) end
end

local TRANSPORTS = { udp = true, tcp = true, tls = true }

local function check_server(server, name, level)
  local port = type(server) == "table" and type(server.host) == "string" and math.tointeger(server.port)
  if not port or port < 1 or port > 65535 then
    error(("'%s' is no { host = …, port = …, user = …, password = … }"):format(name), level + 1)
  end
  if server.transport and not TRANSPORTS[server.transport] then
    error(("the transport of '%s' is one of udp, tcp, tls"):format(name), level + 1)
  end
end

-- The addresses of a server that can be connected to from `ip`, which may be nil.
local function resolve(server, ip, timeout)
  local list, message, code = core.dns.resolve(server.host, timeout)
  if not list then return nil, message, code end
  local family, found = ip and core.address.ip(ip).family, {}
  for _, address in ipairs(list) do
    if not family or core.address.ip(address).family == family then found[#found + 1] = address end
  end
  if #found > 0 then return found end
  return nil, ("EAI_NONAME: %s has no IPv%d address"):format(server.host, family), "EAI_NONAME"
end

-- Where only some can reach it, the relay is of no use to peers: the server's operator has not said which address it
-- has outside.
local function is_of_use(allocation)
  local server, relay = core.address.ip(allocation.server_ip).kind, core.address.ip(allocation.ip).kind
  return relay == "global" or relay == server
end

-- Those of the addresses that can come to the relay at all: a server that is asked for others as well refuses all.
local function can_come(list, server_ip, family)
  local found, local_too = {}, core.address.ip(server_ip).kind ~= "global"
  for _, text in ipairs(list or {}) do
    local ip = core.address.ip(text)
    if ip.family == family and (local_too or ip.kind == "global") then found[#found + 1] = text end
  end
  return found
end

local function allocate_at(server, ip, options, timeout)
  local allocation, message, code, number = core.turn.open {
    ip = ip, port = server.port, host = server.host, tls = server.transport == "tls", ca = server.ca,
    user = server.user, password = server.password, local_ip = options.ip, family = options.family,
    permit = can_come(options.permit, ip, options.family or 4), timeout = timeout,
  }
  if not allocation then return nil, message, code, number end
  if is_of_use(allocation) then return allocation end
  allocation:close()
  return nil, ("EADDRNOTAVAIL: TURN server %s relays at %s only, which peers elsewhere cannot reach: its operator has "
    .. "to name its external address"):format(allocation.server, allocation.ip), "EADDRNOTAVAIL"
end

-- Calls the functions one after another, the next whenever one fails or is slow: the first allocation wins, and those
-- that come after it are closed. When none does: the first failure, but rather one for which a server has a reason.
local function first_of(functions)
  local won, taken, failure, started, ended = nil, false, nil, 0, 0
  local _ <close> = setmetatable({}, { __close = function()
    if won and not taken then won:close() end
  end })
  local tasks <close> = task.group()
  local changed = task.condition()
  local function start()
    started = started + 1
    local f = functions[started]
    tasks:spawn(function()
      local result = table.pack(pcall(f))
      if result[2] and result[1] and not won then
        won = result[2]
      elseif result[2] and result[1] then
        result[2]:close()
      elseif not failure or not result[1] or result[5] and not failure[5] then
        failure = result
      end
      ended = ended + 1
      changed:signal()
    end)
  end
  while not won and ended < #functions do
    if started == #functions then
      changed:wait()
    else
      if ended < started then changed:wait(PATIENCE) end
      if not won then start() end
    end
  end
  taken = won ~= nil
  if won then return won end
  if not failure[1] then error(failure[2], 0) end
  return table.unpack(failure, 2, failure.n)
end

local function allocate(server, options)
  local deadline = task.now() + (options.timeout or TIMEOUT)
  if not server.user or not server.password then
    return nil, ("EACCES: TURN server %s has no user and password in the settings"):format(server.host), "EACCES"
  end
  local ips, message, code = resolve(server, options.ip, deadline - task.now())
  if not ips then return nil, message, code end
  local ways = {}
  for i, ip in ipairs(ips) do
    ways[i] = function() return allocate_at(server, ip, options, math.max(0, deadline - task.now())) end
  end
  return first_of(ways)
end

--- A relay at this server.
function M.allocate(options)
  check(options, { server = "table" }, 2)
  check_server(options.server, "server", 2)
  return allocate(options.server, options)
end

-- TCP relays are asked for by TCP, whichever way the settings name for datagrams: one server may be there twice.
local function differ(servers)
  local list, seen = {}, {}
  for _, server in ipairs(servers) do
    local key = table.concat({
      server.host, server.port, server.transport == "tls" and "tls" or "tcp", server.user or "", server.password or "",
    }, "\0")
    if not seen[key] then list[#list + 1] = server end
    seen[key] = true
  end
  return list
end

--- A relay at the first of several servers that gives one.
function M.race(options)
  check(options, { servers = "table" }, 2)
  if not options.servers then error("'servers' is missing", 2) end
  for i, server in ipairs(options.servers) do check_server(server, ("servers[%d]"):format(i), 2) end
  local ways = {}
  for i, server in ipairs(differ(options.servers)) do
    ways[i] = function() return allocate(server, options) end
  end
  if #ways == 0 then return nil, "ENOTSUP: no TURN server is known", "ENOTSUP" end
  return first_of(ways)
end

--- Whether a connection from a relay at this server comes through to an external endpoint of ours.
function M.probe(server, ip, port, timeout)
  check_server(server, "server", 2)
  local kind = core.address.ip(ip)
  if not kind then error("'ip' is no IP address", 2) end
  local allocation <close>, message, code = allocate(server, { family = kind.family, permit = { ip } })
  if not allocation then return nil, message, code end
  local socket <close>, why, how = allocation:connect(ip, port, timeout or PROBE)
  if socket then return true end
  if how == "EHOSTUNREACH" or how == "ETIMEDOUT" then return false end
  return nil, why, how
end

return M
