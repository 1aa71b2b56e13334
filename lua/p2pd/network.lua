-- network: how a node's interfaces look from outside. What can be known at once is there at once, the rest is learnt
-- meanwhile, and all of it is learnt anew when something changes:
--
--   the interfaces   from the system
--   external IP      from the cache, and the first STUN server that answers
--   NAT, delta       from the cache, and some seconds later from tests by STUN (p2pd.nat)
--   a mapped port    where the router gives one and nobody gets in without (p2pd.portmap)
--
-- Who wants to be met at a port that is not mapped asks for facts, holds and samples (p2pd.holds).
local cards = require "p2pd.cards"
local core = require "p2pd.core"
local netcache = require "p2pd.netcache"
local nic = require "p2pd.nic"
local speakers = require "p2pd.speakers"
local task = require "p2pd.task"

local M = {}

local MAX_INTERFACES = 3 -- per address family (the address format's limit)
local STUN_TIMEOUT = 2   -- seconds
local SURE = 0.3         -- confidence from which on a test replaces what is assumed
local SILENCE = 0.4      -- seconds without an answer by UDP after which TCP is tried
local AGAIN = 900        -- seconds until the external address is looked at again: it can change silently
local VERIFY = 3         -- seconds until what the cache says is examined: who connects at once is not to be disturbed

-- What is known of a NAT that was not examined: the defaults of the address format.
local UNKNOWN = { nat = "port-restricted", delta = "random", delta_value = 0 }
local LETS_IN = { open = true, ["full-cone"] = true }
local PORTS = { first = 1024, last = 65535 } -- of a router whose range did not show

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

local function can_be_outside(address)
  return address.kind ~= "loopback" and address.kind ~= "link-local"
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
        local one = before[key] or {
          key = key, address = address, outside = can_be_outside(address),
          entry = interface(self, card, place, address),
        }
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
    if self.holds then self.holds:cool(gone.address.ip) end
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

-- Connections by an external address that is another one now are dead without a word, as when an interface is gone.
local function tell(self, one, known)
  local moved = one.seen ~= nil and known.external ~= nil and known.external ~= one.seen
  if lay_over(one, known) and not one.gone then self.options.on_change(moved or nil) end
end

local function learn_external(self, one)
  local stun = require "p2pd.stun"
  local found = stun.external {
    servers = self.options.stun, ip = one.address.ip, timeout = STUN_TIMEOUT,
    on_answer = function(so_far)
      local answer = so_far.answers[#so_far.answers]
      self.speakers:heard({ host = answer.host, ip = answer.from_ip, port = answer.port })
      if believable(so_far.external_ip) then
        tell(self, one, { external = so_far.external_ip })
        one.seen = so_far.external_ip
      end
      one.ready = true
      self.changed:signal()
    end,
  }
  one.ready = true
  self.changed:signal()
  if found and found.disagreement then
    self.options.notice(("STUN servers see different addresses of %s; most see %s"):format(one.address.ip,
      found.external_ip))
  end
end

-- The NAT -------------------------------------------------------------------------------------------------------------

-- Waits while somebody counts on it that no other connections are made.
local function wait_for_quiet(self)
  while task.now() < self.quiet_until do
    self.changed:wait(self.quiet_until - task.now())
  end
end

-- What shows whether strangers get in; false where no relay can be used for that.
local function outside_of(self)
  if self.outside == nil then
    local relays = #(self.options.turn or {}) > 0 and require "p2pd.outside".new(self.options.turn)
    self.outside = relays or false
  end
  return self.outside
end

-- Over TCP; where UDP is silent, this is how the external address is seen, too.
local function learn_nat(self, one)
  local nat = require "p2pd.nat"
  local servers = self.speakers:addresses(one.address.family, true)
  if #servers == 0 then return end
  local strangers = outside_of(self)
  local found = nat.check {
    ip = one.address.ip, servers = servers, transport = "tcp",
    turn = strangers and function() return strangers:lets_in(one.address.ip, servers) end or nil,
  }
  if found and not one.seen and believable(found.external) then one.seen = found.external end
  if not found or not one.seen or found.type_confidence < SURE then return end
  local known = { nat = found.nat, delta = UNKNOWN.delta, delta_value = UNKNOWN.delta_value }
  if found.delta_confidence >= SURE then known.delta, known.delta_value = found.delta, found.value end
  local range = found.range or {}
  known.first, known.last = range[1] or PORTS.first, range[2] or PORTS.last
  known.confidence, known.external = found.confidence, one.seen
  known.servers = self.speakers:note(servers, found.observations.seen)
  one.examined = known
  if one.mapping then
    one.lay_mapping() -- what is mapped goes over what was examined
  else
    tell(self, one, known)
  end
  netcache.put(one.key, known)
end

-- Where to ask: a link-local address means something on its own link only.
local function gateway_of(address)
  local is_link_local = core.address.ip((address.gateway:gsub("%%.*", ""))).kind == "link-local"
  if not is_link_local or address.family == 4 or address.gateway:find("%", 1, true) then return address.gateway end
  return address.gateway .. "%" .. address.name
end

-- Whether one gets in by it from outside; nothing where nobody can tell.
local function verify(strangers, ip, port)
  local comes_in = strangers:reach(ip, port)
  if comes_in == false then return false, "a connection from outside does not come in by it" end
  return comes_in
end

-- IPv4: a port of the router's address. IPv6: the router's firewall lets our port in.
local function map_port(self, one)
  local portmap = require "p2pd.portmap"
  local let_in = one.address.family == 4 and "full-cone" or "open"
  local function use(mapping)
    local works = not mapping.lost and mapping.verified ~= false
    tell(self, one, {
      port = works and mapping.external_port or self.options.port,
      nat = works and let_in or (one.examined or one.cached or UNKNOWN).nat,
    })
  end
  local strangers = outside_of(self)
  local mapping = portmap.open {
    internal_ip = one.address.ip, gateway = gateway_of(one.address), internal_port = self.options.port,
    name = self.options.name, seen_ip = one.seen, on_change = use,
    verify = strangers and function(ip, port) return verify(strangers, ip, port) end or nil,
  }
  if not mapping then return end
  one.mapping, one.lay_mapping = mapping, function() use(mapping) end
  use(mapping)
end

-- Where a router of ours could let peers in that do not get in by themselves.
local function is_worth_mapping(one)
  if not one.address.gateway or LETS_IN[one.entry.nat] then return false end
  if one.address.family == 4 then return one.seen ~= one.address.ip end
  local known = one.examined or one.cached
  return known ~= nil and known.nat == "udp-firewall"
end

local function map_if_useful(self, one)
  if one.seen and self.options.map and not one.mapping and is_worth_mapping(one) then map_port(self, one) end
end

local under_way = { ready = true, running = true, parked = true }

-- Once the node is ready, holds are kept where they are of use.
local function warm_up(self)
  if self.is_warm then require "p2pd.meeting".warm_up(self) end
end

-- One interface's life, until it is gone.
local function learn(self, one)
  local _ <close> = setmetatable({}, { __close = function()
    if one.mapping then one.mapping:close() end
  end })
  while true do
    local looking <close> = task.group()
    local look = looking:spawn(learn_external, self, one)
    -- At first one server's answer is enough to go on with; and where UDP is silent TCP may not be.
    if one.seen then look:wait() end
    local silent_at = task.now() + SILENCE
    while not one.seen and under_way[look:status()] and task.now() < silent_at do
      self.changed:wait(silent_at - task.now())
    end
    if not one.examined or one.examined.external ~= one.seen then
      if one.cached then
        map_if_useful(self, one)
        task.sleep(VERIFY)
      end
      wait_for_quiet(self)
      learn_nat(self, one)
    end
    one.settled = true
    warm_up(self)
    self.changed:signal()
    map_if_useful(self, one)
    look:wait()
    one.again:wait(AGAIN)
  end
end

local function begin_to_learn(self, fresh)
  for _, one in ipairs(fresh) do
    if one.outside and #self.options.stun > 0 then
      local known = netcache.get(one.key)
      if known then
        lay_over(one, known)
        self.speakers:recall(known.servers)
        one.cached, one.ready = known, true
      end
      one.again = task.condition()
      one.learning = task.spawn(learn, self, one):observe()
      self.tasks[#self.tasks + 1] = one.learning
    else
      one.ready, one.settled = true, true
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
      warm_up(self)
      self.options.on_change(true)
    end
  end
end

-- What others are told -----------------------------------------------------------------------------------------------

--- To be called when nothing is waited for any more: what is kept ready from now on costs a few packets.
function network:warm()
  self.is_warm = true
  self.tasks[#self.tasks + 1] = task.spawn(warm_up, self):observe()
end

-- p2pd.meeting's, which is loaded when it is needed first.
for _, name in ipairs { "facts", "hold", "sample" } do
  network[name] = function(...) return require "p2pd.meeting"[name](...) end
end

-- The network itself --------------------------------------------------------------------------------------------------

--- Looks at the interfaces, and begins to learn the rest; `turn` are servers that show whether strangers get in.
--- `on_change` is called whenever the address is another one; with true when connections by the old one may be dead:
--- interfaces came or went, or the external address changed.
---@param options {bind: string?, port: integer, stun: table[], turn: table[]?, map: boolean?, name: string?,
---                on_change: fun(interfaces: boolean?), notice: fun(text: string), keep: number?}
---@return table? network {ipv4=, ipv6=, prefixes=, loopback_only=}, string? message, string? code
function M.open(options)
  local self = setmetatable({
    options = options, known = {}, tasks = {}, changed = task.condition(),
    speakers = speakers.new(options.stun), quiet_until = 0, alone_until = 0, samples = 0,
  }, network)
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

--- Ends it; mapped ports are given back, and holds end.
function network:close()
  self.closed = true
  if self.holds then self.holds:close() end
  for _, own in ipairs(self.tasks) do own:cancel() end
  for _, own in ipairs(self.tasks) do pcall(own.wait, own) end
  self.tasks = {}
end

return M
