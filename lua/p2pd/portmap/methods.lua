-- methods: the ways to have a port mapped. Each has three functions, a task's: `find(target, deadline)` tells what the
-- router offers, `map(target, found, want, deadline)` makes or renews a mapping, and `unmap(target, found, mapped,
-- deadline)` removes it. They fail as all that can fail does.
local location = require "p2pd.portmap.location"
local ssdp = require "p2pd.portmap.ssdp"
local task = require "p2pd.task"
local worker = require "p2pd.portmap.worker"

local M = {}

local SEARCH = 2       -- seconds: MX is 1, and the last question is sent after 0.75
local READ = 3         -- seconds that a description may take
local KNOWN = 1        -- the same, where the location is known from an earlier time
local ACT = 3          -- seconds that making a mapping may take
local NATPMP = 1.8     -- seconds: sent at 0, 0.25 and 0.75 (RFC 6886, 3.1)
local STRANGER = 0.3   -- seconds by which the router itself comes before others that answer
local PINHOLE_MAX = 86400 -- seconds (WANIPv6FirewallControl:1, 2.4.5)
local MORE_PORTS = 5   -- after the wanted one, where that is taken
local PORTS = { first = 20000, count = 40000 }

local function ask(request, seconds, deadline)
  return worker.ask(request, math.min(seconds, deadline - task.now()))
end

-- The sentence with what it is about, behind its code.
local function about(what, message, code)
  return nil, ("%s: %s: %s"):format(code, what, (message:gsub("^" .. code .. ": ", ""))), code
end

-- NAT-PMP ---------------------------------------------------------------------------------------------------------

local natpmp = { name = "nat-pmp", title = "NAT-PMP" }

local natpmp_sentences = {
  ECONNREFUSED = "nobody is there", ETIMEDOUT = "no answer", EACCES = "refused",
  EFORMAT = "what answers does not speak it", ENOTSUP = "another version, or not this",
  ENETDOWN = "the router has no public address: another one is in front of it, or it is offline",
  ENOBUFS = "the router has no port left",
}

local function ask_natpmp(request, target, deadline)
  request.gateway = target.gateway
  request.patience = math.max(0, math.min(NATPMP, deadline - task.now()))
  local answer, message, code = ask(request, 2 * NATPMP + 0.2, deadline)
  if answer then return answer end
  local known = natpmp_sentences[code]
  return nil, known and ("%s: %s"):format(code, known) or message, code
end

function natpmp.find(target, deadline)
  local found, message, code = ask_natpmp({ request = "natpmp_find" }, target, deadline)
  if not found then return nil, message, code end
  if not found.external_ip then return nil, "EFORMAT: the answer names no address", "EFORMAT" end
  return { external_ip = found.external_ip }
end

function natpmp.map(target, _, want, deadline)
  local mapped, message, code = ask_natpmp({
    request = "natpmp_map", protocol = want.protocol, internal_port = want.internal_port,
    external_port = want.external_port, lifetime = want.lifetime,
  }, target, deadline)
  if not mapped then return nil, message, code end
  if not mapped.external_port or not mapped.lifetime or mapped.lifetime == 0 then
    return nil, "EFORMAT: the answer names no port or no time", "EFORMAT"
  end
  return mapped
end

function natpmp.unmap(target, _, mapped, deadline)
  return ask_natpmp({
    request = "natpmp_unmap", protocol = mapped.protocol, internal_port = mapped.internal_port,
  }, target, deadline)
end

-- UPnP ------------------------------------------------------------------------------------------------------------

local upnp = { name = "upnp", title = "UPnP" }

local function describe(url, pinhole, deadline)
  local found, message, code = ask({ request = "upnp_find", location = url, pinhole = pinhole }, READ, deadline)
  if not found then return about(location.host(url) or "?", message, code) end
  if not found.service then
    return about(location.host(url), "EFORMAT: it names no service of its own to ask", "EFORMAT")
  end
  found.location = url
  return found
end

