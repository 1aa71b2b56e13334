-- portmap: a port of the router that leads to one of ours, by whatever way the router offers.
local core = require "p2pd.core"
local methods = require "p2pd.portmap.methods"
local task = require "p2pd.task"

local M = {}

local TIMEOUT = 8       -- seconds for all of opening
local LIFETIME = 3600   -- seconds; RFC 6886, 3.3 recommends two hours
local LIFETIME_MAX = 7 * 86400 -- WANIPConnection:2, 2.3.17
local CLOSE = 2         -- seconds for removing a mapping
local AGAIN = 30        -- seconds after which a mapping that was lost is tried for
local LEAST = 0.5       -- seconds between two tries to renew
local NAME_LENGTH = 12  -- of the given name in a mapping's own: some routers keep 32 characters

-- Arguments -------------------------------------------------------------------------------------------------------

local function is_port(value) return math.type(value) == "integer" and value >= 1 and value <= 65535 end

local function is_ip(value) return type(value) == "string" and core.address.ip((value:gsub("%%.*", ""))) ~= nil end

local function is_a(kind)
  return function(value) return type(value) == kind end
end

local function is_methods(list)
  if type(list) ~= "table" or #list == 0 then return false end
  for _, name in ipairs(list) do
    if not methods.by_name[name] then return false end
  end
  return true
end

local probe_options = {
  gateway = { is_ip, "an IP address" }, internal_ip = { is_ip, "an IP address" },
  location = { is_a "string", "a string" }, methods = { is_methods, 'a list of "nat-pmp", "upnp" and "pinhole"' },
  timeout = { function(value) return type(value) == "number" and value > 0 end, "a number of seconds" },
}

local open_options = setmetatable({
  protocol = { function(value) return value == "tcp" or value == "udp" end, '"tcp" or "udp"' },
  internal_port = { is_port, "a port" }, external_port = { is_port, "a port" },
  lifetime = {
    function(value) return math.type(value) == "integer" and value >= 1 and value <= LIFETIME_MAX end,
    "a whole number of seconds, 604800 at most",
  },
  name = { is_a "string", "a string" }, seen_ip = { is_ip, "an IP address" },
  verify = { is_a "function", "a function" }, on_change = { is_a "function", "a function" },
}, { __index = probe_options })

local function check(options, known, level)
  if type(options) ~= "table" then error("options are a table, not a " .. type(options), level + 1) end
  for key, value in pairs(options) do
    local rule = known[key]
    if not rule then error(("unknown option '%s'"):format(tostring(key)), level + 1) end
    if not rule[1](value) then error(("'%s' is not %s"):format(key, rule[2]), level + 1) end
  end
end

