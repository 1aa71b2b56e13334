-- topology: from the options of a lab to its plan: who there is, who hangs where, and all addresses. Pure.
--
--   internet 30.1.0.0/24 ── 30.2.n.0/24 ── router n ── 192.168.n.0/24 ── hosts
--                                                  └── 30.3.n.0/24, where nothing is translated
--   internet ── 30.2.100+n.0/24 ── carrier's router 100+n ── 100.64.n.0/24 (RFC 6598) ── router n ── …
--   internet ── 30.4.n.0/24 ── host n
--
-- All have IPv6 too: 2c0f:30:2:n::/64, 2c0f:30:3:n::/64, 2c0f:30:4:n::/64, with the same n in decimal digits. The
-- addresses look like others on the Internet; nothing leads out of the lab.
local kinds = require "p2pd.lab.kinds"
local router_options = require "p2pd.lab.options"

local M = {}

local MOST_ROUTERS = 99
local FIRST_HOST = 10       -- 192.168.1.10
local LAST_HOST = 254       -- 192.168.1.254, and 30.4.254.2
local MOST_UPLINKS = 50     -- of a host: each has a routing table; the kernel's own begin at 253
local CARRIERS = 100        -- what is added to a router's number to get its carrier's
local FIRST_INDEX = 101     -- of the devices; see M.plan
local INTERNET = "internet"

--- The routers of a lab that asks for none.
M.DEFAULTS = { a = "port-restricted/equal", b = "port-restricted/equal" }

local clock_error = kinds.number(-1e9, 1e9)

local function fail(sentence, ...)
  return nil, "EINVAL: " .. sentence:format(...), "EINVAL"
end

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local function is_name(text)
  return type(text) == "string" and #text <= 24 and text:find "^%l[%l%d-]*$" ~= nil
end

--- Names of labs, routers and hosts: up to 24 small letters, digits and dashes, a letter first.
M.is_name = is_name

-- Options -----------------------------------------------------------------------------------------------------------

local known = {
  name = "string", stay = "boolean", a = true, b = true, routers = "table", hosts = "table", servers = "boolean",
}

-- The routers that are asked for, `{ name = options }`: each text is a NAT's.
local function routers_asked(options)
  local asked = {}
  for name, given in pairs(options.routers or {}) do asked[name] = given end
  for _, name in ipairs { "a", "b" } do
    if options[name] ~= nil then
      if asked[name] ~= nil then return fail("router '%s' is given twice", name) end
      asked[name] = options[name]
    end
  end
  if next(asked) == nil and not options.hosts then asked = M.DEFAULTS end
  for name, given in pairs(asked) do
    if not is_name(name) or name == INTERNET then return fail("'%s' cannot be a router's name", tostring(name)) end
    if type(given) ~= "string" and type(given) ~= "table" then
      return fail("router '%s' is a NAT's text or a table, not a %s", name, type(given))
    end
  end
  return asked
end

