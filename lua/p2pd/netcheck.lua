-- netcheck: what stands between this machine and the world: all of it is looked at side by side, within a few seconds.
-- netcheck_servers and netcheck_paths ask; netcheck_words says what was found, netcheck_hints what would help.
local cjson = require "cjson"
local cards = require "p2pd.cards"
local core = require "p2pd.core"
local hints = require "p2pd.netcheck_hints"
local nic = require "p2pd.nic"
local paths = require "p2pd.netcheck_paths"
local servers = require "p2pd.netcheck_servers"
local settings = require "p2pd.settings"
local task = require "p2pd.task"

local M = {}

-- Seconds.
local TIMEOUT = 2 -- that a server gets: for its name, and for its answer
local MORE = 3    -- that all may take beyond that: NAT tests wait for servers to be known, and for silence
local EVERY = 10  -- between two looks at the external address, which changes without a sign

local BLOCKED_BY_SILENCE = 0.6 -- how sure that is
local MAX_INTERFACES = 3       -- that are tested, as many as an address holds of a family

local check = {}
check.__index = check

-- The parts of a check ------------------------------------------------------------------------------------------------

function check:tell()
  if not self.options.on_progress then return end
  local waiting = {}
  for _, part in ipairs(self.parts) do
    if not part.done then waiting[#waiting + 1] = part.name end
  end
  self.options.on_progress { done = #self.parts - #waiting, total = #self.parts, waiting = waiting }
end

-- Looks at one thing beside the others; what is found goes into the entry, which says that it failed until then.
function check:part(name, entry, f, ...)
  local part = { name = name, entry = entry }
  entry.ok, entry.code = false, "ETIMEDOUT"
  entry.message = "ETIMEDOUT: there was no answer in time"
  self.parts[#self.parts + 1] = part
  part.task = self.tasks:spawn(function(...)
    local found, message, code = f(self, entry, ...)
    entry.ok, entry.message, entry.code = found and true or false, message, code
    if found then entry.message, entry.code = nil, nil end
    part.done = true
    self:tell()
    self.changed:signal()
  end, ...)
  return part
end

function check:left()
  return math.max(0, self.answer_by - task.now())
end

-- Interfaces ----------------------------------------------------------------------------------------------------------

-- One address of an interface; what concerns it is looked at, if it is one of the few.
function check:side(address, tested)
  local side = {
    internal = address.ip, prefix = address.prefix, scope = address.scope, gateway = address.gateway,
    default = address.default or false,
  }
  if not tested or address.kind == "loopback" or address.kind == "link-local" then
    side.untested = true
    return side
  end
  self:part("NAT of " .. address.ip, side, paths.survey, address)
  local mapped
  if address.gateway and (address.family == 6 or address.kind ~= "global") then
    mapped = { gateway = address.gateway }
    self:part("port mapping by " .. address.gateway, mapped, paths.portmap, address)
  end
  if address.gateway and address.family == 4 then
    side.path = {}
    self:part("way behind " .. address.gateway, side.path, paths.hops, address)
  end
  return side, mapped
end

function check:interface(card, tested)
  local one = { name = card.name, index = card.index, mtu = card.mtu, link_local = card.link_local }
  if card[4] then one.ipv4, one.portmap = self:side(card[4], tested) end
  if card[6] then
    local side, pinhole = self:side(card[6], tested)
    one.ipv6, side.pinhole = side, pinhole
  end
  return one
end

-- What is made of it --------------------------------------------------------------------------------------------------

local function any_ok(list)
  for _, entry in ipairs(list) do
    if entry.ok then return true end
  end
  return false
end

-- Whether another router stands in front of ours, and what tells so.
local function router_in_front(side, mapped)
  if side.scope == "shared" then return { kind = "carrier", address = side.internal } end
  for _, ip in ipairs(side.path and side.path.hops or {}) do
    if core.address.ip(ip).kind == "shared" then return { kind = "carrier", address = ip } end
  end
  if not mapped or not mapped.gateway then return nil end
  local own = mapped.external and core.address.ip(mapped.external)
  if own and own.kind == "shared" then return { kind = "carrier", address = own.text } end
  if own and own.kind == "private" then return { kind = "router", address = own.text } end
  if own and side.external and own.text ~= side.external then return { kind = "router", address = own.text } end
  -- NAT-PMP says that it has no public address; an IGD names none.
  local none = (mapped.nat_pmp_failure or ""):find "^ENETDOWN" or mapped.upnp and not mapped.upnp.external
  return not own and none and { kind = "router" } or nil
end

-- What the silence of all STUN servers means: where TCP gets through to others, but no clock answers either, UDP is
-- dropped; else these servers do not work, or nothing does.
local function explain_silence(self, side, family)
  if side.ok or side.untested or side.code ~= "ETIMEDOUT" or #self.speaking[family] > 0 then return end
  local answers = false
  for _, name in ipairs { "brokers", "turn" } do
    for _, entry in ipairs(self.result[name]) do
      answers = answers or entry.ok and core.address.ip(entry.ip).family == family
    end
  end
  local udp_passes = self.udp_passes[family]
  if answers and not udp_passes and self.result.clock.code == "ETIMEDOUT" and #self.named[family] > 0 then
    for _, transport in ipairs { "udp", "tcp" } do
      side[transport] = { nat = "blocked", delta = "na", value = 0, confidence = BLOCKED_BY_SILENCE }
    end
    side.ok, side.code, side.message = true, nil, nil
  elseif answers or udp_passes then
    side.message = "ETIMEDOUT: no STUN server answers"
  else
    side.code, side.message = "ENETUNREACH", ("ENETUNREACH: nothing answers over IPv%d"):format(family)
  end
end

local function conclude(self)
  local result, asked = self.result, #self.settings.ntp
  for _, name in ipairs { "brokers", "stun", "turn" } do asked = asked + #result[name] end
  for _, one in ipairs(result.interfaces) do
    for family, name in pairs { [4] = "ipv4", [6] = "ipv6" } do
      local side = one[name]
      if side then
        explain_silence(self, side, family)
        if name == "ipv4" then side.front = router_in_front(side, one.portmap) end
        side.hops, side.path = side.path and side.path.hops, nil
      end
    end
    if one.portmap and one.portmap.ok then one.portmap.usable = one.ipv4.front == nil end
  end
  local outside = any_ok(result.brokers) or any_ok(result.stun) or any_ok(result.turn) or result.clock.ok
  result.ok = outside or asked == 0
  if not result.ok then
    result.code, result.message = "ENETUNREACH", "ENETUNREACH: nothing outside of this network answers"
  end
  result.strategies = {}
  for _, path in ipairs(core.source.list()) do
    table.insert(result.strategies, path:match "^lua/p2pd/strategies/([%w_]+)%.lua$")
  end
end

-- A whole check -------------------------------------------------------------------------------------------------------

local function families_of(addresses)
  local has = {}
  for _, address in ipairs(addresses) do
    if address.kind ~= "link-local" then has[address.family] = true end
  end
  return has
end

-- Copies of the settings' entries, with what their server says.
function check:ask_all(list, label, f)
  local entries = {}
  for place, server in ipairs(list) do
    local entry = { host = server.host, port = server.port, tls = server.tls, ca = server.ca }
    if f == servers.relay then entry.transport = server.transport or "udp" end
    entries[place] = entry
    local part = self:part(("%s %s"):format(label, server.host), entry, f, server)
    if f == servers.stun then table.insert(self.stun_parts, part) end
  end
  return entries
end

local function open_signal(self)
  local identity, message, code = core.identity.open { path = self.options.key, lock = false }
  if not identity then
    self.no_signal, self.no_signal_code = message, code
    self.result.key = { ok = false, message = message, code = code }
    return
  end
  self.identity = identity
  self.signal = core.signal.new { identity = identity, clock_error = self.settings.clock_error }
end

-- All servers as those that cannot be asked.
local function list_servers(self, result)
  for name, from in pairs { brokers = "mqtt", stun = "stun", turn = "turn" } do
    for place, server in ipairs(self.settings[from]) do
      result[name][place] = {
        host = server.host, port = server.port, ok = false, code = result.code, message = result.message,
      }
    end
  end
  result.clock.code, result.clock.message = result.code, result.message
end

local function run_all(self, addresses)
  local result = self.result
  local tasks <close> = task.group()
  self.tasks = tasks
  result.stun = self:ask_all(self.settings.stun, "STUN", servers.stun)
  result.brokers = self:ask_all(self.settings.mqtt, "broker", servers.broker)
  result.turn = self:ask_all(self.settings.turn, "relay", servers.relay)
  if #self.settings.ntp > 0 then
    self:part("clock", result.clock, servers.clock)
  end
  for place, card in ipairs(cards.by_card(addresses)) do
    result.interfaces[place] = self:interface(card, place <= MAX_INTERFACES)
  end
  self:tell()
  for _, part in ipairs(self.parts) do part.task:wait(math.max(0, self.over - task.now())) end
end

local run_options = {
  settings = true, key = "string", bind = "string", timeout = "number", on_progress = "function",
}

local function check_options(options, level)
  if type(options) ~= "table" then error("options are a table, not a " .. type(options), level + 1) end
  for key, value in pairs(options) do
    local kind = run_options[key]
    if not kind then error(("unknown option '%s'"):format(tostring(key)), level + 1) end
    if kind ~= true and type(value) ~= kind then
      error(("option '%s' is a %s, not a %s"):format(key, type(value), kind), level + 1)
    end
  end
  if options.timeout and not (options.timeout > 0) then error("'timeout' is a number of seconds", level + 1) end
  if options.bind and not core.address.ip(options.bind) then error("'bind' is an IP address", level + 1) end
end

function check:__close()
  if self.signal then self.signal:close() end
  if self.identity then self.identity:close() end
end

local function run(options)
  core.signal.start_early() -- while all else is made ready
  local chosen, message, code = settings.load(options.settings)
  if not chosen then return nil, message, code end
  local began, timeout = task.now(), options.timeout or TIMEOUT
  local self <close> = setmetatable({
    options = options, settings = chosen, answer_by = began + timeout, over = began + timeout + MORE, parts = {},
    stun_parts = {}, speaking = { [4] = {}, [6] = {} }, named = { [4] = {}, [6] = {} }, udp_passes = {},
    changed = task.condition(),
    result = {
      interfaces = {}, brokers = {}, stun = {}, turn = {},
      clock = { ok = false, servers = {}, code = "ENOENT", message = "ENOENT: no clock is configured" },
      settings = type(options.settings) == "string" and options.settings or settings.default_path(),
    },
  }, check)
  local result, addresses = self.result, nil
  local list
  list, message, code = nic.list()
  if list then addresses, message, code = cards.usable(list, options.bind) end
  if not list or options.bind and not addresses then return nil, message, code end
  self.has = families_of(addresses or {})
  if not addresses or addresses[1].kind == "loopback" and not options.bind then
    result.ok, result.code = false, "ENETDOWN"
    result.message = "ENETDOWN: no network interface is up and has an address"
    list_servers(self, result)
  else
    open_signal(self)
    run_all(self, addresses)
    conclude(self)
  end
  result.ms = math.floor((task.now() - began) * 1000 + 0.5)
  result.hints = hints.of(result)
  return result
end

--- Looks at everything once.
---@param options? p2pd.NetcheckOptions
---@return p2pd.Netcheck? result, string? message, p2pd.Code? code
function M.run(options)
  options = options or {}
  check_options(options, 2)
  return run(options)
end

-- Watching ------------------------------------------------------------------------------------------------------------

-- Whether the external address is another one than it was, or not to be seen any more.
local function has_moved(result)
  local stun = require "p2pd.stun"
  local speaking = {}
  for _, server in ipairs(result.stun) do
    if server.ok then speaking[#speaking + 1] = { host = server.host, port = server.port } end
  end
  for _, one in ipairs(#speaking > 0 and result.interfaces or {}) do
    local side = one.ipv4 and one.ipv4.external and one.ipv4 or one.ipv6
    if side and side.external then
      local found = stun.external { servers = speaking, ip = side.internal, timeout = TIMEOUT }
      return not found or found.external_ip ~= side.external
    end
  end
  return false
end

--- Looks at everything, and again whenever the network changes, until the task is cancelled. `on_check` gets each
--- result, and the one before.
---@param options p2pd.NetcheckOptions
---@param on_check fun(result: p2pd.Netcheck, before: p2pd.Netcheck?)
---@return nil, string message, p2pd.Code code
function M.watch(options, on_check)
  check_options(options, 2)
  if type(on_check) ~= "function" then error("a function is expected, not a " .. type(on_check), 2) end
  local watcher <close>, message, code = nic.watch()
  if not watcher then return nil, message, code end
  local before, result
  repeat
    result, message, code = run(options)
    if result then
      on_check(result, before)
      before = result
    elseif not before then
      return nil, message, code
    end
    local event, why, how
    repeat
      event, why, how = watcher:wait(EVERY)
      if not event and how ~= "ETIMEDOUT" then return nil, why, how end
    until event or has_moved(before) or not before.ok
  until false
end

-- JSON ----------------------------------------------------------------------------------------------------------------

local EMPTY = "[an empty list]" -- cjson would write {}

local LISTS = {
  interfaces = true, brokers = true, stun = true, turn = true, servers = true, hints = true, hops = true,
  strategies = true,
}
local ALWAYS = { internal = { "external", "udp", "tcp" }, mtu = { "ipv4", "ipv6", "portmap" } }

local function to_json(value, key)
  if type(value) ~= "table" then return value end
  if next(value) == nil then return LISTS[key] and EMPTY or value end
  local copy = {}
  for name, inner in pairs(value) do copy[name] = to_json(inner, name) end
  for mark, fields in pairs(ALWAYS) do
    for _, field in ipairs(value[mark] and fields or {}) do
      if copy[field] == nil then copy[field] = cjson.null end
    end
  end
  return copy
end

--- A result as JSON, in one line; what is not there is null.
---@param result p2pd.Netcheck
---@return string
function M.json(result)
  local text = cjson.encode(to_json(result)):gsub('"%[an empty list%]"', "[]")
  return text
end

return M
