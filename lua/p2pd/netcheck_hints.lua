-- netcheck_hints: what would help, by what p2pd.netcheck has found: each a sentence with a cause and a cure. Pure.
local reach = require "p2pd.reach"
local words = require "p2pd.netcheck_words"

local M = {}

local CLOCK_OFF = 2000 -- milliseconds by which a clock may be wrong without a word

local hints = {}

local function home(path)
  local own = os.getenv "HOME"
  if own and #own > 1 and path:sub(1, #own + 1) == own .. "/" then return "~" .. path:sub(#own + 1) end
  return path
end

local function is_blocked(nat) return nat ~= nil and nat.nat == "blocked" end

local function udp_is_blocked(result)
  local _, side = words.main_side(result, "ipv4")
  return side ~= nil and is_blocked(side.udp)
end

function hints.interfaces(result, add)
  if #result.interfaces == 0 then
    return add("no-interface", "No network interface is up and has an address: plug the cable in, or join a wireless "
      .. "network.")
  end
  local routed, alone = false, nil
  for _, one in ipairs(result.interfaces) do
    for _, family in ipairs { "ipv4", "ipv6" } do
      local side = one[family]
      if side and side.default then routed = true end
      if side and not side.untested and not side.default then alone = alone or { one.name, side } end
    end
  end
  if not routed and alone then
    add("no-default-route", ("%s has the address %s, but there is no default route, so nothing outside of its network "
      .. "can be reached: renew the lease (DHCP), or name the router (`ip route add default via ROUTER`)."):format(
      alone[1], alone[2].internal))
  elseif not result.ok and routed then
    local _, side = words.main_side(result, "ipv4")
    if not side then _, side = words.main_side(result, "ipv6") end
    add("nothing-answers", ("Nothing outside of your network answers: the router %s is offline, or a firewall lets "
      .. "nothing out: look at the router's status page."):format(side and side.gateway or "in front of you"))
  end
end

function hints.names(result, add)
  local failed, answered, code = 0, 0, nil
  for _, list in ipairs { result.brokers, result.stun, result.turn } do
    for _, entry in ipairs(list) do
      if (entry.code or ""):find "^EAI_" then failed, code = failed + 1, entry.code end
      if entry.ok and entry.ip ~= entry.host then answered = answered + 1 end
    end
  end
  if failed >= 2 and answered == 0 and result.ok then
    add("no-names", ("Names are not resolved (%s): your DNS server fails, so name another one in /etc/resolv.conf or "
      .. "in the router."):format(code))
  end
end

function hints.blocked(result, add)
  if not udp_is_blocked(result) then return end
  local _, side = words.main_side(result, "ipv4")
  if is_blocked(side.tcp) then
    add("udp-dropped", "Your firewall drops UDP, and lets TCP through to well-known ports only: allow outgoing UDP and "
      .. "TCP in it, or use another network; until then most peers can be met by a relay only.")
  else
    add("udp-dropped", "Your firewall drops UDP: allow outgoing UDP in it; connections by TCP are not concerned.")
  end
end

function hints.front(result, add)
  for _, one in ipairs(result.interfaces) do
    local front = one.ipv4 and one.ipv4.front
    if front and front.kind == "carrier" then
      add("carrier", ("The carrier translates too (carrier-grade NAT, %s), and its router cannot be set by you: use "
        .. "IPv6, ask your provider for a public address, or let the other side be reachable."):format(front.address))
    elseif front then
      add("another-router", ("Another router is in front of %s%s, so a port mapped on yours leads nowhere: set yours "
        .. "to bridge mode, map ports on both, or, if the other one is your provider's (carrier-grade NAT), ask for a "
        .. "public address."):format(one.ipv4.gateway or "yours",
        front.address and (", whose own address is " .. front.address) or ""))
    end
  end
end

function hints.portmap(result, add)
  for _, one in ipairs(result.interfaces) do
    local mapped, us = one.portmap, words.side(one, "ipv4")
    if mapped and not mapped.ok and us and not one.ipv4.front and us.nat ~= "blocked" and us.nat ~= "open" then
      add("no-portmap", ("The router %s maps no ports: enable UPnP or NAT-PMP on %s, or forward a TCP port to %s and "
        .. "run `p2pd-lua listen --port` with it; then everybody can dial you."):format(mapped.gateway, mapped.gateway,
        one.ipv4.internal))
    end
  end
end

function hints.firewall(result, add)
  local one, side = words.main_side(result, "ipv4")
  local us = one and words.side(one, "ipv4")
  if us and us.nat == "udp-firewall" then
    add("firewall", ("A firewall lets only answers in: allow incoming TCP to %s in it, at the port of `p2pd-lua listen "
      .. "--port`; then everybody can dial you."):format(side.internal))
  end
end

function hints.symmetric(result, add)
  local one, side = words.main_side(result, "ipv4")
  local us = one and words.side(one, "ipv4")
  if us and reach.class(us) == "random" and not side.front then -- it may be the other router's doing
    add("random-ports", "Your router takes a random port for each destination, which nobody can foresee: if it has a "
      .. "setting for that (\"symmetric NAT\", \"port randomization\", \"consistent NAT\"), choose one port for all "
      .. "destinations.")
  end
end