-- What a host is given as: a router's name, a list of them, or a table with them in `routers`.
local function host_asked(name, given)
  if type(given) == "string" then given = { routers = { given } } end
  if type(given) ~= "table" then return fail("host '%s' is a router's name or a table", name) end
  local asked = { routers = given.routers or given.router or table.move(given, 1, #given, 1, {}) }
  if type(asked.routers) == "string" then asked.routers = { asked.routers } end
  if given.clock_error ~= nil and not clock_error.check(given.clock_error) then
    return fail("host '%s': 'clock_error' is a number of seconds, not %s", name,
      type(given.clock_error) == "number" and given.clock_error or "a " .. type(given.clock_error))
  end
  asked.clock_error = given.clock_error
  if type(asked.routers) ~= "table" or #asked.routers == 0 then
    return fail("host '%s' is behind no router", name)
  end
  if #asked.routers > MOST_UPLINKS then return fail("host '%s' has more than %d uplinks", name, MOST_UPLINKS) end
  return asked
end

-- The hosts that are asked for; without any, one behind each router, of its name. The default routers are there when
-- hosts name them.
local function hosts_asked(options, routers)
  local asked = {}
  if not options.hosts then
    for name in pairs(routers) do asked[name] = { routers = { name } } end
    return asked
  end
  for name, given in pairs(options.hosts) do
    if not is_name(name) then return fail("'%s' cannot be a host's name", tostring(name)) end
    local host, message, code = host_asked(name, given)
    if not host then return nil, message, code end
    for _, router in ipairs(host.routers) do
      if M.DEFAULTS[router] then routers[router] = routers[router] or M.DEFAULTS[router] end
      if router ~= INTERNET and not routers[router] then
        return fail("host '%s' is behind '%s', which is no router of this lab", name, tostring(router))
      end
    end
    asked[name] = host
  end
  return asked
end

local host_keys = { router = true, routers = true, clock_error = true }

local function unknown_of_host(name, given)
  for key in pairs(type(given) == "table" and given or {}) do
    if math.type(key) ~= "integer" and not host_keys[key] then
      return ("host '%s' has an unknown option '%s'"):format(tostring(name), tostring(key))
    end
  end
end

local function entries(map)
  return pairs(type(map) == "table" and map or {})
end

--- Says which key of a lab's options, or of the tables in them, nobody knows.
---@param options table
---@return string? sentence
function M.unknown(options)
  for key in pairs(options) do
    if not known[key] then return ("unknown option '%s'"):format(tostring(key)) end
  end
  local function of_router(name, given)
    local sentence = router_options.unknown(given)
    return sentence and ("%s (router '%s')"):format(sentence, tostring(name))
  end
  local found = of_router("a", options.a) or of_router("b", options.b)
  for name, given in entries(options.routers) do found = found or of_router(name, given) end
  for name, given in entries(options.hosts) do found = found or unknown_of_host(name, given) end
  return found
end

local function check(options)
  local unknown = M.unknown(options)
  if unknown then return fail("%s", unknown) end
  for key, value in pairs(options) do
    local kind = known[key]
    if kind ~= true and type(value) ~= kind then
      return fail("option '%s' is a %s, not a %s", key, kind, type(value))
    end
  end
  if options.name and not is_name(options.name) then
    return fail("'%s' cannot be a lab's name: small letters, digits and dashes", options.name)
  end
  return true
end

-- The plan ------------------------------------------------------------------------------------------------------------

-- The outer side of a router: its address there, the one in front of it, and its external addresses.
local function wan_of(router, front)
  local base, base6 = ("30.2.%d"):format(router.number), ("2c0f:30:2:%d"):format(router.number)
  if front then base, base6 = ("100.64.%d"):format(router.number), ("2c0f:30:3:%d"):format(front.number) end
  local external = {}
  for i = 1, router.options.addresses do external[i] = ("%s.%d"):format(base, i + 1) end
  return {
    base = base, length = 24, address = external[1], gateway = base .. ".1", external = external,
    address6 = base6 .. "::2", gateway6 = base6 .. "::1",
  }
end

local function lan_of(router, carried)
  local base = ("192.168.%d"):format(router.number)
  if not router.translates then base = ("30.3.%d"):format(router.number) end
  if carried then base = ("100.64.%d"):format(carried) end
  local base6 = ("2c0f:30:3:%d"):format(router.number)
  return {
    base = base, length = 24, prefix = base .. ".0/24", address = base .. ".1",
    base6 = base6, prefix6 = base6 .. "::/64", address6 = base6 .. "::1", members = 0,
  }
end

-- A router, and before it the one of its carrier where it has one.
local function add_router(plan, name, number, given, carried)
  local options, message, code = router_options.router(given)
  if not options then return nil, ("%s (router '%s')"):format(message, name), code end
  local front
  if options.carrier then
    front, message, code = add_router(plan, name .. "-carrier", CARRIERS + number, options.carrier, number)
    if not front then return nil, message, code end
    if plan.asked[front.name] ~= nil then
      return fail("router '%s' has a carrier, which is called '%s' as another router is", name, front.name)
    end
    if not front.translates then return fail("router '%s': a carrier's router translates", name) end
  end
  local router = {
    kind = "router", name = name, number = number, options = options,
    translates = router_options.translates(options), front = front and front.name,
    ipv6 = router_options.ipv6(options) ~= "none",
  }
  router.wan, router.lan = wan_of(router, front), lan_of(router, carried)
  if front then front.inner = name end
  plan.routers[#plan.routers + 1], plan.router[name] = router, router
  return router
end

-- One end of a link: the device in whose namespace; a router's inside is a port of a bridge when others are there too.
local function end_at(node, device, index)
  return { kind = node and node.kind, name = node and node.name, device = device, index = index }
end

local function add_link(plan, near, near_device, far, far_device)
  -- The kernel takes a veth device whose other end has the same number for one that has no other end, and tells of
  -- its being up a second late: so all devices of a lab have numbers of their own.
  local index = FIRST_INDEX + 2 * #plan.links
  plan.links[#plan.links + 1] = { end_at(near, near_device, index), end_at(far, far_device, index + 1) }
end

local function host_link(plan, host, place, router_name)
  local link = { device = "eth" .. place - 1, router = router_name, length = 24 }
  if router_name == INTERNET then
    if host.number > LAST_HOST then
      return fail("host '%s' is one too many: only %d by name can be on the internet", host.name, LAST_HOST)
    elseif host.on_internet then
      return fail("host '%s' is on the internet twice", host.name)
    end
    host.on_internet = true
    local base, base6 = ("30.4.%d"):format(host.number), ("2c0f:30:4:%d"):format(host.number)
    link.address, link.gateway = base .. ".2", base .. ".1"
    link.address6, link.gateway6 = base6 .. "::2", base6 .. "::1"
    return link
  end
  local router = plan.router[router_name]
  local lan = router.lan
  lan.members = lan.members + 1
  local number = FIRST_HOST + lan.members - 1
  if number > LAST_HOST then
    return fail("router '%s' has more than %d hosts behind it", router_name, LAST_HOST - FIRST_HOST + 1)
  end
  link.address, link.gateway = ("%s.%d"):format(lan.base, number), lan.address
  if router.ipv6 then link.address6, link.gateway6 = ("%s::%d"):format(lan.base6, number), lan.address6 end
  return link
end

local function add_host(plan, name, number, asked)
  local host = { kind = "host", name = name, number = number, clock_error = asked.clock_error, links = {} }
  for place, router in ipairs(asked.routers) do
    local message, code
    host.links[place], message, code = host_link(plan, host, place, router)
    if not host.links[place] then return nil, message, code end
  end
  plan.hosts[#plan.hosts + 1], plan.host[name] = host, host
  return host
end

-- All cables. A LAN with several members is a bridge, `lan0`, with the ports lan1, lan2, …
local function add_links(plan)
  for _, router in ipairs(plan.routers) do
    if router.front then
      add_link(plan, plan.router[router.front], "lan0", router, "wan0")
    else
      add_link(plan, nil, "r" .. router.number, router, "wan0")
    end
  end
  local ports = {}
  for _, host in ipairs(plan.hosts) do
    for _, link in ipairs(host.links) do
      local router = plan.router[link.router]
      if router then
        ports[router] = (ports[router] or 0) + 1
        add_link(plan, router, router.lan.bridge and "lan" .. ports[router] or "lan0", host, link.device)
      else
        add_link(plan, nil, "h" .. host.number, host, link.device)
      end
    end
  end
end

--- The prefixes behind a router, those of a router behind it included.
---@return string[]
function M.inside(plan, router)
  local prefixes, inner = { router.lan.prefix, router.lan.prefix6 }, plan.router[router.inner or ""]
  if inner then
    prefixes[#prefixes + 1] = inner.lan.prefix6
    if not inner.translates then prefixes[#prefixes + 1] = inner.lan.prefix end
  end
  return prefixes
end

--- The outer side of a router with another external address, the first of as many as it has.
---@return table? wan, string? message, string? code
function M.readdressed(router, address)
  local wan = router.wan
  local base, last = tostring(address):match "^(%d+%.%d+%.%d+)%.(%d%d?%d?)$"
  last = math.tointeger(tonumber(last))
  if base ~= wan.base or last < 2 or last + #wan.external - 1 > 254 then
    return fail("router '%s' has external addresses from %s.2 to %s.254, not '%s'", router.name, wan.base, wan.base,
      tostring(address))
  end
  local changed = {}
  for key, value in pairs(wan) do changed[key] = value end
  changed.external = {}
  for i in ipairs(wan.external) do changed.external[i] = ("%s.%d"):format(base, last + i - 1) end
  changed.address = changed.external[1]
  return changed
end

--- The plan of a lab. A router's options are checked by p2pd.lab.options; what is wrong with them is its to say.
---@param options table
---@return table? plan, string? message, string? code
function M.plan(options)
  local ok, message, code = check(options)
  if not ok then return nil, message, code end
  local routers, hosts
  routers, message, code = routers_asked(options)
  if not routers then return nil, message, code end
  hosts, message, code = hosts_asked(options, routers)
  if not hosts then return nil, message, code end
  local plan = {
    name = options.name or "lab", routers = {}, hosts = {}, links = {}, router = {}, host = {},
    servers = options.servers ~= false, asked = routers,
  }
  local names = sorted_keys(routers)
  if #names > MOST_ROUTERS then return fail("a lab has at most %d routers", MOST_ROUTERS) end
  for number, name in ipairs(names) do
    local router
    router, message, code = add_router(plan, name, number, routers[name])
    if not router then return nil, message, code end
  end
  for number, name in ipairs(sorted_keys(hosts)) do
    local host
    host, message, code = add_host(plan, name, number, hosts[name])
    if not host then return nil, message, code end
  end
  for _, router in ipairs(plan.routers) do router.lan.bridge = router.lan.members > 1 end
  add_links(plan)
  return plan
end

return M
