-- nat: what a lab's router is told to be: texts and tables, checked, in one form. Pure.
--
-- A NAT as text: TYPE/DELTA[:VALUE][@FIRST-LAST], as in "symmetric/independent:3" or "restricted/random@40000-50000".
-- What the words mean is said in core/nat_model.h; a router's options are those in `fields` and `wide` below.
local M = {}

local PORTS = { 1, 65535 }
local STEP = 1            -- of independent and dependent, when no value is given
local MOST_ADDRESSES = 8  -- core/nat_model.h: NAT_ADDRESSES
local MOST_OPEN_PORTS = 16
local TABLE = 65536

local types = {
  "open", "udp-firewall", "full-cone", "restricted", "port-restricted", "symmetric", "blocked",
  keeps_addresses = { open = true, ["udp-firewall"] = true },
  without_delta = { open = true, ["udp-firewall"] = true, blocked = true },
}
local deltas = {
  "na", "equal", "preserving", "independent", "dependent", "random",
  steps = { independent = true, dependent = true },
}

local function fail(sentence, ...)
  return nil, "EINVAL: " .. sentence:format(...), "EINVAL"
end

local function is_in(list, word)
  for _, known in ipairs(list) do
    if known == word then return true end
  end
  return false
end

local function show(value)
  if type(value) == "string" then return "'" .. value .. "'" end
  return type(value) == "table" and "a table" or tostring(value)
end

-- Checks ------------------------------------------------------------------------------------------------------------
-- Each is `check(value)` -> the value in its one form, or nil and what it has to be; and `read(text)` for `lab set`.

local function as_is(text)
  return text
end

local function word(list)
  return {
    read = as_is,
    check = function(value)
      if is_in(list, value) then return value end
      return nil, "one of " .. table.concat(list, ", ")
    end,
  }
end

local function number(least, most, whole)
  return {
    read = function(text) return tonumber(text) or text end,
    check = function(value)
      local good = type(value) == "number" and value >= least and value <= most
      if good and whole then value = math.tointeger(value) end
      if good and value then return value end
      return nil, ("a %snumber from %.15g to %.15g"):format(whole and "whole " or "", least, most)
    end,
  }
end

local boolean = {
  read = function(text)
    local value = ({ ["true"] = true, ["false"] = false })[text]
    if value == nil then return text end
    return value
  end,
  check = function(value)
    if type(value) == "boolean" then return value end
    return nil, "true or false"
  end,
}

local function is_port(value)
  return math.type(value) == "integer" and value >= PORTS[1] and value <= PORTS[2]
end

local ports = {
  read = as_is,
  check = function(value)
    if type(value) == "string" then
      local first, last = value:match "^(%d+)%-(%d+)$"
      value = { tonumber(first), tonumber(last) }
    end
    if type(value) == "table" and #value == 2 then
      local first, last = math.tointeger(value[1]), math.tointeger(value[2])
      if is_port(first) and is_port(last) and first <= last then return { first, last } end
    end
    return nil, ("{first, last}, from %d to %d, the first not above the last"):format(PORTS[1], PORTS[2])
  end,
}

local step = {
  read = function(text) return tonumber(text) or text end,
  check = function(value)
    value = type(value) == "number" and math.tointeger(value)
    if value and value ~= 0 and math.abs(value) <= PORTS[2] then return value end
    return nil, ("a whole number from -%d to %d, but not 0"):format(PORTS[2], PORTS[2])
  end,
}