-- Asks whoever answers the search, side by side; the first that is a gateway wins. When the router itself answered and
-- is none, nobody else is waited for.
local function find_gateway(target, pinhole, deadline)
  local search <close>, message, code = ssdp.search(target.internal_ip, target.gateway)
  if not search then return nil, message, code end
  local tasks <close> = task.group()
  local changed, asking, searching, winner, refusal = task.condition(), 0, true, nil, nil
  tasks:spawn(function()
    for answer in function() return search:next(math.min(deadline, target.search_until)) end do
      asking = asking + 1
      tasks:spawn(function()
        if not answer.is_gateway then task.sleep(STRANGER) end
        local result = table.pack(describe(answer.location, pinhole, deadline))
        winner = winner or result[1]
        if not result[1] and (not refusal or answer.is_gateway) then refusal = result end
        searching = searching and (result[1] ~= nil or not answer.is_gateway)
        asking = asking - 1
        changed:signal()
      end)
    end
    searching = false
    changed:signal()
  end)
  while not winner and (searching or asking > 0) do changed:wait() end
  if winner then return winner end
  if refusal then return table.unpack(refusal, 1, 3) end
  return nil, "ETIMEDOUT: nobody answers", "ETIMEDOUT"
end

local function find(target, pinhole, deadline)
  if target.location then -- known from an earlier time
    local found = describe(target.location, pinhole, math.min(deadline, task.now() + KNOWN))
    if found then return found end
  end
  target.search_until = task.now() + SEARCH
  return find_gateway(target, pinhole, deadline)
end

function upnp.find(target, deadline)
  return find(target, false, deadline)
end

-- The ports to try in turn: always the same for one name, so that a node that starts anew comes upon its own.
local function ports(want)
  local list, hash = { want.external_port }, 2166136261 -- FNV-1a
  for byte in (want.name):gmatch "." do hash = (hash ~ byte:byte()) * 16777619 & 0xffffffff end
  for _ = 1, MORE_PORTS do
    hash = (hash * 1664525 + 1013904223) & 0xffffffff -- Knuth's linear congruence
    list[#list + 1] = PORTS.first + (hash >> 8) % PORTS.count
  end
  return list
end

function upnp.map(target, found, want, deadline)
  local mapped, message, code = ask({
    request = "upnp_map", service = found.service, protocol = want.protocol, ports = ports(want),
    internal_ip = target.internal_ip, internal_port = want.internal_port, name = want.name,
    lifetime = want.lifetime, first = want.first,
  }, ACT, deadline)
  if not mapped then return nil, message, code end
  if not mapped.external_port or not mapped.lifetime then
    return nil, "EFORMAT: the answer names no port or no time", "EFORMAT"
  end
  return mapped
end

-- Without the port, which is not known when the making was broken off, by the name.
function upnp.unmap(_, found, mapped, deadline)
  return ask({
    request = "upnp_unmap", service = found.service, protocol = mapped.protocol, name = mapped.name,
    internal_port = mapped.internal_port, external_port = mapped.external_port,
  }, ACT, deadline)
end

-- Pinholes in a router's IPv6 firewall ----------------------------------------------------------------------------

local pinhole = { name = "pinhole", title = "UPnP pinholes" }

function pinhole.find(target, deadline)
  return find(target, true, deadline)
end

function pinhole.map(target, found, want, deadline)
  local mapped, message, code = ask({
    request = "pinhole_map", service = found.service, protocol = want.protocol, internal_ip = target.internal_ip,
    internal_port = want.internal_port, lifetime = math.min(want.lifetime, PINHOLE_MAX), id = want.id,
  }, ACT, deadline)
  if not mapped then return nil, message, code end
  if not mapped.id or not mapped.lifetime then
    return nil, "EFORMAT: the answer names no pinhole", "EFORMAT"
  end
  mapped.external_ip, mapped.external_port = target.internal_ip, want.internal_port
  return mapped
end

function pinhole.unmap(_, found, mapped, deadline)
  if not mapped.id then return true end
  return ask({ request = "pinhole_unmap", service = found.service, id = mapped.id }, ACT, deadline)
end

M.by_name = { ["nat-pmp"] = natpmp, upnp = upnp, pinhole = pinhole }

--- The methods for addresses of a family, in the order in which their failures are told.
M.of_family = { ["4"] = { natpmp, upnp }, ["6"] = { pinhole } }

return M
