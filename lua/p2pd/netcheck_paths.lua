-- netcheck_paths: how p2pd.netcheck finds out what is between an interface and the world. Each function is a part of a
-- check: it fills in its entry, and returns something true, or nil, message and code.
local core = require "p2pd.core"
local outside = require "p2pd.outside"
local task = require "p2pd.task"

local M = {}

-- Seconds.
local OTHERS = 0.1       -- for which the NAT's test waits for more servers, once one has answered
local BY_THIS_CARD = 1   -- for an answer by an interface that has no default route
local PORTMAP = 3
local PORTMAP_LATER = 0.04 -- so that the start of its process does not hold up the answers of servers nearby

local NAT_SERVERS = 4 -- that a NAT is tested with
local HOPS = { 2, 3 } -- at which another router could stand

local function milliseconds(seconds)
  return math.floor(seconds * 1e4 + 0.5) / 10
end

-- The STUN servers that speak, as many as a NAT is tested with. A moment after the first answer: others may come too,
-- and how fast servers answer is not to be measured amid the many packets of a NAT's test.
local function speaking_servers(self, family)
  local speaking = self.speaking[family]
  while true do
    local asking = false
    for _, part in ipairs(self.stun_parts) do asking = asking or not part.done end
    local limit = speaking.since and speaking.since + OTHERS or asking and self.answer_by or 0
    if limit <= task.now() then break end
    self.changed:wait(limit - task.now())
  end
  return table.move(speaking, 1, math.min(#speaking, NAT_SERVERS), 1, {})
end

local function nat_of(found)
  if not found then return nil end
  local copy = {}
  for _, key in ipairs { "nat", "delta", "value", "range", "mapping", "filtering", "confidence", "type_confidence",
    "delta_confidence", "liar" } do
    local value = found[key]
    copy[key] = math.type(value) == "float" and math.floor(value * 1000 + 0.5) / 1000 or value
  end
  return copy
end

-- An interface without a default route may have a way out by rules that the list of routes does not show.
local function leads_out(address, servers)
  if #servers > 0 then
    local stun = require "p2pd.stun"
    local found, message, code = stun.external {
      servers = servers, ip = address.ip, device = address.name, timeout = BY_THIS_CARD,
    }
    if found then return true end
    if code ~= "ETIMEDOUT" and code ~= "ENETUNREACH" then return nil, message, code end
  end
  return nil, "ENETUNREACH: no default route leads out by this interface", "ENETUNREACH"
end

--- What is in front of an address.
function M.survey(self, entry, address)
  local nat = require "p2pd.nat"
  local servers = speaking_servers(self, address.family)
  if not address.metric then
    local ok, message, code = leads_out(address, #servers > 0 and servers or self.named[address.family])
    if not ok then return nil, message, code end
  end
  if #self.named[address.family] == 0 then
    return nil, ("ENOENT: no STUN server with an IPv%d address is known"):format(address.family), "ENOENT"
  elseif #servers == 0 then
    return nil, "ETIMEDOUT: no STUN server answers", "ETIMEDOUT"
  end
  local strangers = outside.new(self.settings.turn)
  local found, message, code = nat.survey {
    ip = address.ip, servers = servers,
    turn = strangers and function() return strangers:lets_in(address.ip, servers) end,
  }
  if not found then return nil, message, code end
  entry.udp, entry.tcp = nat_of(found.udp), nat_of(found.tcp)
  entry.external = found.udp and found.udp.external or found.tcp and found.tcp.external
  return true
end

--- What its router maps.
function M.portmap(_, entry, address)
  local gateway = address.gateway
  if gateway:find "^fe80:" and not gateway:find("%", 1, true) then gateway = gateway .. "%" .. address.name end
  local probe = require "p2pd.portmap".probe
  task.sleep(PORTMAP_LATER)
  local offer, message, code = probe { gateway = gateway, internal_ip = address.ip, timeout = PORTMAP }
  if not offer then return nil, message, code end
  local parts = {}
  for _, method in ipairs { "nat_pmp", "upnp", "pinhole" } do
    local way = offer[method]
    if way then
      entry.method = entry.method or method:gsub("_", "-")
      entry.external, entry.router = entry.external or way.external_ip, entry.router or way.router
      entry[method] = { external = way.external_ip, router = way.router, ms = milliseconds(way.time) }
    elseif offer.failures[method] then
      entry[method .. "_failure"] = offer.failures[method]
      local title = method == "nat_pmp" and "NAT-PMP" or "UPnP"
      parts[#parts + 1] = ("%s: %s"):format(title, (offer.failures[method]:gsub("^E%w+: ", "")))
    end
  end
  if entry.method then return true end
  return nil, "ENOTSUP: " .. table.concat(parts, "; "), "ENOTSUP"
end

--- The routers on the way behind the first, by ping(8) where it is installed: of those that cannot be seen otherwise.
function M.hops(self, entry, address)
  local process = require "p2pd.process"
  local ping = require "p2pd.program_path".which "ping"
  if not ping then return nil, "ENOENT: ping is not installed", "ENOENT" end
  local target = speaking_servers(self, 4)[1]
  if not target then return nil, "ENOENT: there is nothing to send to", "ENOENT" end
  local tasks <close> = task.group()
  entry.hops = {}
  for _, hop in ipairs(HOPS) do
    tasks:spawn(function()
      local child <close> = process.start {
        ping, "-n", "-c", "1", "-W", "1", "-t", tostring(hop), "-I", address.ip, target.ip, output = "text",
      }
      local ended = child and child:whole(self:left())
      local ip = ended and ended.out:match "\nFrom ([%d.]+)"
      if ip and core.address.ip(ip) then table.insert(entry.hops, ip) end
    end)
  end
  for _, one in ipairs(tasks) do one:wait() end
  return true
end

return M
