-- options: what a lab's router is told to be: texts and tables, checked, in one form. Pure.
local kinds = require "p2pd.lab.kinds"
local nat = require "p2pd.lab.nat"

local M = {}

local MOST_ADDRESSES = 8 -- core/nat_model.h: NAT_ADDRESSES
local MOST_MAPPINGS = 1048576

local function fail(sentence, ...)
  return nil, "EINVAL: " .. sentence:format(...), "EINVAL"
end

local function show(value)
  if type(value) == "string" then return "'" .. value .. "'" end
  return type(value) == "table" and "a table" or tostring(value)
end

local nat_text = {
  read = function(text) return text end,
  check = function(value)
    local parsed, message = nat.parse(value)
    if not parsed then return nil, nil, message end
    return nat.text(parsed)
  end,
}

local number, word, boolean = kinds.number, kinds.word, kinds.boolean
local scopes = { "endpoint-independent", "address-dependent", "address-and-port-dependent" }
local seconds = number(1, 2147483647, true)

-- Of a transport, and of the router for both of them.
local fields = {
  nat = nat_text,
  mapping = word(scopes),                                                            -- RFC 4787, 4.1
  filtering = word { scopes[1], scopes[2], scopes[3], "none" },                      -- RFC 4787, 5
  allocation = word { "equal", "preserving", "independent", "dependent", "random" }, -- RFC 4787, 4.2
  value = kinds.step, ports = kinds.ports,
  timeout_s = seconds,    -- without traffic: UDP (RFC 4787, 4.3), established TCP (RFC 5382, 5)
  transitory_s = seconds, -- TCP that opens or closes (RFC 5382, 5)
  uninvited = word { "drop", "reset", "unreachable" }, -- what such a SYN gets
}

local wide = {
  addresses = number(1, MOST_ADDRESSES, true), pairing = word { "paired", "arbitrary" }, -- RFC 4787, 4.1
  hairpin = boolean,            -- RFC 4787, 6
  noise = number(0, 100000),    -- other flows a second, which take ports
  table = number(1, MOST_MAPPINGS, true), time_scale = number(1e-6, 1e6), seed = number(0, 2 ^ 32 - 1, true),
  ipv6 = word { "firewall", "open", "none" }, open_ports = kinds.open_ports,
  delay_ms = number(0, 60000), jitter_ms = number(0, 60000), -- one way, each direction
  loss = number(0, 1), duplicate = number(0, 1), reorder = number(0, 1), rate_mbit = number(0, 100000), up = boolean,
  portmap = boolean,
}

-- The RFCs' recommendations, where there are some: paired (REQ-2), with hairpinning (REQ-9 of RFC 4787).
local defaults = {
  nat = "port-restricted/equal", addresses = 1, pairing = "paired", hairpin = true, noise = 0, table = 65536,
  time_scale = 1, delay_ms = 0, jitter_ms = 0, loss = 0, duplicate = 0, reorder = 0,
  rate_mbit = 0, up = true, portmap = false,
}

-- Per transport; the router's `udp`, `tcp` and `carrier` are tables of their own.
local nested = { udp = true, tcp = true, carrier = true }

-- Keys ----------------------------------------------------------------------------------------------------------------