-- The methods for the address's family, of those that the options allow.
local function methods_for(family, allowed)
  local list = {}
  for _, method in ipairs(methods.of_family[family]) do
    for _, name in ipairs(allowed or { method.name }) do
      if name == method.name then list[#list + 1] = method end
    end
  end
  return list
end

-- Where to ask ----------------------------------------------------------------------------------------------------

local function lines(path)
  local file = io.open(path)
  if not file then return function() end end
  local text = file:read "a"
  file:close()
  return text:gmatch "[^\n]+"
end

-- The default route with the lowest metric: proc_net(5) has the gateway as the bytes of a little-endian number.
local function default_gateway4()
  local best, lowest
  for line in lines "/proc/net/route" do
    local gateway, flags, metric = line:match "^%S+%s+00000000%s+(%x+)%s+(%x+)%s+%d+%s+%d+%s+(%d+)%s+00000000"
    if gateway and tonumber(flags, 16) & 2 ~= 0 and (not lowest or tonumber(metric) < lowest) then
      lowest = tonumber(metric)
      best = ("%d.%d.%d.%d"):format(string.pack("=I4", tonumber(gateway, 16)):byte(1, 4))
    end
  end
  return best
end

local function default_gateway6()
  local best, lowest
  for line in lines "/proc/net/ipv6_route" do
    local gateway, metric, flags, device =
      line:match "^0+ 00 0+ 00 (%x+) (%x+) %x+ %x+ (%x+)%s+(%S+)"
    if gateway and tonumber(flags, 16) & 2 ~= 0 and (not lowest or tonumber(metric, 16) < lowest) then
      lowest = tonumber(metric, 16)
      local ip = core.address.ip((gateway:gsub("%x%x%x%x", "%0:"):sub(1, -2))).text
      best = ip:find "^fe[89ab]" and ip .. "%" .. device or ip
    end
  end
  return best
end

-- The router, and our address toward it.
local function target_of(options)
  local given = options.internal_ip or options.gateway or ""
  local family = given:find(":", 1, true) and "6" or "4"
  local target = { gateway = options.gateway, location = options.location }
  target.methods = methods_for(family, options.methods)
  target.gateway = target.gateway or (family == "6" and default_gateway6 or default_gateway4)()
  if not target.gateway then
    return nil, ("ENETUNREACH: no router is known: there is no default route for IPv%s"):format(family), "ENETUNREACH"
  end
  target.internal_ip = options.internal_ip
  if not target.internal_ip then
    local ip, message, code = core.nic.source(target.gateway)
    if not ip then return nil, message, code end
    target.internal_ip = ip
  end
  return target
end

-- Looking for ways ------------------------------------------------------------------------------------------------

-- What tells only that nobody speaks a protocol.
local silent = { ETIMEDOUT = true, ECONNREFUSED = true, EHOSTUNREACH = true }

-- One sentence of all that went wrong.
local function summary(target, failures)
  local parts, code = {}, nil
  for _, method in ipairs(target.methods) do
    local failure = failures[method.name]
    if failure then
      parts[#parts + 1] = ("%s: %s"):format(method.title, (failure.message:gsub("^" .. failure.code .. ": ", "")))
      if not code or silent[code] then code = failure.code end
    end
  end
  if silent[code] then code = "ENOTSUP" end
  return nil, ("%s: the router %s maps no port (%s)"):format(code, target.gateway, table.concat(parts, "; ")), code
end

-- Asks by all methods side by side that have not failed: the first that finds something wins.
local function find(target, failures, deadline)
  local ways = {}
  for _, method in ipairs(target.methods) do
    if not failures[method.name] then
      ways[#ways + 1] = function()
        local found, message, code = method.find(target, deadline)
        if not found then failures[method.name] = { message = message, code = code } end
        return found and method, found
      end
    end
  end
  if #ways == 0 then return nil end
  return task.race(ways)
end

-- Mappings --------------------------------------------------------------------------------------------------------

local mapping = {}
mapping.__index = mapping
mapping.__name = "p2pd.mapping"

M.methods = mapping -- for spec/meta_spec.lua

-- Whether the mapping does what the router says: nil where nobody knows, else a boolean; and why it does not.
local function judge(self)
  local ip, options = self.external_ip, self.options
  if not ip then return false, "the router does not say its external address" end
  local kind = core.address.ip(ip).kind
  if kind ~= "global" then
    return false, ("the router's own address %s is %s: another router is in front of it"):format(ip, kind)
  end
  if options.seen_ip and options.seen_ip ~= ip then
    return false, ("the router says %s, but others see %s: another router is in front of it"):format(ip,
      options.seen_ip)
  end
  if not options.verify then return nil end
  local works, reason = options.verify(ip, self.external_port)
  if works then return true end
  if works == nil and not reason then return nil end
  return false, reason or "nothing comes in by it"
end

-- Keeps what the router has granted; returns whether that is another address than before.
local function take(self, mapped)
  local changed = self.external_ip ~= mapped.external_ip or self.external_port ~= mapped.external_port
    or self.lost ~= nil
  self.external_ip, self.external_port, self.lifetime = mapped.external_ip, mapped.external_port, mapped.lifetime
  self.id, self.lost = mapped.id, nil
  self.expires = task.now() + (mapped.lifetime == 0 and math.huge or mapped.lifetime)
  if changed then self.verified, self.reason = judge(self) end
  return changed
end

local function want(self, first)
  return {
    protocol = self.protocol, internal_port = self.internal_port, lifetime = self.wanted_lifetime, name = self.name,
    external_port = self.external_port or self.options.external_port or self.internal_port, id = self.id,
    first = first,
  }
end

-- Has it made, by the first method that does. What was begun and not finished is undone.
local function establish(self)
  local deadline, failures, target = task.now() + (self.options.timeout or TIMEOUT), {}, self.target
  while true do
    local method, found = find(target, failures, deadline)
    if not method then return summary(target, failures) end
    local undo <close> = setmetatable({}, { __close = function(_, failure) -- luacheck: ignore 211
      if failure then method.unmap(target, found, self, task.now() + CLOSE) end
    end })
    local mapped, message, code = method.map(target, found, want(self, true), deadline)
    if mapped then
      self.by, self.found, self.method = method, found, method.name
      self.router, self.location = found.name, found.location
      take(self, mapped)
      return true
    end
    failures[method.name] = { message = message, code = code }
  end
end

-- Waits until half of what is left is over, and asks for the same again.
local function renew(self)
  local lifetime = self.lifetime == 0 and self.wanted_lifetime or self.lifetime
  local pause = lifetime / 2
  while not self.lost do
    task.sleep(math.max(LEAST, pause))
    local mapped, message = self.by.map(self.target, self.found, want(self, false), task.now() + CLOSE)
    if mapped then
      self.renewals = self.renewals + 1
      return take(self, mapped)
    end
    local left = self.expires - task.now()
    pause = left == math.huge and AGAIN or left / 2
    if left <= LEAST then self.lost = message end
  end
  return true
end

local function tell(self)
  if self.options.on_change then self.options.on_change(self) end
end

local function keep(self)
  while not self.closed do
    if renew(self) then tell(self) end
    while self.lost and not self.closed do
      task.sleep(math.min(AGAIN, self.wanted_lifetime / 2))
      local ok, message = establish(self)
      if ok then tell(self) else self.lost = message end
    end
  end
end

--- Removes it. What the router says to that is returned; in any case it is not renewed any more.
function mapping:close()
  if self.closed then return true end
  self.closed = true
  if task.current() ~= self.keeper then
    local keeping <close> = task.group() -- cancels, and waits
    keeping[1] = self.keeper
  end
  local ok, message, code = self.by.unmap(self.target, self.found, self, task.now() + CLOSE)
  if ok or self.lost then return true end
  return nil, message, code
end

mapping.__close = mapping.close

function mapping:__tostring()
  return ("mapping (%s %s:%d to %d by %s%s)"):format(self.protocol, self.external_ip or "?", self.external_port,
    self.internal_port, self.method, self.closed and ", closed" or self.lost and ", lost" or "")
end

--- Has a port mapped to one of ours, and keeps it so until the mapping is closed.
function M.open(options)
  check(options, open_options, 2)
  if not options.internal_port then error("'internal_port' is missing", 2) end
  local target, message, code = target_of(options)
  if not target then return nil, message, code end
  local protocol, name = options.protocol or "tcp", (options.name or "node"):gsub("[^%w_.-]", "")
  local self = setmetatable({
    options = options, target = target, protocol = protocol, renewals = 0,
    internal_ip = target.internal_ip, internal_port = options.internal_port, gateway = target.gateway,
    name = ("p2pd-lua %s %s %d"):format(name:sub(1, NAME_LENGTH), protocol, options.internal_port),
    wanted_lifetime = options.lifetime or LIFETIME,
  }, mapping)
  local ok
  ok, message, code = establish(self)
  if not ok then return nil, message, code end
  self.keeper = task.spawn(keep, self)
  return self
end

--- What the router offers, asked by all methods side by side.
function M.probe(options)
  options = options or {}
  check(options, probe_options, 2)
  local target, message, code = target_of(options)
  if not target then return nil, message, code end
  local began, result = task.now(), { gateway = target.gateway, internal_ip = target.internal_ip, failures = {} }
  local deadline = began + (options.timeout or TIMEOUT)
  local tasks <close> = task.group()
  for _, method in ipairs(target.methods) do
    local key = method.name:gsub("-", "_")
    tasks:spawn(function()
      local found, problem = method.find(target, deadline)
      result.failures[key] = problem
      result[key] = found and {
        external_ip = found.external_ip, router = found.name, location = found.location, time = task.now() - began,
      } or nil
    end)
  end
  for _, one in ipairs(tasks) do one:wait() end
  result.time = task.now() - began
  return result
end

return M