local open_ports = {
  read = function(text)
    local list = {}
    for port in text:gmatch "[^,]+" do list[#list + 1] = tonumber(port) or port end
    return list
  end,
  check = function(value)
    local list = {}
    for place, port in ipairs(type(value) == "table" and value or {}) do
      list[place] = type(port) == "number" and math.tointeger(port) or 0
    end
    local good = type(value) == "table" and #list <= MOST_OPEN_PORTS
    for _, port in ipairs(list) do good = good and is_port(port) end
    if good then return list end
    return nil, ("a list of at most %d ports"):format(MOST_OPEN_PORTS)
  end,
}

-- NATs as text --------------------------------------------------------------------------------------------------------

local function check_parsed(text, nat)
  local example = "write it as in 'symmetric/random' or 'restricted/independent:3@40000-50000'"
  if not is_in(types, nat.type) then
    return fail("the NAT '%s' has the unknown type '%s' (known: %s); %s", text, nat.type, table.concat(types, ", "),
      example)
  end
  if nat.delta == nil and not types.without_delta[nat.type] then
    return fail("the NAT '%s' says not how it chooses ports; %s (known: %s)", text, example,
      table.concat(deltas, ", ", 2))
  end
  if nat.delta == "na" then nat.delta = nil end
  if nat.delta and not is_in(deltas, nat.delta) then
    return fail("the NAT '%s' has the unknown delta '%s' (known: %s)", text, nat.delta, table.concat(deltas, ", "))
  end
  if nat.delta == nil and not types.without_delta[nat.type] then
    return fail("the NAT '%s' maps ports, so its delta cannot be 'na' (known: %s)", text,
      table.concat(deltas, ", ", 2))
  end
  if types.keeps_addresses[nat.type] and (nat.delta or nat.first) then
    return fail("the NAT '%s' translates nothing, so it has neither a delta nor ports; write '%s'", text, nat.type)
  end
  if nat.value and not deltas.steps[nat.delta] then
    return fail("the NAT '%s' has a value, which only independent and dependent have; leave ':%s' out", text, nat.value)
  end
  return true
end

local function parse_ports(text, rest, nat)
  local range = rest:match "@(.*)$"
  if not range then return rest end
  local pair, wish = ports.check(range)
  if not pair then return fail("the NAT '%s' has the ports '%s'; they are FIRST-LAST: %s", text, range, wish) end
  nat.first, nat.last = pair[1], pair[2]
  return rest:match "^(.-)@"
end

--- A NAT's text in its parts: `{ type = "symmetric", delta = "independent", value = 3, first = 40000, last = 50000 }`.
---@param text string
---@return table? nat, string? message, string? code
function M.parse(text)
  if type(text) ~= "string" then return fail("a NAT is a text like 'symmetric/random', not %s", show(text)) end
  local nat = {}
  local rest, message, code = parse_ports(text, text, nat)
  if not rest then return nil, message, code end
  local left, value = rest:match "^([^:]*):(.*)$"
  left = left or rest
  nat.type, nat.delta = left:match "^([^/]*)/(.*)$"
  nat.type = nat.type or left
  if value then
    local wish
    nat.value, wish = step.check(tonumber(value))
    if not nat.value then return fail("the NAT '%s' has the value '%s'; it is %s", text, value, wish) end
  end
  local ok
  ok, message, code = check_parsed(text, nat)
  if not ok then return nil, message, code end
  if deltas.steps[nat.delta] then nat.value = nat.value or STEP end
  return nat
end

--- The one text of a NAT that was parsed.
---@param nat table
---@return string
function M.text(nat)
  return nat.type .. (nat.delta and "/" .. nat.delta or "") .. (nat.value and ":" .. nat.value or "")
    .. (nat.first and ("@%d-%d"):format(nat.first, nat.last) or "")
end

local nat_text = {
  read = as_is,
  check = function(value)
    local nat, message = M.parse(value)
    if not nat then return nil, nil, message end
    return M.text(nat)
  end,
}

-- Options -------------------------------------------------------------------------------------------------------------

local scopes = { "endpoint-independent", "address-dependent", "address-and-port-dependent" }
local seconds = number(1, 2147483647, true)

-- Of a transport, and of the router for both of them.
local fields = {
  nat = nat_text,
  mapping = word(scopes),                                                            -- RFC 4787, 4.1
  filtering = word { scopes[1], scopes[2], scopes[3], "none" },                      -- RFC 4787, 5
  allocation = word { "equal", "preserving", "independent", "dependent", "random" }, -- RFC 4787, 4.2
  value = step, ports = ports,
  timeout_s = seconds,    -- without traffic: UDP (RFC 4787, 4.3), established TCP (RFC 5382, 5)
  transitory_s = seconds, -- TCP that opens or closes (RFC 5382, 5)
  uninvited = word { "drop", "reset", "unreachable" }, -- what such a SYN gets
}

local wide = {
  addresses = number(1, MOST_ADDRESSES, true), pairing = word { "paired", "arbitrary" }, -- RFC 4787, 4.1
  hairpin = boolean,            -- RFC 4787, 6
  noise = number(0, 100000),    -- other flows a second, which take ports
  table = number(1, 1048576, true), time_scale = number(1e-6, 1e6), seed = number(0, 2 ^ 53, true),
  ipv6 = word { "firewall", "open", "none" }, open_ports = open_ports,
  delay_ms = number(0, 60000), jitter_ms = number(0, 60000), -- one way, each direction
  loss = number(0, 1), duplicate = number(0, 1), reorder = number(0, 1), rate_mbit = number(0, 100000), up = boolean,
  portmap = boolean,
}

-- The RFCs' recommendations, where there are some: paired (REQ-2), with hairpinning (REQ-9 of RFC 4787).
local defaults = {
  nat = "port-restricted/equal", addresses = 1, pairing = "paired", hairpin = true, noise = 0, table = TABLE,
  time_scale = 1, delay_ms = 0, jitter_ms = 0, loss = 0, duplicate = 0, reorder = 0,
  rate_mbit = 0, up = true, portmap = false,
}

-- Per transport; the router's `udp`, `tcp` and `carrier` are tables of their own.
local nested = { udp = true, tcp = true, carrier = true }

local function known_keys(...)
  local keys = {}
  for _, map in ipairs { ... } do
    for key in pairs(map) do keys[#keys + 1] = key end
  end
  table.sort(keys)
  return table.concat(keys, ", ")
end

local function check_field(where, key, kind, value)
  local checked, wish, message = kind.check(value)
  if checked ~= nil then return checked end
  if message then return nil, message, "EINVAL" end
  return fail("%s'%s' is %s; it has to be %s", where, key, show(value), wish)
end

local function check_transport(name, given)
  if type(given) == "string" then given = { nat = given } end
  if type(given) ~= "table" then return fail("'%s' is a NAT's text or a table, not %s", name, show(given)) end
  local checked = {}
  for key, value in pairs(given) do
    if not fields[key] then
      return fail("'%s' has the unknown field '%s' (known: %s)", name, tostring(key), known_keys(fields))
    end
    local message, code
    checked[key], message, code = check_field(name .. ": ", key, fields[key], value)
    if checked[key] == nil then return nil, message, code end
  end
  return checked
end

local function type_of(options, transport)
  return M.parse(options[transport] and options[transport].nat or options.nat).type
end

-- What no field can see by itself.
local function check_whole(options)
  local udp, tcp = type_of(options, "udp"), type_of(options, "tcp")
  if types.keeps_addresses[udp] ~= types.keeps_addresses[tcp] then
    return fail("'udp' is %s and 'tcp' is %s: a router translates both or neither, as its hosts have one address",
      udp, tcp)
  end
  if options.carrier and options.carrier.carrier then
    return fail("a carrier's router has no carrier before it; leave the inner 'carrier' out")
  end
  return options
end

--- A router's options, checked and complete, from a NAT's text or a table. Options that this returns give the same.
---@param given string|table
---@return table? options, string? message, string? code
function M.router(given)
  if type(given) == "string" then given = { nat = given } end
  if type(given) ~= "table" then return fail("a router is a NAT's text or a table, not %s", show(given)) end
  local options = {}
  for key, value in pairs(defaults) do options[key] = value end
  for key, value in pairs(given) do
    local kind, message, code = fields[key] or wide[key]
    if key == "carrier" then
      options.carrier, message, code = M.router(value)
    elseif nested[key] then
      options[key], message, code = check_transport(key, value)
    elseif kind then
      options[key], message, code = check_field("", key, kind, value)
    else
      return fail("a router has no option '%s' (known: %s)", tostring(key), known_keys(fields, wide, nested))
    end
    if message then return nil, message, code end
  end
  return check_whole(options)
end

--- Whether hosts behind it have other addresses than the internet sees.
---@param options table as M.router returns them
---@return boolean
function M.translates(options)
  return not types.keeps_addresses[type_of(options, "udp")]
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local copied = {}
  for key, inner in pairs(value) do copied[key] = copy(inner) end
  return copied
end

--- The options with one more laid over them, from text: `nat.set(options, "udp.filtering", "none")`.
---@param options table as M.router returns them
---@param key string
---@param text string
---@return table? options, string? message, string? code
function M.set(options, key, text)
  local changed = copy(options)
  local outer, inner = key:match "^(%w+)%.([%w_.]+)$"
  if outer == "carrier" then
    local carrier, message, code = M.set(options.carrier or M.router {}, inner, text)
    if not carrier then return nil, message, code end
    changed.carrier = carrier
  elseif outer == "udp" or outer == "tcp" then
    changed[outer] = changed[outer] or {}
    changed[outer][inner] = fields[inner] and fields[inner].read(text) or text
  else
    local kind = fields[key] or wide[key]
    changed[key] = text
    if kind then changed[key] = kind.read(text) end
  end
  return M.router(changed)
end

-- For the router ------------------------------------------------------------------------------------------------------

local function range_of(nat)
  return nat.first and { nat.first, nat.last }
end

-- A transport's fields go over its own NAT's text, this over the router's fields, and these over the router's text.
local function behaviour(options, transport)
  local own = options[transport] or {}
  local nat = M.parse(own.nat or options.nat)
  local shared = own.nat and {} or options -- whatever a NAT's text says, a NAT of the transport's own says itself
  local delta = own.allocation or shared.allocation or nat.delta
  if types.keeps_addresses[nat.type] then delta = nil end
  local range = own.ports or own.nat and range_of(nat) or options.ports or range_of(nat) or {}
  local timeout_s = own.timeout_s or options.timeout_s
  local value = deltas.steps[delta] and (own.value or shared.value or nat.value or STEP) or nil
  return {
    type = nat.type, delta = delta, value = value,
    mapping = own.mapping or shared.mapping, filtering = own.filtering or shared.filtering,
    first = range[1], last = range[2], uninvited = own.uninvited or options.uninvited,
    idle_s = transport == "udp" and timeout_s or nil, established_s = transport == "tcp" and timeout_s or nil,
    transitory_s = own.transitory_s or options.transitory_s,
  }
end

--- What core.router's configure takes.
---@param options table as M.router returns them
---@param external string[] the router's external addresses
---@param inside string[] the prefixes behind it
---@return table
function M.configuration(options, external, inside)
  local base = M.parse(options.nat)
  local nat = {
    type = base.type, delta = base.delta, value = base.value, external = M.translates(options) and external or {},
    paired = options.pairing == "paired", hairpin = options.hairpin, noise = options.noise,
    table_limit = options.table, time_scale = options.time_scale, open_ports = options.open_ports,
  }
  for _, transport in ipairs { "udp", "tcp" } do nat[transport] = behaviour(options, transport) end
  local range = options.ports or range_of(base) or {}
  nat.icmp = { first = range[1], last = range[2] }
  local link = {
    delay_ms = options.delay_ms, jitter_ms = options.jitter_ms, loss = options.loss, duplicate = options.duplicate,
    reorder = options.reorder, rate_mbit = options.rate_mbit, up = options.up,
  }
  local ipv6 = options.ipv6 or base.type == "open" and "open" or "firewall"
  return { nat = nat, ipv6 = ipv6, inside = inside, out = link, ["in"] = link }
end

return M