local function known_keys(...)
  local keys = {}
  for _, map in ipairs { ... } do
    for key in pairs(map) do keys[#keys + 1] = key end
  end
  table.sort(keys)
  return table.concat(keys, ", ")
end

--- Says which key of a router's options, or of the tables in them, nobody knows.
---@param given any what is no table has none
---@return string? sentence
function M.unknown(given)
  if type(given) ~= "table" then return nil end
  for key, value in pairs(given) do
    if key == "carrier" then
      local sentence = M.unknown(value)
      if sentence then return sentence end
    elseif nested[key] then
      for field in pairs(type(value) == "table" and value or {}) do
        if not fields[field] then
          return ("'%s' has the unknown field '%s' (known: %s)"):format(key, tostring(field), known_keys(fields))
        end
      end
    elseif not fields[key] and not wide[key] then
      return ("a router has no option '%s' (known: %s)"):format(tostring(key), known_keys(fields, wide, nested))
    end
  end
end

local function split_key(key)
  local outer, inner = tostring(key):match "^(%w+)%.([%w_.]+)$"
  if nested[outer or ""] then return outer, inner end
end

--- The same of changes to a router, whose keys may be as in "udp.filtering"; there is `address`, too.
---@param changes table<string, any>
---@return string? sentence
function M.unknown_change(changes)
  for key, value in pairs(changes) do
    local outer, inner = split_key(key)
    local sentence
    if key == "address" then
      sentence = nil
    elseif outer == "carrier" then
      sentence = M.unknown_change { [inner] = value }
    else
      sentence = M.unknown { [outer or key] = outer and { [inner] = value } or value }
    end
    if sentence then return sentence end
  end
end

-- Values --------------------------------------------------------------------------------------------------------------

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
    local message, code
    checked[key], message, code = check_field(name .. ": ", key, fields[key], value)
    if checked[key] == nil then return nil, message, code end
  end
  return checked
end

local function range_of(parsed)
  return parsed.first and { parsed.first, parsed.last }
end

-- A transport's fields go over its own NAT's text, this over the router's fields, and these over the router's text.
local function behaviour(options, transport)
  local own = options[transport] or {}
  local parsed = nat.parse(own.nat or options.nat)
  local shared = own.nat and {} or options -- whatever a NAT's text says, a NAT of the transport's own says itself
  local delta = own.allocation or shared.allocation or parsed.delta
  if nat.keeps_addresses[parsed.type] then delta = nil end
  local range = own.ports or own.nat and range_of(parsed) or options.ports or range_of(parsed)
  local value = nat.steps[delta] and (own.value or shared.value or parsed.value or nat.STEP) or nil
  return {
    type = parsed.type, delta = delta, value = value,
    mapping = own.mapping or shared.mapping, filtering = own.filtering or shared.filtering,
    ports = range, uninvited = own.uninvited or options.uninvited, timeout_s = own.timeout_s or options.timeout_s,
    transitory_s = own.transitory_s or options.transitory_s,
  }
end

-- Of ICMP's queries: it has the router's NAT.
local function icmp(options)
  local base = nat.parse(options.nat)
  return { delta = base.delta, ports = options.ports or range_of(base) }
end

-- What no field can see by itself; core/nat_model_config.c has the same rules.
local function check_whole(options)
  local udp, tcp = behaviour(options, "udp"), behaviour(options, "tcp")
  if nat.keeps_addresses[udp.type] ~= nat.keeps_addresses[tcp.type] then
    return fail("'udp' is %s and 'tcp' is %s: a router translates both or neither, as its hosts have one address",
      udp.type, tcp.type)
  end
  for _, each in ipairs { udp, tcp, icmp(options) } do
    local ports = each.ports
    if each.delta == "preserving" and ports and ports[1] == ports[2] then
      return fail("'preserving' keeps external ports at a distance from internal ones, so it needs more than the one "
        .. "port of %d-%d", ports[1], ports[2])
    end
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
  local unknown = M.unknown(given)
  if unknown then return fail("%s", unknown) end
  local options = {}
  for key, value in pairs(defaults) do options[key] = value end
  for key, value in pairs(given) do
    local message, code
    if key == "carrier" then
      options.carrier, message, code = M.router(value)
    elseif nested[key] then
      options[key], message, code = check_transport(key, value)
    else
      options[key], message, code = check_field("", key, fields[key] or wide[key], value)
    end
    if message then return nil, message, code end
  end
  return check_whole(options)
end

--- Whether hosts behind it have other addresses than the internet sees.
---@param options table as M.router returns them
---@return boolean
function M.translates(options)
  return not nat.keeps_addresses[behaviour(options, "udp").type]
end

--- What becomes of IPv6 there: where nothing is said, what becomes of IPv4, but that it is never translated.
---@param options table as M.router returns them
---@return "firewall"|"open"|"none"
function M.ipv6(options)
  local by_type = { open = "open", blocked = "none" }
  return options.ipv6 or by_type[nat.parse(options.nat).type] or "firewall"
end

-- Changes -------------------------------------------------------------------------------------------------------------

local function copy(value)
  if type(value) ~= "table" then return value end
  local copied = {}
  for key, inner in pairs(value) do copied[key] = copy(inner) end
  return copied
end

-- What a text means there; another value is what it is.
local function read(kind, value)
  if kind and type(value) == "string" then return kind.read(value) end
  return value
end

--- The options with one more laid over them, whose value may be a text: `options.set(it, "udp.filtering", "none")`.
---@param options table as M.router returns them
---@param key string
---@param value any
---@return table? options, string? message, string? code
function M.set(options, key, value)
  local changed = copy(options)
  local outer, inner = split_key(key)
  if outer == "carrier" then
    local carrier, message, code = M.set(options.carrier or M.router {}, inner, value)
    if not carrier then return nil, message, code end
    changed.carrier = carrier
  elseif outer then
    changed[outer] = changed[outer] or {}
    changed[outer][inner] = read(fields[inner], value)
  else
    changed[key] = read(fields[key] or wide[key], value)
  end
  return M.router(changed)
end

--- The changes to a router, and those of them that are its carrier's: `carrier.delay_ms`, or a `carrier`.
---@param changes table<string, any>
---@return table<string, any> own, table<string, any>? carrier
function M.apart(changes)
  local own, carrier = {}, nil
  for key, value in pairs(changes) do
    local outer, inner = split_key(key)
    if key == "carrier" then
      carrier = carrier or {}
      for name, each in pairs(type(value) == "table" and value or { nat = value }) do carrier[name] = each end
    elseif outer == "carrier" then
      carrier = carrier or {}
      carrier[inner] = value
    else
      own[key] = value
    end
  end
  return own, carrier
end

-- For the router ------------------------------------------------------------------------------------------------------

--- What core.router's configure takes.
---@param options table as M.router returns them
---@param external string[] the router's external addresses
---@param inside string[] the prefixes behind it
---@return table
function M.configuration(options, external, inside)
  local base = nat.parse(options.nat)
  local model = {
    type = base.type, delta = base.delta, value = base.value, external = M.translates(options) and external or {},
    pairing = options.pairing, hairpin = options.hairpin, noise = options.noise,
    table = options.table, time_scale = options.time_scale, open_ports = options.open_ports,
    udp = behaviour(options, "udp"), tcp = behaviour(options, "tcp"),
    icmp = { ports = icmp(options).ports },
  }
  local link = {
    delay_ms = options.delay_ms, jitter_ms = options.jitter_ms, loss = options.loss, duplicate = options.duplicate,
    reorder = options.reorder, rate_mbit = options.rate_mbit, up = options.up,
  }
  return { nat = model, ipv6 = M.ipv6(options), inside = inside, out = link, ["in"] = link }
end

return M