-- What to do about a relay that was not given, by its code.
local relay_cures = {
  EACCES = "correct its user and password in %s, or ask its operator",
  EPERM = "ask its operator, or name another one in %s", EADDRNOTAVAIL = "ask its operator, or name another one in %s",
  ENOTSUP = "name one that relays TCP in %s",
  EBUSY = "wait, or name another one in %s", ENOBUFS = "wait, or name another one in %s",
}

function hints.relay(result, add)
  local good, asked = words.count(result.turn)
  local place = home(result.settings or "~/.config/p2pd-lua/settings.lua")
  if #result.turn == 0 then
    local one = words.main_side(result, "ipv4")
    local us = one and words.side(one, "ipv4")
    local who = us and reach.class(us) == "reachable" and "whose firewall blocks" or "that cannot be met otherwise"
    if result.ok then
      add("no-relay", ("No relay is configured, so peers %s cannot be met at all: add turn servers to %s."):format(who,
        place))
    end
    return
  end
  for _, entry in ipairs(result.turn) do
    if not entry.ok and relay_cures[entry.code] then
      add("relay-refuses", ("%s: %s."):format(words.sentence(entry), relay_cures[entry.code]:format(place)))
    end
  end
  if good == 0 and asked > 0 and result.ok and not relay_cures[result.turn[1].code] then
    add("relay-silent", ("No relay answers (%s): %s: check host, port and transport of the turn servers in %s."):format(
      words.endpoint(result.turn[1]), words.reason(result.turn[1]), place))
  end
end

function hints.brokers(result, add)
  if result.key and not result.key.ok then
    return add("key", ("The node's key cannot be used: %s: name another file with --key, or repair that one."):format(
      words.sentence(result.key)))
  end
  local good, asked = words.count(result.brokers)
  if #result.brokers == 0 then
    add("no-broker", ("No broker is configured, so peers cannot signal to you: add mqtt servers to %s."):format(
      home(result.settings or "your settings")))
  elseif asked == 0 then
    add("broker-family", "All brokers of your settings are of an address family that this machine has not, so peers "
      .. "cannot signal to you: add others.")
  elseif good == 0 and result.ok then
    local first = result.brokers[1]
    add("broker-silent", ("No broker answers, so peers cannot signal to you (%s: %s): allow outgoing TCP to port %d, "
      .. "or name brokers that listen elsewhere in %s."):format(words.endpoint(first), words.reason(first), first.port,
      home(result.settings or "your settings")))
  end
end

function hints.stun(result, add)
  local good, asked = words.count(result.stun)
  if #result.stun == 0 then
    add("no-stun", ("No STUN server is configured, so your external address cannot be seen: add stun servers to %s.")
      :format(home(result.settings or "your settings")))
  elseif asked > 0 and good == 0 and result.ok and not udp_is_blocked(result) then
    add("stun-silent", "No STUN server answers, though other servers do: they are down, or your firewall lets only "
      .. "some ports out: allow UDP and TCP to port 3478, or name other servers in the settings.")
  end
  for _, one in ipairs(result.interfaces) do
    local side = one.ipv4 or one.ipv6
    local liar = side and (side.udp and side.udp.liar or side.tcp and side.tcp.liar)
    if liar then
      add("stun-lies", ("The STUN server %s says what cannot be: remove it from your settings."):format(liar))
    end
  end
end

function hints.clock(result, add)
  local clock = result.clock
  if clock.ok and math.abs(clock.offset_ms) > CLOCK_OFF then
    add("clock", ("Your clock is %s %s: p2pd-lua knows and corrects for it, other programs do not: set it "
      .. "(`timedatectl set-ntp true`)."):format(words.duration(clock.offset_ms),
      clock.offset_ms > 0 and "ahead" or "behind"))
  elseif not clock.ok and result.ok and clock.code ~= "ENOENT" and not udp_is_blocked(result) then
    add("no-clock", "No clock answers, so it is not known whether yours is right, and peers refuse messages that are a "
      .. "minute off: allow UDP to port 123, or see to your clock yourself.")
  end
end

function hints.ipv6(result, add)
  local one, side = words.main_side(result, "ipv6")
  local four = words.main_side(result, "ipv4")
  local us = four and words.side(four, "ipv4")
  if one and side.default and side.code == "ENETUNREACH" and result.ok then
    add("ipv6-dead", ("%s has the IPv6 address %s, but nothing answers over IPv6, and programs that try it lose time: "
      .. "repair it in the router, or switch it off."):format(one.name, side.internal))
  elseif one and side.tcp and side.tcp.nat == "udp-firewall" and not (side.pinhole and side.pinhole.ok) then
    add("ipv6-firewall", ("IPv6 works, but a firewall lets only answers in (RFC 6092): allow incoming TCP to %s in the "
      .. "router, and everybody who has IPv6 can dial you."):format(side.internal))
  elseif not one and result.ok and us and reach.class(us) ~= "reachable" then
    add("no-ipv6", "There is no IPv6 here, with which no NAT would be in the way: enable it in the router, if your "
      .. "provider has it.")
  end
end

local ORDER = {
  "interfaces", "names", "blocked", "front", "portmap", "firewall", "symmetric", "ipv6", "brokers", "stun", "relay",
  "clock",
}

--- What would help, the most important first.
---@param result p2pd.Netcheck
---@return p2pd.NetcheckHint[]
function M.of(result)
  local list = {}
  local function add(about, text) list[#list + 1] = { about = about, text = text } end
  for _, name in ipairs(ORDER) do
    if name == "interfaces" or #result.interfaces > 0 then hints[name](result, add) end
  end
  return list
end

return M
