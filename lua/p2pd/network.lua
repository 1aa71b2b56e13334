-- network: how a node's interfaces look from outside. What can be known at once is there at once, the rest is learnt
-- meanwhile, and all of it is learnt anew when something changes:
--
--   the interfaces   from the system
--   external IP      from the cache, and the first STUN server that answers
--   NAT, delta       from the cache, and some seconds later from tests by STUN (p2pd.nat)
--   a mapped port    where the router gives one and nobody gets in without (p2pd.portmap)
local cards = require "p2pd.cards"
local core = require "p2pd.core"
local netcache = require "p2pd.netcache"
local nic = require "p2pd.nic"
local task = require "p2pd.task"

local M = {}

local MAX_INTERFACES = 3 -- per address family (the address format's limit)
local STUN_TIMEOUT = 2   -- seconds
local NAME_TIMEOUT = 2   -- seconds, for the name of a STUN server
local NAT_SERVERS = 4    -- that a NAT is tested with
local SURE = 0.3         -- confidence from which on a test replaces what is assumed
local AGAIN = 900        -- seconds until the external address is looked at again: it can change silently

-- What is known of a NAT that was not examined: the defaults of the address format.
local UNKNOWN = { nat = "port-restricted", delta = "random", delta_value = 0 }
local LETS_IN = { open = true, ["full-cone"] = true }

local network = {}
network.__index = network

-- Interfaces ----------------------------------------------------------------------------------------------------------

local function interface(self, card, place, address)
  local internal = address.ip
  if address.family == 6 and card.link_local then internal = card.link_local:gsub("%%.*", "") end
  return {
    netiface_index = card.index, if_index = place - 1, external = address.ip, internal = internal,
    port = self.options.port, nat = UNKNOWN.nat, delta = UNKNOWN.delta, delta_value = UNKNOWN.delta_value,
  }
end

-- What makes two networks the same one.
local function key_of(address)
  return ("%s %s %s/%d"):format(address.name, address.gateway or "-", address.ip, address.prefix)
end

-- Looks at the system, and keeps what is known of interfaces that are the same as before. Returns those that are new.
local function survey(self)
  local list, message, code = nic.list()
  if not list then return nil, message, code end
  local addresses
  addresses, message, code = cards.usable(list, self.options.bind)
  if not addresses then return nil, message, code end
  local before, fresh = self.known, {}
  self.known, self.ipv4, self.ipv6, self.prefixes, self.loopback_only = {}, {}, {}, {}, true
  for _, entry in ipairs(list) do
    if entry.up then
      self.prefixes[#self.prefixes + 1] = { ip = entry.ip, prefix = entry.prefix, interface = entry.name }
    end
  end
  for place, card in ipairs(cards.by_card(addresses)) do
    for _, family in ipairs { 4, 6 } do
      local section, address = self[family == 4 and "ipv4" or "ipv6"], card[family]
      if address and #section < MAX_INTERFACES then
        local key = key_of(address)
        local one = before[key] or { key = key, address = address, entry = interface(self, card, place, address) }
        if not before[key] then fresh[#fresh + 1] = one end
        one.entry.if_index, before[key] = place - 1, nil
        self.known[key] = one
        section[#section + 1] = one.entry
        if address.kind ~= "loopback" then self.loopback_only = false end
      end
    end
  end
  for _, gone in pairs(before) do
    gone.gone = true
    if gone.learning then gone.learning:cancel() end
  end
  return fresh, before
end

-- Learning ------------------------------------------------------------------------------------------------------------

-- What a STUN server saw, when that can be an address on the Internet: one inside of a network shows another address to
-- those inside, which is of no use to peers elsewhere, and which the address format refuses.
local function believable(ip)
  local kind = ip and core.address.ip(ip).kind
  return kind == "global" or kind == "shared"
end

-- Lays what is known over an interface; tells whether that made a difference.
local function lay_over(one, known)
  local changed = false
  for _, field in ipairs { "external", "port", "nat", "delta", "delta_value" } do
    if known[field] ~= nil and one.entry[field] ~= known[field] then
      one.entry[field], changed = known[field], true
    end
  end
  return changed
end

local function tell(self, one, known)
  if lay_over(one, known) and not one.gone then self.options.on_change() end
end

local function learn_external(self, one)
  local stun = require "p2pd.stun"
  local found = stun.external {
    servers = self.options.stun, ip = one.address.ip, timeout = STUN_TIMEOUT,
    on_answer = function(so_far)
      if believable(so_far.external_ip) then
        tell(self, one, { external = so_far.external_ip })
        one.seen = so_far.external_ip
      end
      one.ready = true
      self.changed:signal()
    end,
  }
  if found and found.disagreement then
    self.options.notice(("STUN servers see different addresses of %s; most see %s"):format(one.address.ip,
      found.external_ip))
  end
  return one.seen
end

local function stun_addresses(self, family)
  local list = {}
  for _, server in ipairs(self.options.stun) do
    for _, ip in ipairs(core.dns.resolve(server.host, NAME_TIMEOUT) or {}) do
      if core.address.ip(ip).family == family then
        list[#list + 1] = { ip = ip, port = server.port }
        break
      end
    end
    if #list == NAT_SERVERS then break end
  end
  return list
end

local function learn_nat(self, one)
  local nat = require "p2pd.nat"
  local servers = stun_addresses(self, one.address.family)
  if #servers == 0 then return end
  local found = nat.check { ip = one.address.ip, servers = servers, transport = "tcp" }
  if not found or found.type_confidence < SURE then return end
  local known = { nat = found.nat, delta = UNKNOWN.delta, delta_value = UNKNOWN.delta_value }
  if found.delta_confidence >= SURE then known.delta, known.delta_value = found.delta, found.value end
  one.examined = known
  tell(self, one, known)
  netcache.put(one.key, { external = one.seen, nat = known.nat, delta = known.delta, delta_value = known.delta_value })
end

local function map_port(self, one)
  local portmap = require "p2pd.portmap"
  local function use(mapping)
    local works = not mapping.lost and mapping.verified ~= false
    local examined = one.examined
    tell(self, one, {
      port = works and mapping.external_port or self.options.port,
      nat = works and "full-cone" or examined and examined.nat or one.entry.nat,
    })
  end
  local mapping = portmap.open {
    internal_ip = one.address.ip, gateway = one.address.gateway, internal_port = self.options.port,
    name = self.options.name, seen_ip = one.seen, on_change = use,
  }
  if not mapping then return end
  one.mapping = mapping
  use(mapping)
end

local function can_be_outside(address)
  return address.kind ~= "loopback" and address.kind ~= "link-local"
end

-- One interface's life, until it is gone.
local function learn(self, one)
  local _ <close> = setmetatable({}, { __close = function()
    if one.mapping then one.mapping:close() end
  end })
  while true do
    local seen = learn_external(self, one)
    one.ready = true
    self.changed:signal()
    if seen and not one.examined then
      learn_nat(self, one)
      local behind = one.address.family == 4 and seen ~= one.address.ip and one.address.gateway
      if behind and self.options.map and not LETS_IN[one.entry.nat] then map_port(self, one) end
    end
    task.sleep(AGAIN)
  end
end

local function begin_to_learn(self, fresh)
  for _, one in ipairs(fresh) do
    if can_be_outside(one.address) and #self.options.stun > 0 then
      local known = netcache.get(one.key)
      if known then
        lay_over(one, known)
        one.ready = true
      end
      one.learning = task.spawn(learn, self, one):observe()
      self.tasks[#self.tasks + 1] = one.learning
    else
      one.ready = true
    end
  end
end

-- Changes -------------------------------------------------------------------------------------------------------------

local function watch(self, watcher)
  local _ <close> = watcher
  while watcher:wait() do
    local fresh, gone = survey(self)
    if fresh and (#fresh > 0 or next(gone)) then
      begin_to_learn(self, fresh)
      self.options.on_change(true)
    end
  end
end

-- The network itself --------------------------------------------------------------------------------------------------

--- Looks at the interfaces, and begins to learn the rest. `on_change` is called whenever the address is another one;
--- with true when interfaces came or went.
---@param options {bind: string?, port: integer, stun: table[], map: boolean?, name: string?,
---                on_change: fun(interfaces: boolean?), notice: fun(text: string)}
---@return table? network {ipv4=, ipv6=, prefixes=, loopback_only=}, string? message, string? code
function M.open(options)
  local self = setmetatable({ options = options, known = {}, tasks = {}, changed = task.condition() }, network)
  local fresh, message, code = survey(self)
  if not fresh then return nil, message, code end
  begin_to_learn(self, fresh)
  local watcher = not options.bind and nic.watch()
  if watcher then self.tasks[#self.tasks + 1] = task.spawn(watch, self, watcher):observe() end
  return self
end

--- Waits until each interface's external address is known, from before or by one server's answer, or cannot be known.
---@param timeout? number seconds
function network:ready(timeout)
  local deadline = task.now() + (timeout or STUN_TIMEOUT)
  while task.now() < deadline do
    local waiting = false
    for _, one in pairs(self.known) do waiting = waiting or not one.ready end
    if not waiting then return true end
    self.changed:wait(math.max(0, deadline - task.now()))
  end
end

--- Ends it; mapped ports are given back.
function network:close()
  for _, own in ipairs(self.tasks) do own:cancel() end
  for _, own in ipairs(self.tasks) do pcall(own.wait, own) end
  self.tasks = {}
end

return M
