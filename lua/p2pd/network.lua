-- network: which interfaces a node has, and the address by which the Internet sees each.
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {}

local MAX_INTERFACES = 3 -- per address family (the address format's limit)
local LOOKUP_TIMEOUT = 2 -- seconds
local LOOKUPS_AT_ONCE = 3

-- What is known of a NAT that was not examined: the defaults of the address format.
local UNKNOWN = { nat = "port-restricted", delta = "random", delta_value = 0 }

-- The addresses of the cards that are up, loopback and multicast left out; with `bind`, that address alone.
local function own_addresses(bind)
  local list, message, code = core.nic.list()
  if not list then return nil, message, code end
  local wanted, loopback = {}, {}
  for _, entry in ipairs(list) do
    local kind = core.address.ip(entry.ip).kind
    entry.kind = kind
    if bind then
      if entry.ip == bind then wanted[#wanted + 1] = entry end
    elseif entry.up and kind == "loopback" then
      loopback[#loopback + 1] = entry
    elseif entry.up then
      wanted[#wanted + 1] = entry
    end
  end
  local usable = false
  for _, entry in ipairs(wanted) do usable = usable or entry.kind ~= "link-local" end
  if not usable and not bind then wanted = loopback end
  if #wanted == 0 then
    return nil, "EADDRNOTAVAIL: " .. (bind and "no interface has the address " .. bind or "no network interface is up"),
      "EADDRNOTAVAIL"
  end
  return wanted, list
end

-- One interface per card: its first usable address of each family, and its link-local one.
local function by_card(addresses)
  local cards, order = {}, {}
  for _, entry in ipairs(addresses) do
    local card = cards[entry.name]
    if not card then
      card = { name = entry.name, index = entry.index }
      cards[entry.name] = card
      order[#order + 1] = card
    end
    local family = core.address.ip(entry.ip).family
    if family == 6 and entry.kind == "link-local" then
      card.link_local = card.link_local or entry.ip
    else
      card[family] = card[family] or entry.ip
    end
  end
  table.sort(order, function(a, b) return a.name < b.name end)
  return order
end

-- The external address of a local one, from whichever of a few STUN servers answers first.
local function external_of(ip, family, servers)
  local lookups = {}
  for _, server in ipairs(servers) do
    if #lookups == LOOKUPS_AT_ONCE then break end
    lookups[#lookups + 1] = function()
      local ips = core.dns.resolve(server.host, LOOKUP_TIMEOUT)
      for _, to in ipairs(ips or {}) do
        if core.address.ip(to).family == family then
          local found = core.stun.lookup { ip = to, port = server.port, local_ip = ip, timeout = LOOKUP_TIMEOUT }
          return found and found.external_ip
        end
      end
    end
  end
  if #lookups == 0 then return nil end
  local found = task.timeout(LOOKUP_TIMEOUT, task.race, lookups)
  return found
end

-- What a STUN server saw, when that can be an address on the Internet: one inside of a network shows another address to
-- those inside, which is of no use to peers elsewhere, and which the address format refuses.
local function believable(ip)
  local kind = ip and core.address.ip(ip).kind
  return (kind == "global" or kind == "shared") and ip or nil
end

local function asks_stun(ip)
  local kind = core.address.ip(ip).kind
  return kind ~= "loopback" and kind ~= "link-local"
end

--- The interfaces of an address, and the prefixes that are on-link, as the machine has them now.
---@param options {bind: string?, port: integer, stun: table[]}
---@return table? network {ipv4=, ipv6=, prefixes=, loopback_only=}, string? message, string? code
function M.look(options)
  local addresses, list, code = own_addresses(options.bind)
  if not addresses then return nil, list, code end
  local network = { ipv4 = {}, ipv6 = {}, prefixes = {}, loopback_only = true }
  for _, entry in ipairs(list) do
    if entry.up then
      network.prefixes[#network.prefixes + 1] = { ip = entry.ip, prefix = entry.prefix, interface = entry.name }
    end
  end
  local lookups <close> = task.group()
  for place, card in ipairs(by_card(addresses)) do
    for _, family in ipairs { 4, 6 } do
      local section, ip = network[family == 4 and "ipv4" or "ipv6"], card[family]
      if ip and #section < MAX_INTERFACES then
        local entry = {
          netiface_index = card.index, if_index = place - 1, external = ip, port = options.port,
          internal = family == 6 and card.link_local and card.link_local:gsub("%%.*", "") or ip,
          nat = UNKNOWN.nat, delta = UNKNOWN.delta, delta_value = UNKNOWN.delta_value,
        }
        section[#section + 1] = entry
        if core.address.ip(ip).kind ~= "loopback" then network.loopback_only = false end
        if asks_stun(ip) then
          lookups:spawn(function() entry.external = believable(external_of(ip, family, options.stun)) or ip end)
        end
      end
    end
  end
  for _, lookup in ipairs(lookups) do lookup:wait() end
  return network
end

return M
