-- child: the process in which routers are asked about port mappings. The calls of core.portmap block, and the libraries
-- below them read whatever a router sends: so this process has little memory, little time, and nothing else to do. It
-- gets one request, and prints one line of JSON.
local cjson = require "cjson"
local location = require "p2pd.portmap.location"
local calls = require("p2pd.core").portmap

local MEMORY = 8 << 20 -- bytes, beyond what the program has when it begins
local CPU_SECONDS = 2
local ENTRIES_MAX = 100 -- of a router's list, through which its own are looked for

-- Errors of UPnP (IGD 2.0: WANIPConnection:2, table 2-20; WANIPv6FirewallControl:1, 2.5) and, below zero, miniupnpc's.
local CONFLICT, SAME_PORTS, PERMANENT_ONLY, INVALID = 718, 724, 725, 402
local sentences = {
  [-3] = { "EIO", "it does not answer" },
  [-2] = { "EINVAL", "the question makes no sense" },
  [-1] = { "EFORMAT", "what it answers is not UPnP's" },
  [401] = { "ENOTSUP", "it does not know the action" },
  [INVALID] = { "EINVAL", "it does not like the arguments" },
  [501] = { "ENETDOWN", "it failed, as routers do that have no public address of their own" },
  [606] = { "EACCES", "it does not allow that" },
  [701] = { "ENOBUFS", "it has no room for another pinhole" },
  [702] = { "EACCES", "its firewall is off, or not to be changed" },
  [703] = { "EACCES", "it allows no pinholes" },
  [CONFLICT] = { "EADDRINUSE", "the ports are taken" },
  [728] = { "ENOBUFS", "it has no port left" },
  [729] = { "EADDRINUSE", "something else on it uses the ports" },
}

local function failure(number)
  local code, sentence = table.unpack(sentences[number] or { "EIO", "it refuses" })
  if number > 0 then sentence = ("%s (UPnP's error %d)"):format(sentence, number) end
  return nil, ("%s: %s"):format(code, sentence), code
end

local requests = {}

-- NAT-PMP -------------------------------------------------------------------------------------------------------------

function requests.natpmp_find(it)
  return calls.natpmp(it.gateway, it.patience)
end

function requests.natpmp_map(it)
  local mapped, message, code = calls.natpmp(it.gateway, it.patience, it.protocol, it.internal_port, it.external_port,
    it.lifetime)
  if not mapped then return nil, message, code end
  local public = calls.natpmp(it.gateway, it.patience)
  mapped.external_ip = public and public.external_ip
  return mapped
end

function requests.natpmp_unmap(it)
  return calls.natpmp(it.gateway, it.patience, it.protocol, it.internal_port, 0, 0)
end

-- UPnP ----------------------------------------------------------------------------------------------------------------

-- A description may name any machine: services are asked on the router alone.
local function at_home(it, service)
  return service and location.host(service.control) == location.host(it.location)
end

-- The service that is connected; where none says so, the first.
local function connected(it, services)
  for place = #services, 1, -1 do
    if not at_home(it, services[place]) then table.remove(services, place) end
  end
  for _, service in ipairs(services) do
    local status = calls.status(service.control, service.type)
    if status == "Connected" or status == "Up" then return service end
  end
  return services[1]
end

local description_sentences = {
  EFORMAT = "what it describes is no gateway", EMSGSIZE = "its description is too long",
  EIO = "it does not give its description",
}

function requests.upnp_find(it)
  local gateway, message, code = calls.gateway(it.location)
  if not gateway then
    local known = description_sentences[code]
    return nil, known and ("%s: %s"):format(code, known) or message, code
  end
  if it.pinhole then
    local firewall = gateway.firewall
    if not at_home(it, firewall) then return nil, "ENOTSUP: it makes no pinholes for IPv6", "ENOTSUP" end
    local enabled, allowed = calls.firewall(firewall.control, firewall.type)
    if enabled == nil then return failure(allowed) end
    if enabled and not allowed then return failure(703) end
    return { name = gateway.name, internal_ip = gateway.internal_ip, service = firewall }
  end
  local service = connected(it, gateway.services)
  if not service then return nil, "ENOTSUP: it describes no Internet connection of its own", "ENOTSUP" end
  local external_ip, number = calls.external_ip(service.control, service.type)
  if number == -1 or number == -3 then return failure(number) end -- no router, whatever it described
  return { name = gateway.name, internal_ip = gateway.internal_ip, service = service, external_ip = external_ip }
end

