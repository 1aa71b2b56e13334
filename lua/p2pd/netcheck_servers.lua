-- netcheck_servers: how p2pd.netcheck asks servers. Each function is a part of a check: it fills in its entry, and
-- returns something true, or nil, message and code.
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {}

local UDP_FIRST = 0.3 -- seconds until a STUN server is asked over TCP, too

local function milliseconds(seconds)
  return math.floor(seconds * 1e4 + 0.5) / 10
end

-- The first address of each family that this machine has.
local function addresses(self, host)
  local ips, message, code = core.dns.resolve(host, self:left())
  if not ips then return nil, message, code end
  local found, seen = {}, {}
  for _, ip in ipairs(ips) do
    local family = core.address.ip(ip).family
    if self.has[family] and not seen[family] then
      found[#found + 1], seen[family] = ip, true
    end
  end
  if #found > 0 then return found end
  return nil, "ESKIPPED: it has addresses of a family only that this machine has not", "ESKIPPED"
end

-- Asks by each of the host's addresses side by side: the first answer counts.
local function race(self, entry, ask)
  local ips, message, code = addresses(self, entry.host)
  if not ips then
    entry.skipped = code == "ESKIPPED" or nil
    return nil, message, code
  end
  local attempts = {}
  for i, ip in ipairs(ips) do
    attempts[i] = function()
      local began = task.now()
      local answer, why, how = ask(ip, began)
      if not answer then return nil, why, how end
      entry.ip = ip
      return answer
    end
  end
  return task.race(attempts)
end

-- Servers -------------------------------------------------------------------------------------------------------------

--- A broker. TCP, CONNECT and SUBSCRIBE are a round trip each; TLS 1.3 is one more.
function M.broker(self, entry)
  if not self.signal then return nil, self.no_signal, self.no_signal_code end
  local link, message, code = race(self, entry, function(ip, began)
    local up, why, how = self.signal:link {
      ip = ip, port = entry.port, host = entry.host, tls = entry.tls or false, ca = entry.ca, timeout = self:left(),
    }
    if not up then return nil, why, how end
    local seconds = task.now() - began
    entry.connect_ms, entry.rtt_ms = milliseconds(seconds), milliseconds(seconds / (entry.tls and 4 or 3))
    return up
  end)
  if link then link:close() end
  return link, message, code
end

local function own_address(self, ip)
  local bind = self.options.bind
  return bind and core.address.ip(bind).family == core.address.ip(ip).family and bind or nil
end

local function bind_by_udp(self, ip, port)
  local stun = require "p2pd.stun"
  return stun.lookup { ip = ip, port = port, local_ip = own_address(self, ip), timeout = self:left() }
end

local function bind_by_tcp(self, ip, port)
  local stun = require "p2pd.stun"
  local connection, message, code = stun.connect {
    ip = ip, port = port, local_ip = own_address(self, ip), timeout = self:left(),
  }
  if connection then connection:close() end
  return connection, message, code
end

-- Asks one server at one of its addresses, by UDP, and over TCP too when that stays silent.
local function stun_at(self, entry, ip)
  local why, how
  local transport, answer, message = task.race {
    function()
      local said
      said, why, how = bind_by_udp(self, ip, entry.port)
      return said and "udp", said
    end,
    function()
      task.sleep(UDP_FIRST)
      local said, no, code_of_no = bind_by_tcp(self, ip, entry.port)
      if said then return "tcp", said end
      return nil, no, code_of_no
    end,
  }
  if not transport then return nil, why or answer, how or message end
  local family = core.address.ip(ip).family
  local speaking = self.speaking[family]
  if not speaking[ip] then
    speaking[ip] = true
    speaking[#speaking + 1] = { ip = ip, port = entry.port }
    speaking.since = speaking.since or task.now()
  end
  if not entry.ip then
    entry.ip, entry.transport, entry.rtt_ms = ip, transport, milliseconds(answer.rtt)
    entry.external = answer.external_ip
  end
  self.changed:signal()
  return true
end

--- A STUN server, at its address of each family.
function M.stun(self, entry)
  local ips, message, code = addresses(self, entry.host)
  if not ips then
    entry.skipped = code == "ESKIPPED" or nil
    return nil, message, code
  end
  local tasks <close> = task.group()
  for _, ip in ipairs(ips) do
    local known = self.named[core.address.ip(ip).family]
    known[#known + 1] = { ip = ip, port = entry.port }
    tasks:spawn(function() return stun_at(self, entry, ip) end)
  end
  local ok = false
  for _, one in ipairs(tasks) do
    local answered, why, how = one:wait()
    ok, message, code = ok or answered, why or message, how or code
  end
  return ok, message, code
end

--- A relay: it has to give us one, by which peers could connect to us, as it would when two nodes meet there. TCP
--- relays are asked for over TCP, also where the settings name UDP.
function M.relay(self, entry, server)
  local ips, message, code = addresses(self, entry.host)
  if not ips then
    entry.skipped = code == "ESKIPPED" or nil
    return nil, message, code
  end
  local turn, began = require "p2pd.turn", task.now()
  local allocation <close>, why, how = turn.allocate {
    server = server, ip = own_address(self, ips[1]), timeout = self:left(),
  }
  if not allocation then return nil, why, how end
  local seconds = task.now() - began
  entry.checked, entry.ip, entry.relay = "relay", allocation.server_ip, allocation.ip
  entry.connect_ms = milliseconds(seconds)
  entry.rtt_ms = milliseconds(seconds / (server.transport == "tls" and 4 or 3))
  return true
end

--- The clock, by all servers of the settings.
function M.clock(self, entry)
  local measure = require "p2pd.clock".measure
  entry.servers = {}
  local reading, message, code = measure {
    servers = self.settings.ntp, clock_error = self.settings.clock_error, timeout = self:left(),
    on_server = function(server)
      table.insert(entry.servers, { host = server.host, port = server.port, ok = server.ok, message = server.message,
        code = server.code, rtt_ms = server.rtt and milliseconds(server.rtt) })
      if server.ok then self.udp_passes[core.address.ip(server.ip).family] = true end
    end,
  }
  if not reading then return nil, message, code end
  entry.offset_ms, entry.error_ms = milliseconds(reading.offset), milliseconds(reading.error)
  entry.agreeing, entry.servers = reading.agreeing, {}
  for place, server in ipairs(reading.servers) do
    entry.servers[place] = {
      host = server.host, port = server.port, ok = server.ok, message = server.message, code = server.code,
      rtt_ms = server.rtt and milliseconds(server.rtt), agrees = server.agrees,
      offset_ms = server.offset and milliseconds(server.offset),
    }
  end
  return true
end

return M
