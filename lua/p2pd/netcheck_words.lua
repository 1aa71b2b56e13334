-- netcheck_words: what p2pd.netcheck has found, as a person reads it. Pure: from its table to text.
local reach = require "p2pd.reach"

local M = {}

local WIDTH = 100 -- columns of a line
local SURE, LIKELY = 0.9, 0.5

-- Small words ---------------------------------------------------------------------------------------------------------

--- Why something failed, without its code.
function M.sentence(entry)
  return ((entry.message or "it is not known why"):gsub("^E[%u%d_]+: ", ""))
end

local function join(list, last)
  if #list < 2 then return list[1] or "" end
  return table.concat(list, ", ", 1, #list - 1) .. (last or " and ") .. list[#list]
end

--- How many of the servers answer, and how many could be asked.
function M.count(entries)
  local good, asked = 0, 0
  for _, entry in ipairs(entries) do
    if not entry.skipped then asked = asked + 1 end
    if entry.ok then good = good + 1 end
  end
  return good, asked
end

-- Text in lines of WIDTH columns; those after the first begin with `indent`.
local function wrap(text, indent)
  local lines, line = {}, ""
  for word in text:gmatch "%S+" do
    local longer = line == "" and word or line .. " " .. word
    if (utf8.len(longer) or #longer) > WIDTH - #indent and line ~= "" then
      lines[#lines + 1], line = line, word
    else
      line = longer
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n" .. indent)
end

--- A time, in the unit that suits it: "3.1 ms", "42 s", "1.2 h", "3 days".
---@param ms number
---@return string
function M.duration(ms)
  ms = math.abs(ms)
  if ms < 1000 then return ("%.1f ms"):format(ms) end
  local s = ms / 1000
  if s < 120 then return ("%.3g s"):format(s) end
  if s < 3600 then return ("%.0f minutes"):format(s / 60) end
  if s < 172800 then return ("%.1f h"):format(s / 3600) end
  return ("%.0f days"):format(s / 86400)
end

--- The same of a server, without what was tried.
function M.reason(entry)
  local sentence = M.sentence(entry)
  return sentence:match "^.*: ([^:]+)$" or sentence
end

--- A server as people write it.
function M.endpoint(entry)
  local host = entry.host:find(":", 1, true) and "[" .. entry.host .. "]" or entry.host
  return ("%s:%d"):format(host, entry.port)
end

-- NAT -----------------------------------------------------------------------------------------------------------------

local kinds = {
  open = "nothing: whoever dials gets in",
  ["udp-firewall"] = "a firewall: the address is its own, but only answers come in",
  ["full-cone"] = "a full-cone NAT: once a port was used, everybody gets in by it",
  restricted = "a restricted NAT: only addresses to which something was sent get in",
  ["port-restricted"] = "a port-restricted NAT: only who was asked gets in",
  symmetric = "a symmetric NAT: each destination sees another port, and only answers come in",
  blocked = "a firewall that blocks: no UDP passes, and TCP to well-known ports only",
}

local deltas = {
  equal = "ports stay as they are", preserving = "ports are shifted by a constant",
  independent = "each new port is the last one plus %d", dependent = "ports in a row get ports in a row (plus %d)",
  random = "ports are random", na = nil,
}

local function delta_of(nat)
  return deltas[nat.delta] and deltas[nat.delta]:format(nat.value or 0)
end

local function certainty(confidence)
  if not confidence or confidence >= SURE then return "" end
  return confidence >= LIKELY and " (likely)" or " (a guess)"
end

local function nat_words(nat)
  local delta = delta_of(nat)
  return kinds[nat.nat] .. (delta and "; " .. delta or "")
end

local function same_nat(one, other)
  return one.nat == other.nat and one.delta == other.delta and one.value == other.value
end

--- What stands in front of an address, in words; nil when that is not known.
---@param side p2pd.NetcheckSide
---@return string? text
function M.behind(side)
  local udp, tcp = side.udp, side.tcp
  local main = udp or tcp
  if not main then return nil end
  if not udp or not tcp or same_nat(udp, tcp) then
    local confidence = math.max(udp and udp.confidence or 0, tcp and tcp.confidence or 0)
    return "Behind " .. nat_words(main) .. certainty(confidence)
  end
  return ("Behind, by UDP, %s%s; by TCP, %s%s"):format(nat_words(udp), certainty(udp.confidence), nat_words(tcp),
    certainty(tcp.type_confidence))
end

-- Reach ---------------------------------------------------------------------------------------------------------------

local ANY_PORT = 1 -- that a router maps: which one is not known before

--- One of our addresses as p2pd.reach takes it; nil when nothing is known.
---@param one p2pd.NetcheckInterface
---@param family "ipv4"|"ipv6"
---@return p2pd.Side?
function M.side(one, family)
  local side = one[family]
  local nat = side and (side.tcp or side.udp)
  if not nat then return nil end
  local mapped = family == "ipv4" and one.portmap or side.pinhole
  return {
    nat = nat.nat, delta = nat.delta, external = side.external, carrier = side.front ~= nil,
    mapped_port = mapped and mapped.ok and mapped.usable ~= false and ANY_PORT or nil,
  }
end

--- The interface that leads out, and that side of it.
---@param result p2pd.Netcheck
---@param family "ipv4"|"ipv6"
---@return p2pd.NetcheckInterface? one, p2pd.NetcheckSide? side
function M.main_side(result, family)
  local first
  for _, one in ipairs(result.interfaces) do
    local side = one[family]
    if side and side.default then return one, side end
    if side and not side.untested and not first then first = one end
  end
  if first then return first, first[family] end
end

local function peer_words(kind)
  if kind.nat == "open" then return "open, or with a mapped port" end
  if kind.nat ~= "symmetric" then return kind.nat end
  return kind.delta == "random" and "symmetric, ports random" or "symmetric, ports foreseeable"
end

-- A way that this version does not go yet gets a mark.
local strategy_of = {
  direct = "direct", reverse = "reverse", punch = "punch", ["punch by many tries"] = "punch", relay = "relay",
}

local function there(result, way)
  if not result.strategies then return true end
  for _, name in ipairs(result.strategies) do
    if name == strategy_of[way] then return true end
  end
  return false
end

--- The picture: by which means each kind of peer is met.
---@param us p2pd.Side
---@param result? p2pd.Netcheck whose strategies are there; all unless given
---@return string
function M.picture(us, result)
  local rows = { { "a peer that is", "you call it", "it calls you" } }
  local marked = {}
  local function cell(way)
    if there(result or {}, way) then return way end
    marked[strategy_of[way]] = true
    return way .. " *"
  end
  for _, kind in ipairs(reach.kinds) do
    rows[#rows + 1] = { peer_words(kind), cell(reach.best(us, kind)), cell(reach.best(kind, us)) }
  end
  local lines = {}
  for i, row in ipairs(rows) do lines[i] = ("  %-29s %-22s %s"):format(row[1], row[2], row[3]) end
  local names = {}
  for _, name in ipairs { "punch", "relay" } do
    if marked[name] then names[#names + 1] = name end
  end
  if #names > 0 then
    lines[#lines + 1] = ("  * this version of p2pd-lua cannot %s yet"):format(join(names, " or "))
  end
  return table.concat(lines, "\n")
end

-- Those of these kinds, as people are told: "symmetric NATs or firewalls that block".
local function peers_among(kinds_of_peers)
  local is = {}
  for _, kind in ipairs(kinds_of_peers) do is[peer_words(kind)] = true end
  local list = {}
  local function say(condition, text) if condition then list[#list + 1] = text end end
  say(is["full-cone"] or is.restricted, "full-cone and restricted NATs")
  say(is["port-restricted"], "port-restricted NATs")
  say(is["udp-firewall"], "firewalls that let answers in only")
  local random, foreseeable = is["symmetric, ports random"], is["symmetric, ports foreseeable"]
  say(random and foreseeable, "symmetric NATs")
  say(random and not foreseeable, "symmetric NATs with random ports")
  say(foreseeable and not random, "symmetric NATs with foreseeable ports")
  say(is.blocked, "firewalls that block")
  return join(list, " or ")
end

--- What it means for connecting, in some sentences.
---@param us p2pd.Side
---@return string
function M.meaning(us)
  local class, by = reach.class(us), {}
  for _, kind in ipairs(reach.kinds) do
    local way = reach.best(us, kind)
    by[way] = by[way] or {}
    table.insert(by[way], kind)
  end
  if class == "blocked" then
    return "Nobody can dial you, and you can dial well-known ports only: peers will need a relay."
  end
  local parts = {
    class == "reachable" and "Everybody can dial you."
      or "Nobody can simply dial you; you can dial peers that are open or have a mapped port.",
  }
  if by.punch then parts[#parts + 1] = "Most others are met by hole punching." end
  if by["punch by many tries"] then
    parts[#parts + 1] = ("Peers behind %s take many tries."):format(peers_among(by["punch by many tries"]))
  end
  parts[#parts + 1] = ("Peers behind %s will need a relay."):format(peers_among(by.relay))
  return table.concat(parts, " ")
end

-- The report ----------------------------------------------------------------------------------------------------------

-- Adds a text below the name of an interface; its further lines are indented more.
local function say_below(lines, text, indent)
  lines[#lines + 1] = (" "):rep(indent) .. wrap(text, (" "):rep(indent + 2))
end

local function side_lines(lines, one, family, title)
  local side = one[family]
  local where = side.internal .. (side.gateway and ", router " .. side.gateway or ", no default route")
  if side.external and side.external ~= side.internal then where = where .. ", seen as " .. side.external end
  say_below(lines, ("%s %s"):format(title, where), 2)
  if side.untested then return end
  local behind = M.behind(side)
  if not behind then
    return say_below(lines, "What is in front of it is not known: " .. M.sentence(side) .. ".", 4)
  end
  say_below(lines, behind .. ".", 4)
  if side.front then
    say_below(lines, ("%s%s."):format(side.front.kind == "carrier" and "The carrier translates too (carrier-grade NAT)"
      or "Another router is in front of that", side.front.address and ": " .. side.front.address or ""), 4)
  end
  local us = M.side(one, family)
  local other = family == "ipv6" and M.side(one, "ipv4")
  local same = other and reach.class(other) == reach.class(us)
  say_below(lines, same and "For connecting that means the same." or M.meaning(us), 4)
end

local methods = { ["nat-pmp"] = "NAT-PMP", upnp = "UPnP", pinhole = "UPnP pinholes" }

local function portmap_words(mapped)
  if not mapped.ok then return ("none by %s (%s)"):format(mapped.gateway, M.sentence(mapped)) end
  local names = {}
  for _, key in ipairs { "nat_pmp", "upnp", "pinhole" } do
    if mapped[key] then names[#names + 1] = methods[key:gsub("_", "-")] or methods[key] end
  end
  return ("%s by %s%s%s%s"):format(join(names), mapped.gateway, mapped.router and (" (%s)"):format(mapped.router) or "",
    mapped.external and ", external address " .. mapped.external or "",
    mapped.usable == false and "; useless, as another router is in front" or "")
end

local function interface_lines(lines, one)
  lines[#lines + 1] = one.name
  if one.ipv4 then side_lines(lines, one, "ipv4", "IPv4") end
  if one.portmap then say_below(lines, "Port mapping: " .. portmap_words(one.portmap), 4) end
  if not one.ipv6 then return say_below(lines, "IPv6 none", 2) end
  side_lines(lines, one, "ipv6", "IPv6")
  if one.ipv6.pinhole then say_below(lines, "Pinholes: " .. portmap_words(one.ipv6.pinhole), 4) end
end

local MOST_NAMED = 4
local MOST_OTHERS = 8

-- Whether something was tried by it.
local function was_tested(one)
  return one.ipv4 and not one.ipv4.untested or one.ipv6 and not one.ipv6.untested or false
end

-- All interfaces; those by which nothing was tried in one line, as there may be dozens.
local function all_interfaces(lines, interfaces)
  local others = {}
  for _, one in ipairs(interfaces) do
    if was_tested(one) or #interfaces == 1 then interface_lines(lines, one) else others[#others + 1] = one.name end
  end
  if #others == 0 then return end
  local more = #others - MOST_OTHERS
  if more > 0 then others = { table.concat(others, ", ", 1, MOST_OTHERS), ("%d more"):format(more) } end
  lines[#lines + 1] = wrap("Not looked at, being too many (those that lead out come first): " .. join(others), "  ")
end

-- Which of the servers answer and how fast, and why the first of the others does not.
local function servers_line(title, entries)
  local function name(entry)
    local by = entry.checked and (entry.transport == "tls" and "TLS" or "TCP") or entry.transport == "tcp" and "TCP"
    return M.endpoint(entry) .. (by and " by " .. by or "")
  end
  if #entries == 0 then return ("%-8s none configured"):format(title) end
  local good, asked = M.count(entries)
  local answered, failed = {}, nil
  for _, entry in ipairs(entries) do
    if entry.ok then answered[#answered + 1] = entry elseif not entry.skipped then failed = failed or entry end
  end
  table.sort(answered, function(a, b) return a.rtt_ms < b.rtt_ms end)
  local named = {}
  for place, entry in ipairs(answered) do
    if place > MOST_NAMED then break end
    named[place] = ("%s %s"):format(name(entry), M.duration(entry.rtt_ms))
  end
  if #answered > MOST_NAMED then named[#named + 1] = "…" end
  local text = asked == 0 and "none of this machine's address families"
    or ("%d of %d answer%s"):format(good, asked, #named > 0 and ": " .. table.concat(named, ", ") or "")
  if failed then
    text = text .. ("; %s: %s"):format(asked - good > 1 and "others do not, as " .. name(failed) or name(failed),
      M.reason(failed))
  end
  return ("%-8s "):format(title) .. wrap(text, (" "):rep(9))
end

local function clock_line(clock)
  if not clock.ok then return "Clock    not known: " .. M.reason(clock) end
  local good, asked = M.count(clock.servers)
  return ("Clock    %s %s (± %s); %d of %d servers answer, %d agree"):format(M.duration(clock.offset_ms),
    clock.offset_ms >= 0 and "ahead" or "behind", M.duration(clock.error_ms), good, asked, clock.agreeing)
end

--- Everything, for a person.
---@param result p2pd.Netcheck
---@return string
function M.report(result)
  local lines = {}
  if not result.ok then lines[1] = "There is no network: " .. M.sentence(result) .. "." end
  all_interfaces(lines, result.interfaces)
  if #result.interfaces > 0 then
    lines[#lines + 1] = ""
    lines[#lines + 1] = servers_line("Brokers", result.brokers)
    lines[#lines + 1] = servers_line("STUN", result.stun)
    lines[#lines + 1] = servers_line("Relays", result.turn)
    lines[#lines + 1] = clock_line(result.clock)
    local one = M.main_side(result, "ipv4")
    local family = one and M.side(one, "ipv4") and "ipv4" or "ipv6"
    one = family == "ipv4" and one or M.main_side(result, "ipv6")
    local us = one and M.side(one, family)
    if us then
      lines[#lines + 1] = ""
      lines[#lines + 1] = ("Who can be met by %s (%s), and how"):format(one.name, family == "ipv4" and "IPv4" or "IPv6")
      lines[#lines + 1] = M.picture(us, result)
    end
  end
  if #result.hints > 0 then
    lines[#lines + 1] = ""
    lines[#lines + 1] = "What helps"
    for _, hint in ipairs(result.hints) do lines[#lines + 1] = "  - " .. wrap(hint.text, "    ") end
  end
  if #result.interfaces == 0 then return table.concat(lines, "\n") end
  lines[#lines + 1] = ""
  lines[#lines + 1] = ("Checked in %s."):format(M.duration(result.ms))
  return table.concat(lines, "\n")
end

-- Changes and progress ------------------------------------------------------------------------------------------------

local function by_name(list)
  local found = {}
  for _, one in ipairs(list) do found[one.name] = one end
  return found
end

local function nat_name(nat)
  return nat and (nat.nat .. (nat.delta ~= "na" and "/" .. nat.delta or "")) or "not known"
end

-- `within`: only what is known without an answer from outside.
local function side_changes(name, title, before, after, within, say)
  if not before and not after then return end
  if not before then return say("%s has an %s address: %s", name, title, after.internal) end
  if not after then return say("%s has no %s address any more", name, title) end
  if before.internal ~= after.internal then
    say("the %s address of %s is %s, it was %s", title, name, after.internal, before.internal)
  end
  if before.gateway ~= after.gateway then
    say("the %s router of %s is %s, it was %s", title, name, after.gateway or "none", before.gateway or "none")
  end
  if within then return end
  if before.external ~= after.external then
    say("%s is seen from outside as %s, it was %s", name, after.external or "nothing", before.external or "not known")
  end
  for _, transport in ipairs { "udp", "tcp" } do
    if nat_name(before[transport]) ~= nat_name(after[transport]) then
      say("the NAT in front of %s (%s, %s) is %s, it was %s", name, title, transport:upper(),
        nat_name(after[transport]), nat_name(before[transport]))
    end
  end
end

--- What is other than before, a sentence each.
---@param before p2pd.Netcheck
---@param after p2pd.Netcheck
---@return string[]
function M.changes(before, after)
  local lines = {}
  local function say(...) lines[#lines + 1] = string.format(...) end
  local within = before.ok ~= after.ok
  if within then
    say("%s", after.ok and "there is a network again" or "there is no network: " .. M.sentence(after))
  end
  local old, new = by_name(before.interfaces), by_name(after.interfaces)
  for _, one in ipairs(before.interfaces) do
    if not new[one.name] then say("%s is gone", one.name) end
  end
  for _, one in ipairs(after.interfaces) do
    local was = old[one.name]
    if not was then say("%s is there", one.name) end
    side_changes(one.name, "IPv4", was and was.ipv4, one.ipv4, within, say)
    side_changes(one.name, "IPv6", was and was.ipv6, one.ipv6, within, say)
    if not within and was and was.portmap and one.portmap and was.portmap.ok ~= one.portmap.ok then
      say("%s %s ports", one.portmap.gateway, one.portmap.ok and "maps" or "does not map")
    end
  end
  for title, key in pairs(within and {} or { broker = "brokers", ["STUN server"] = "stun", relay = "turn" }) do
    for place, entry in ipairs(after[key]) do
      local was = before[key][place]
      if was and was.ok ~= entry.ok then
        say("the %s %s %s", title, M.endpoint(entry), entry.ok and "answers" or "does not answer")
      end
    end
  end
  table.sort(lines)
  return lines
end

--- One line of what is still waited for.
---@param state p2pd.NetcheckProgress
---@param width? integer columns
---@return string
function M.progress(state, width)
  local line = ("%d of %d done"):format(state.done, state.total)
  if #state.waiting > 0 then line = line .. ", waiting for " .. table.concat(state.waiting, ", ") end
  width = width or 80
  if #line > width then line = line:sub(1, width - 3) .. "..." end
  return line
end

return M
