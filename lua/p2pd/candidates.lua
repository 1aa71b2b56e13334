-- candidates: which of a peer's addresses are worth trying from here. Pure: it asks nobody and opens nothing.
local core = require "p2pd.core"

local M = {}

---@class p2pd.Candidate
---@field ip string with our zone when it is link-local IPv6
---@field port integer
---@field scope "loopback"|"private"|"link-local"|"external"
---@field near? string what says that it can be reached: "same machine", "same external address", "on-link"
---@field lan boolean whether that says so for sure (a private prefix may be both ours and another network's)

-- The order in which scopes are listed: what is nearer answers sooner.
local scopes = { "loopback", "private", "link-local", "external" }

-- Addresses -------------------------------------------------------------------------------------------------------

-- { family =, kind =, text = } of a literal without its zone: which one it names here, the peer cannot know.
local function ip_of(text)
  return type(text) == "string" and core.address.ip((text:gsub("%%.*", ""))) or nil
end

--- The kind of an IP literal as core/ip.h has them ("global", "private" …), or nil when it is none.
---@return string?
function M.kind(text)
  local ip = ip_of(text)
  return ip and ip.kind
end

-- The last address of an IPv4 subnet reaches all of it (RFC 919); a prefix of 31 has none (RFC 3021).
local function is_subnet_broadcast(text, prefix)
  if text:find(":", 1, true) or prefix > 30 then return false end
  local number = 0
  for octet in text:gmatch("%d+") do number = number << 8 | tonumber(octet) end
  local host = (1 << (32 - prefix)) - 1
  return number & host == host
end

-- What we know of this side --------------------------------------------------------------------------------------

local function entries(address)
  local list = {}
  for _, family in ipairs { "ipv6", "ipv4" } do
    for _, entry in ipairs(address[family] or {}) do list[#list + 1] = entry end
  end
  return list
end

local function our_side(options)
  local own = options.own
  local side = {
    prefixes = {}, externals = {}, sockets = {}, ipv6 = false,
    same_machine = own.machine_id ~= nil and own.machine_id ~= "" and own.machine_id == options.peer.machine_id,
    loopback_only = options.loopback_only, asked = options.role == "respond",
  }
  for _, prefix in ipairs(options.prefixes or {}) do
    local ip = ip_of(prefix.ip)
    side.prefixes[#side.prefixes + 1] = {
      text = ip.text, kind = ip.kind, prefix = prefix.prefix, interface = prefix.interface,
    }
    if ip.family == 6 and ip.kind == "global" then side.ipv6 = true end
  end
  for _, entry in ipairs(entries(own)) do
    local external, internal = ip_of(entry.external), ip_of(entry.internal)
    if external.kind == "global" then side.externals[external.text] = true end
    side.sockets[external.text .. " " .. entry.port] = true
    side.sockets[internal.text .. " " .. entry.port] = true
  end
  return side
end

local function on_link(side, ip)
  for _, own in ipairs(side.prefixes) do
    if own.kind ~= "loopback" and core.address.same_prefix(own.text, ip, own.prefix) then return own end
  end
end

local function is_ours(side, ip)
  for _, own in ipairs(side.prefixes) do
    if own.text == ip then return own end
  end
end

-- Which of the peer's addresses ----------------------------------------------------------------------------------

-- The interface of ours on whose link the peer's interface lies, by its other addresses.
local function link_of(side, peer, entry)
  for _, other in ipairs(entries(peer)) do
    if other.if_index == entry.if_index then
      for _, text in ipairs { other.internal, other.external } do
        local ip = ip_of(text)
        local own = ip.kind ~= "link-local" and on_link(side, ip.text)
        if own then return own.interface end
      end
    end
  end
end

-- A machine ID is anybody's to claim, so that one who asks us to dial gets only addresses that are our own by it.
local function near(side, entry, ip)
  if side.same_machine and (not side.asked or is_ours(side, ip)) then return "same machine" end
  if side.externals[ip_of(entry.external).text] then return "same external address" end
  if on_link(side, ip) then return "on-link" end
end

local function is_lan(nearness, entry)
  if nearness ~= "on-link" then return nearness ~= nil end
  return M.kind(entry.external) ~= "global" or entry.external == entry.internal
end

-- Why the address leads nowhere good from here, whatever its scope.
local function objection(side, ip)
  local link = on_link(side, ip)
  if link and is_subnet_broadcast(ip, link.prefix) then return "it is a broadcast address" end
  if is_ours(side, ip) and not side.same_machine then return "here it is this machine's own address" end
end

-- By kind of address: the candidate that it makes, or nil and why it makes none.
local judge = {}

function judge.loopback(side, _, _, ip)
  if not side.loopback_only then return nil, "loopback is tried only by a node that listens on loopback alone" end
  if not side.same_machine then return nil, "it is a loopback address of another machine" end
  return { ip = ip, scope = "loopback", near = "same machine", lan = true }
end

function judge.private(side, _, entry, ip)
  local nearness = near(side, entry, ip)
  if not nearness then return nil, "it is a private address of another network" end
  local reason = objection(side, ip)
  if reason then return nil, reason end
  return { ip = ip, scope = "private", near = nearness, lan = is_lan(nearness, entry) }
end

judge.shared = judge.private

local function ipv4_link_local(side, entry, ip)
  if not on_link(side, ip) then return nil, "it is a link-local address of another link" end
  local reason = objection(side, ip)
  if reason then return nil, reason end
  return { ip = ip, scope = "link-local", near = "on-link", lan = is_lan("on-link", entry) }
end

judge["link-local"] = function(side, peer, entry, ip)
  if not ip:find(":", 1, true) then return ipv4_link_local(side, entry, ip) end
  local own = is_ours(side, ip)
  if own and not side.same_machine then return nil, "here it is this machine's own address" end
  local zone = own and own.interface or link_of(side, peer, entry)
  if not zone then return nil, "it is a link-local address of another link" end
  local nearness = own and "same machine" or side.externals[ip_of(entry.external).text] and "same external address"
    or "on-link"
  return { ip = ip .. "%" .. zone, scope = "link-local", near = nearness, lan = is_lan(nearness, entry) }
end

-- A global address that is not the external one is a network's own use of it, reachable from within only.
function judge.global(side, peer, entry, ip)
  if ip ~= ip_of(entry.external).text then return judge.private(side, peer, entry, ip) end
  local reason = objection(side, ip)
  if reason then return nil, reason end
  local nearness = near(side, entry, ip)
  return { ip = ip, scope = "external", near = nearness, lan = nearness ~= nil }
end

for _, kind in ipairs { "unspecified", "multicast", "broadcast" } do
  judge[kind] = function() return nil, kind .. " addresses are never dialed" end
end

-- Order -----------------------------------------------------------------------------------------------------------

-- Within a scope: families that we have before those that we have not (RFC 6724, section 5, rule 1), then IPv6 and IPv4
-- by turns, IPv6 first (RFC 8305, section 4).
local function by_turns(list, side)
  local queues = { { family = 6 }, { family = 4 } }
  for _, candidate in ipairs(list) do
    local queue = queues[candidate.ip:find(":", 1, true) and 1 or 2]
    queue[#queue + 1] = candidate
  end
  local late = not side.ipv6 and list[1] and list[1].scope == "external"
  if late then return table.move(queues[1], 1, #queues[1], #queues[2] + 1, queues[2]) end
  local ordered = {}
  for i = 1, math.max(#queues[1], #queues[2]) do
    for _, queue in ipairs(queues) do ordered[#ordered + 1] = queue[i] end
  end
  return ordered
end

--- The addresses to try, the nearest scope first and within it the best first; and those passed over, with the reason.
---@param options { peer: table, own: table, prefixes: { ip: string, prefix: integer, interface: string }[],
---                 loopback_only?: boolean, role?: "connect"|"respond" }
---@return p2pd.Candidate[] list, { ip: string, port: integer, reason: string }[] passed_over
function M.list(options)
  local side, peer = our_side(options), options.peer
  local found, passed_over, seen = {}, {}, {}
  for _, scope in ipairs(scopes) do found[scope] = {} end
  for _, entry in ipairs(entries(peer)) do
    for _, text in ipairs { entry.external, entry.internal } do
      local ip = ip_of(text)
      local socket = ip.text .. " " .. entry.port
      local candidate, reason
      if side.sockets[socket] then
        reason = "it is this node's own address and port"
      elseif not seen[socket] then
        candidate, reason = judge[ip.kind](side, peer, entry, ip.text)
      end
      if candidate then
        candidate.port = entry.port
        table.insert(found[candidate.scope], candidate)
      elseif not seen[socket] then
        passed_over[#passed_over + 1] = { ip = ip.text, port = entry.port, reason = reason }
      end
      seen[socket] = true
    end
  end
  local all = {}
  for _, scope in ipairs(scopes) do
    table.move(by_turns(found[scope], side), 1, #found[scope], #all + 1, all)
  end
  return all, passed_over
end

--- Whether an address is one of those that the peer's address names.
---@param text string
---@param peer table parsed address
---@return boolean
function M.belongs(text, peer)
  local ip = ip_of(text)
  for _, entry in ipairs(entries(peer)) do
    if ip and (ip_of(entry.external).text == ip.text or ip_of(entry.internal).text == ip.text) then return true end
  end
  return false
end

--- Why we do not come to an address that a peer names which is not its own (a relay's), or nil when we do.
---@param text string
---@param prefixes { ip: string, prefix: integer, interface: string }[] of our interfaces
---@param loopback_only boolean
---@return string?
function M.no_meeting(text, prefixes, loopback_only)
  local kind = M.kind(text)
  if kind == "loopback" then return not loopback_only and "it is a loopback address" or nil end
  if kind == "global" then return nil end
  local side = our_side { own = {}, peer = {}, prefixes = prefixes }
  if kind and (kind == "private" or kind == "shared") and on_link(side, ip_of(text).text) then return nil end
  return ("it is a %s address of another network"):format(kind or "meaningless")
end

local function is_open(entry)
  return entry.nat == "open" or entry.external == entry.internal and entry.nat ~= "udp-firewall"
end

--- Whether each interface that an address names is behind a router or firewall.
---@param of table parsed address
---@return boolean
function M.behind_routers(of)
  for _, entry in ipairs(entries(of)) do
    if is_open(entry) then return false end
  end
  return true
end

local LET_OUT = { [80] = true, [443] = true } -- the ports that networks leave open which block everything else

--- Whether a side's network lets out nothing that would get to the other: it is blocked, and these ports are not those
--- that such networks leave open.
---@param of table parsed address
---@param ports { port: integer, lan: boolean? }[] where it would have to get to
---@return boolean
function M.is_shut_in(of, ports)
  for _, entry in ipairs(entries(of)) do
    if entry.nat ~= "blocked" then return false end
  end
  for _, to in ipairs(ports) do
    if LET_OUT[to.port] or to.lan then return false end
  end
  return true
end

--- The interfaces that an address names, IPv6 first.
---@param of table parsed address
---@return table[]
function M.entries(of)
  return entries(of)
end

--- Whether uninvited connections do not reach the peer: each interface is behind a router that drops them, and no
--- candidate is surely in our own network.
---@param peer table parsed address
---@param list p2pd.Candidate[]
---@return boolean
function M.unreachable(peer, list)
  for _, candidate in ipairs(list) do
    if candidate.lan then return false end
  end
  for _, entry in ipairs(entries(peer)) do
    if entry.nat == "full-cone" or is_open(entry) then return false end
  end
  return true
end

return M