-- The router's entries with the name, of the protocol and internal port: they are this node's own.
local function own_entries(it)
  local found, service = {}, it.service
  for index = 0, ENTRIES_MAX - 1 do
    local entry = calls.entry(service.control, service.type, index)
    if not entry then break end
    if entry.name == it.name and entry.protocol:lower() == it.protocol
      and tonumber(entry.internal_port) == it.internal_port then
      found[#found + 1] = entry
    end
  end
  return found
end

-- A mapping that an earlier run left is taken over where it leads here, and removed where it leads elsewhere.
local function ports_to_try(it)
  if not it.first then return it.ports end
  local ports = {}
  for _, entry in ipairs(own_entries(it)) do
    local port = math.tointeger(tonumber(entry.external_port))
    if port and port >= 1 and port <= 65535 then
      if entry.internal_ip == it.internal_ip and #ports == 0 then
        ports[1] = port
      else
        calls.remove(it.service.control, it.service.type, it.protocol:upper(), port)
      end
    end
  end
  return table.move(it.ports, 1, #it.ports, #ports + 1, ports)
end

-- Whether the router has what it said it made, and for how long: nil and the error where it has not.
local function made(it, port)
  local entry, number = calls.lookup(it.service.control, it.service.type, it.protocol:upper(), port)
  if entry then
    if entry.internal_ip ~= it.internal_ip or tonumber(entry.internal_port) ~= it.internal_port then
      return nil, CONFLICT
    end
    return math.tointeger(tonumber(entry.lifetime)) or it.lifetime
  end
  if number < 0 then return nil, number end
  return it.lifetime -- not every router can be asked
end

-- Maps the port. Some routers know only mappings that last (725, or just 402), some only equal ports (724).
local function map(it, port)
  local service, lifetime = it.service, it.lifetime
  local ok, number
  local function add()
    ok, number = calls.add(service.control, service.type, it.protocol:upper(), port, it.internal_ip, it.internal_port,
      it.name, lifetime)
    return ok
  end
  if not add() and number == SAME_PORTS then
    port = it.internal_port
    add()
  end
  if not ok and (number == PERMANENT_ONLY or number == INVALID) then
    lifetime = 0
    add()
  end
  if not ok then return nil, number end
  local left, problem = made(it, port)
  if not left then return nil, problem end
  return { external_port = port, lifetime = lifetime == 0 and 0 or left }
end

function requests.upnp_map(it)
  local number
  for _, port in ipairs(ports_to_try(it)) do
    local mapped
    mapped, number = map(it, port)
    if mapped then
      mapped.external_ip = calls.external_ip(it.service.control, it.service.type)
      return mapped
    end
    if number ~= CONFLICT and number ~= 729 then break end
  end
  return failure(number)
end

function requests.upnp_unmap(it)
  local service = it.service
  local ok, number = true, nil
  for _, entry in ipairs(it.external_port and { { external_port = it.external_port } } or own_entries(it)) do
    ok, number = calls.remove(service.control, service.type, it.protocol:upper(),
      math.tointeger(tonumber(entry.external_port)) or 0)
  end
  if not ok and number ~= 714 then return failure(number) end -- 714: there is none
  return {}
end

-- Pinholes ------------------------------------------------------------------------------------------------------------

local numbers = { tcp = 6, udp = 17 } -- IANA's protocol numbers

function requests.pinhole_map(it)
  local service = it.service
  if it.id and calls.renew_pinhole(service.control, service.type, it.id, it.lifetime) then
    return { id = it.id, lifetime = it.lifetime }
  end
  local id, number = calls.open_pinhole(service.control, service.type, numbers[it.protocol], it.internal_ip,
    it.internal_port, it.lifetime)
  if not id then return failure(number) end
  if id == "" then return failure(-1) end
  return { id = id, lifetime = it.lifetime }
end

function requests.pinhole_unmap(it)
  local ok, number = calls.close_pinhole(it.service.control, it.service.type, it.id)
  if not ok and number ~= 704 then return failure(number) end -- 704: there is none
  return {}
end

-- The process ---------------------------------------------------------------------------------------------------------

-- cjson makes all numbers floats.
local function with_integers(value)
  if type(value) == "table" then
    for key, one in pairs(value) do value[key] = with_integers(one) end
    return value
  end
  return math.type(value) and math.tointeger(value) or value
end

local function answer(it)
  local ok, message, code = calls.confine(MEMORY, CPU_SECONDS, math.ceil(it.timeout) + 1)
  if not ok then return nil, message, code end
  return requests[it.request](it)
end

return function(text)
  local got, message, code = answer(with_integers(cjson.decode(text)))
  io.stdout:write(cjson.encode(got or { message = message, code = code }), "\n")
end
