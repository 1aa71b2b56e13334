-- netcheck's pure parts: who can meet whom, and what is said of what was found. The whole program: lab_netcheck_spec.
local cjson = require "cjson"
require "p2pd"
local cards = require "p2pd.cards"
local hints = require "p2pd.netcheck_hints"
local netcheck = require "p2pd.netcheck"
local reach = require "p2pd.reach"
local texts = require "spec.support.texts"
local words = require "p2pd.netcheck_words"

local has, has_not = texts.has, texts.has_not

local function same_words(text, part)
  has((text:gsub("%s+", " ")), part)
end

describe("reach", function()
  local sides = {
    ["open, or a mapped port"] = { nat = "open", delta = "na" },
    ["full-cone, restricted"] = { nat = "restricted", delta = "equal" },
    ["udp-firewall, port-restricted"] = { nat = "port-restricted", delta = "random" },
    ["symmetric, foreseeable"] = { nat = "symmetric", delta = "dependent" },
    ["symmetric, random"] = { nat = "symmetric", delta = "random" },
    blocked = { nat = "blocked", delta = "na" },
  }

  -- The rows of the table in the guide: { name, cells by name }.
  local function table_of_the_guide()
    local file = assert(io.open "lua/doc/nat.md")
    local text = file:read("a"):match "## Which pairs meet(.-)\n## "
    file:close()
    local heads, rows = nil, {}
    for line in text:gmatch "\n(|[^\n]+)" do
      local cells = {}
      for cell in line:sub(2):gmatch "%s*(.-)%s*|" do cells[#cells + 1] = cell:gsub("%*", "") end
      if not heads then heads = cells elseif not line:find "%-%-%-" then
        local row = {}
        for i = 2, #cells do row[heads[i]] = cells[i] end
        rows[cells[1]] = row
      end
    end
    return rows
  end

  it("is the table of the guide", function()
    local count = 0
    for name, row in pairs(table_of_the_guide()) do
      for other, said in pairs(row) do
        local best = reach.best(sides[name], sides[other])
        if said:find "^relay, or" then said = "relay" end
        local direct = said:find "^direct" and (best == "direct" or best == "reverse")
        assert(direct or said == best, ("%s to %s: %s, the guide says %s"):format(name, other, best, said))
        count = count + 1
      end
    end
    assert.equal(36, count)
  end)

  it("knows all types, and that a relay is always left", function()
    for _, us in ipairs(reach.kinds) do
      for _, them in ipairs(reach.kinds) do
        local ways, order = reach.ways(us, them), {}
        assert.equal("relay", ways[#ways])
        for place, means in ipairs(reach.means) do order[means] = place end
        for i = 2, #ways do assert(order[ways[i - 1]] < order[ways[i]]) end
        local back = reach.ways(them, us)
        assert.equal(#ways, #back) -- whoever calls, they meet by as many means
      end
    end
  end)

  it("lets a mapped port count as open, and blocked ones reach port 443", function()
    local mapped = { nat = "symmetric", delta = "random", mapped_port = 4242 }
    assert.equal("reachable", reach.class(mapped))
    assert.same({ "direct", "relay" }, reach.ways({ nat = "restricted" }, mapped))
    assert.same({ "direct", "reverse", "relay" }, reach.ways({ nat = "open" }, mapped))
    assert.equal("relay", reach.best({ nat = "blocked" }, mapped))
    assert.equal("direct", reach.best({ nat = "blocked" }, { nat = "open", port = 443 }))
    assert.equal("reverse", reach.best({ nat = "open", port = 443 }, { nat = "blocked" }))
    assert.equal("blocked", reach.class { nat = "blocked", mapped_port = 1 })
  end)

  it("lets those behind one router meet directly, unless it is the carrier's", function()
    local one = { nat = "symmetric", delta = "random", external = "30.2.1.2" }
    assert.equal("direct", reach.best(one, one))
    local carried = { nat = "symmetric", delta = "random", external = "30.2.1.2", carrier = true }
    assert.equal("relay", reach.best(one, carried))
  end)

  it("takes an unknown delta for random, and throws at what is no type", function()
    assert.equal("random", reach.class { nat = "symmetric" })
    assert.equal("foreseeable", reach.class { nat = "symmetric", delta = "independent" })
    local ok, message = pcall(reach.ways, { nat = "cone" }, { nat = "open" })
    assert.is_false(ok)
    has(message, "'cone' is no type of NAT")
    has(select(2, pcall(function() reach.class(7) end)), "netcheck_spec.lua")
  end)
end)

describe("cards", function()
  local function address(name, ip, more)
    local entry = { name = name, index = 1, mtu = 1500, ip = ip, up = true, prefix = 24 }
    entry.family = ip:find ":" and 6 or 4
    for key, value in pairs(more or {}) do entry[key] = value end
    return entry
  end

  it("come with those first that lead out, and with one address of each family", function()
    local found = cards.by_card(assert(cards.usable {
      address("lo", "127.0.0.1"), address("docker0", "172.17.0.1"), address("eth0", "fe80::1%eth0", { metric = 100 }),
      address("eth0", "2001:db9::1", { temporary = true, metric = 100 }),
      address("eth0", "2001:db9::2", { metric = 100 }),
      address("eth0", "192.168.1.5", { metric = 100 }), address("wlan0", "192.168.1.6", { metric = 50 }),
      address("down0", "10.0.0.1", { up = false }),
    }))
    local names = {}
    for i, card in ipairs(found) do names[i] = card.name end
    assert.same({ "wlan0", "eth0", "docker0" }, names)
    assert.equal("2001:db9::2", found[2][6].ip)
    assert.equal("fe80::1%eth0", found[2].link_local)
  end)

  it("are loopback's when there is nothing else, and only the one that is asked for", function()
    assert.equal("loopback", assert(cards.usable { address("lo", "127.0.0.1") })[1].kind)
    local list = { address("eth0", "192.168.1.5"), address("eth1", "192.168.2.5") }
    assert.equal("192.168.2.5", assert(cards.usable(list, "192.168.2.5"))[1].ip)
    assert.equal("EADDRNOTAVAIL", select(3, cards.usable(list, "192.168.3.5")))
    assert.equal("EADDRNOTAVAIL", select(3, cards.usable {}))
  end)
end)

-- What a check would find, with changes laid over it.
local function nat(kind, delta, confidence)
  return { nat = kind, delta = delta or "na", value = 1, confidence = confidence or 0.98, type_confidence = 0.5 }
end

local function found(change)
  local result = {
    ok = true, ms = 812, settings = "/home/x/settings.lua", strategies = { "direct", "reverse" },
    interfaces = { {
      name = "eth0", index = 2, mtu = 1500,
      ipv4 = {
        ok = true, internal = "192.168.20.5", prefix = 24, scope = "private", gateway = "192.168.20.1", default = true,
        external = "30.2.1.2", udp = nat("port-restricted", "equal"), tcp = nat("port-restricted", "equal", 0.5),
      },
      portmap = {
        ok = true, gateway = "192.168.20.1", method = "upnp", external = "30.2.1.2", router = "box", usable = true,
        upnp = { ms = 80 },
      },
    } },
    brokers = { { host = "30.1.0.1", port = 1883, ok = true, rtt_ms = 20.4, ip = "30.1.0.1" } },
    stun = { { host = "30.1.0.3", port = 3478, ok = true, rtt_ms = 20.1, ip = "30.1.0.3", transport = "udp" } },
    turn = { { host = "30.1.0.3", port = 3478, ok = true, rtt_ms = 20.1, ip = "30.1.0.3", transport = "udp",
      checked = "relay" } },
    clock = { ok = true, offset_ms = -3.1, error_ms = 0.8, agreeing = 1, servers = { { host = "30.1.0.5", port = 123,
      ok = true } } },
  }
  if change then change(result, result.interfaces[1], result.interfaces[1].ipv4) end
  result.hints = hints.of(result)
  return result
end

local function about(result)
  local list = {}
  for i, hint in ipairs(result.hints) do list[i] = hint.about end
  return list
end

local function hint_of(result, name)
  for _, hint in ipairs(result.hints) do
    if hint.about == name then return hint.text end
  end
  error(("no hint '%s' among %s"):format(name, table.concat(about(result), ", ")), 2)
end

local function fails(entry, code, sentence)
  entry.ok, entry.code, entry.message, entry.rtt_ms = false, code, ("%s: %s"):format(code, sentence), nil
end

local function blocked(_, one, side)
  side.udp, side.tcp = nat "blocked", nat "blocked"
  fails(one.portmap, "ENOTSUP", "NAT-PMP: no answer; UPnP: nobody answers")
end

describe("the words of netcheck", function()
  it("tell what each interface is behind, which servers answer, and the clock", function()
    local text = words.report(found())
    has(text, "eth0\n  IPv4 192.168.20.5, router 192.168.20.1, seen as 30.2.1.2\n")
    has(text, "Behind a port-restricted NAT: only who was asked gets in; ports stay as they are.")
    has(text, "Port mapping: UPnP by 192.168.20.1 (box), external address 30.2.1.2")
    has(text, "IPv6 none")
    has(text, "Brokers  1 of 1 answer: 30.1.0.1:1883 20.4 ms\n")
    has(text, "Relays   1 of 1 answer: 30.1.0.3:3478 by TCP 20.1 ms\n")
    has(text, "Clock    3.1 ms behind (± 0.8 ms); 1 of 1 servers answer, 1 agree\n")
    has(text, "Checked in 812.0 ms.")
    has_not(text, "nil")
  end)

  it("say what a NAT means for connecting", function()
    same_words(words.meaning { nat = "open" }, "Everybody can dial you.")
    same_words(words.meaning { nat = "restricted", delta = "random" }, "Most others are met by hole punching. "
      .. "Peers behind firewalls that block will need a relay.")
    same_words(words.meaning { nat = "port-restricted", delta = "equal" },
      "Peers behind symmetric NATs with random ports take many tries.")
    same_words(words.meaning { nat = "symmetric", delta = "random" },
      "Peers behind symmetric NATs or firewalls that block will need a relay.")
    same_words(words.meaning { nat = "symmetric", delta = "preserving" },
      "Peers behind symmetric NATs with random ports or firewalls that block will need a relay.")
    same_words(words.meaning { nat = "blocked" }, "Nobody can dial you")
  end)

  it("draw who can be met, and mark what this version cannot do", function()
    local picture = words.picture({ nat = "symmetric", delta = "random" }, { strategies = { "direct", "reverse" } })
    local rows = {}
    for line in picture:gmatch "[^\n]+" do rows[#rows + 1] = line end
    assert.equal(10, #rows)
    assert.matches("^  open, or with a mapped port +direct +reverse$", rows[2])
    assert.matches("^  port%-restricted +punch by many tries %* +punch by many tries %*$", rows[6])
    has(rows[10], "cannot punch or relay yet")
    has_not(words.picture { nat = "symmetric", delta = "random" }, "*")
  end)

  it("tell UDP from TCP where they differ, and how sure that is", function()
    local text = words.report(found(function(_, _, side)
      side.udp, side.tcp = nat("symmetric", "random", 0.6), nat("restricted", "independent", 0.3)
    end))
    same_words(text, "Behind, by UDP, a symmetric NAT: each destination sees another port, and only answers come in; "
      .. "ports are random (likely); by TCP, a restricted NAT: only addresses to which something was sent get in; each "
      .. "new port is the last one plus 1 (likely).")
  end)

  it("tell of lines that are too long in several, and of many servers by some", function()
    local text = words.report(found(function(result)
      for i = 1, 12 do
        result.stun[i] = { host = "a-rather-long-name-of-a-server.example", port = 3478, ok = true, rtt_ms = i }
      end
      fails(result.stun[12], "ETIMEDOUT", "asking STUN server x, port 3478: connection timed out")
    end))
    for line in text:gmatch "[^\n]+" do assert(utf8.len(line) <= 100, line) end
    same_words(text, "STUN 11 of 12 answer: a-rather-long-name-of-a-server.example:3478 1.0 ms,")
    same_words(text, ", …; a-rather-long-name-of-a-server.example:3478: connection timed out")
  end)

  it("name interfaces by which nothing was tried in one line", function()
    local text = words.report(found(function(result)
      for i = 2, 64 do
        local side = { internal = "10.0.0.1", untested = true }
        result.interfaces[i] = { name = "veth" .. i, ipv4 = i % 2 == 0 and side or nil }
      end
    end))
    same_words(text, "Not looked at, being too many (those that lead out come first): veth2, veth3, veth4, "
      .. "veth5, veth6, veth7, veth8, veth9 and 55 more")
    has_not(text, "10.0.0.1")
  end)

  it("tell durations in units that suit them", function()
    for ms, text in pairs {
      [0.84] = "0.8 ms", [-42] = "42.0 ms", [1500] = "1.5 s", [300000] = "5 minutes", [4320000] = "1.2 h",
      [864000000] = "10 days",
    } do
      assert.equal(text, words.duration(ms))
    end
  end)

  it("tell how far a check is, within the width of a terminal", function()
    local line = words.progress({ done = 3, total = 9, waiting = { "broker 30.1.0.1", "clock" } }, 80)
    assert.equal("3 of 9 done, waiting for broker 30.1.0.1, clock", line)
    line = words.progress({ done = 3, total = 9, waiting = { ("x"):rep(200) } }, 40)
    assert.equal(40, #line)
    assert.equal("9 of 9 done", words.progress { done = 9, total = 9, waiting = {} })
  end)

  it("tell what has changed, and nothing when nothing has", function()
    assert.same({}, words.changes(found(), found()))
    assert.same({
      "eth0 has an IPv6 address: 2001:db9::2", "eth0 is seen from outside as 30.2.1.7, it was 30.2.1.2",
      "the IPv4 address of eth0 is 192.168.20.9, it was 192.168.20.5",
      "the NAT in front of eth0 (IPv4, TCP) is symmetric/random, it was port-restricted/equal",
      "the broker 30.1.0.1:1883 does not answer", "wlan0 is there",
    }, words.changes(found(), found(function(result, one, side)
      side.internal, side.external, side.tcp = "192.168.20.9", "30.2.1.7", nat("symmetric", "random")
      one.ipv6 = { internal = "2001:db9::2" }
      result.interfaces[2] = { name = "wlan0" }
      fails(result.brokers[1], "ETIMEDOUT", "no")
    end)))
    assert.same({ "eth0 is gone", "there is no network: no network interface is up" }, words.changes(found(),
      found(function(result)
        fails(result, "ENETDOWN", "no network interface is up")
        result.interfaces = {}
      end)))
  end)
end)

describe("the hints of netcheck", function()
  it("are none where all is well but for IPv4's firewall", function()
    assert.same({}, about(found()))
  end)

  it("name cause and cure", function()
    for name, case in pairs {
      ["no-portmap"] = { "enable UPnP or NAT-PMP on 192.168.20.1", function(_, one)
        fails(one.portmap, "ENOTSUP", "NAT-PMP: no answer")
      end },
      ["udp-dropped"] = { "Your firewall drops UDP", blocked },
      carrier = { "The carrier translates too (carrier-grade NAT, 100.64.2.1)", function(_, one, side)
        side.front, one.portmap.usable = { kind = "carrier", address = "100.64.2.1" }, false
      end },
      ["another-router"] = { "Another router is in front of 192.168.20.1, whose own address is 192.168.0.2",
        function(_, one, side)
          side.front, one.portmap.usable = { kind = "router", address = "192.168.0.2" }, false
        end },
      firewall = { "A firewall lets only answers in: allow incoming TCP to 192.168.20.5", function(_, one, side)
        side.udp, side.tcp, one.portmap = nat "udp-firewall", nat "udp-firewall", nil
      end },
      ["random-ports"] = { "takes a random port for each destination", function(_, one, side)
        side.udp, side.tcp, one.portmap = nat("symmetric", "random"), nat("symmetric", "random"), nil
      end },
      ["no-relay"] = { "No relay is configured, so peers that cannot be met otherwise cannot be met at all: add turn "
        .. "servers to /home/x/settings.lua.", function(result, one)
        result.turn, one.portmap = {}, nil
      end },
      ["relay-refuses"] = { "TURN server 30.1.0.3:3478 does not relay TCP (RFC 6062) (442): name one that relays TCP "
        .. "in /home/x/settings.lua.", function(result)
        fails(result.turn[1], "ENOTSUP", "TURN server 30.1.0.3:3478 does not relay TCP (RFC 6062) (442)")
      end },
      ["relay-silent"] = { "No relay answers (30.1.0.3:3478): connection timed out", function(result)
        fails(result.turn[1], "ETIMEDOUT", "asking STUN server 30.1.0.3, port 3478: connection timed out")
      end },
      ["broker-silent"] = { "No broker answers, so peers cannot signal to you (30.1.0.1:1883: connection refused): "
        .. "allow outgoing TCP to port 1883", function(result)
        fails(result.brokers[1], "ECONNREFUSED", "cannot connect to broker 30.1.0.1:1883: connection refused")
      end },
      ["no-broker"] = { "No broker is configured", function(result) result.brokers = {} end },
      ["no-stun"] = { "No STUN server is configured", function(result) result.stun = {} end },
      ["stun-silent"] = { "No STUN server answers, though other servers do", function(result)
        fails(result.stun[1], "ETIMEDOUT", "no answer")
      end },
      ["stun-lies"] = { "The STUN server 30.1.0.4 says what cannot be", function(_, _, side)
        side.udp.liar = "30.1.0.4"
      end },
      ["no-names"] = { "Names are not resolved (EAI_AGAIN)", function(result)
        for _, list in ipairs { result.stun, result.turn } do
          list[1].host = "stun.example"
          fails(list[1], "EAI_AGAIN", "temporary failure")
        end
      end },
      clock = { "Your clock is 1.2 h ahead", function(result) result.clock.offset_ms = 4321000 end },
      ["no-clock"] = { "allow UDP to port 123", function(result)
        fails(result.clock, "ETIMEDOUT", "asking clock x: connection timed out")
      end },
      key = { "The node's key cannot be used: permission denied", function(result)
        result.key = { ok = false, code = "EACCES", message = "EACCES: permission denied" }
      end },
      ["no-interface"] = { "plug the cable in", function(result)
        fails(result, "ENETDOWN", "no network interface is up")
        result.interfaces = {}
      end },
      ["no-default-route"] = { "eth0 has the address 192.168.20.5, but there is no default route",
        function(result, _, side)
          fails(result, "ENETUNREACH", "nothing answers")
          side.default, side.gateway = false, nil
        end },
      ["nothing-answers"] = { "the router 192.168.20.1 is offline", function(result, _, side)
        fails(result, "ENETUNREACH", "nothing answers")
        side.udp, side.tcp = nil, nil
      end },
      ["no-ipv6"] = { "There is no IPv6 here", function(_, one) one.portmap = nil end },
      ["ipv6-dead"] = { "nothing answers over IPv6", function(_, one)
        one.ipv6 = { internal = "2001:db9::2", default = true, ok = false, code = "ENETUNREACH" }
      end },
      ["ipv6-firewall"] = { "allow incoming TCP to 2001:db9::2", function(_, one)
        one.ipv6 = { internal = "2001:db9::2", default = true, ok = true, tcp = nat "udp-firewall" }
      end },
    } do
      local result = found(case[2])
      local text = hint_of(result, name)
      has(text, case[1])
      assert(text:find "%.$" and text:find ":", "no sentence with cause and cure: " .. text)
      same_words(words.report(result), (text:gsub("%s+", " ")))
    end
  end)

  it("do not ask for what would not help", function()
    local result = found(blocked)
    for _, name in ipairs(about(result)) do assert(name ~= "no-portmap" and name ~= "stun-silent", name) end
    result = found(function(_, one, side)
      side.front = { kind = "carrier", address = "100.64.2.1" }
      fails(one.portmap, "ENOTSUP", "no")
    end)
    for _, name in ipairs(about(result)) do assert.not_equal("no-portmap", name) end
  end)
end)

describe("netcheck's JSON", function()
  it("has null for what is not there, and lists that are lists", function()
    local result = found(function(result, one, side)
      result.turn, one.portmap, side.tcp = {}, nil, nil
    end)
    local text = netcheck.json(result)
    has_not(text, "\n")
    has(text, '"turn":[]')
    local back = cjson.decode(text)
    assert.equal(cjson.null, back.interfaces[1].ipv6)
    assert.equal(cjson.null, back.interfaces[1].portmap)
    assert.equal(cjson.null, back.interfaces[1].ipv4.tcp)
    assert.equal("port-restricted", back.interfaces[1].ipv4.udp.nat)
    assert.equal(-3.1, back.clock.offset_ms)
  end)
end)

describe("netcheck", function()
  it("throws at wrong arguments, at the caller's line", function()
    for _, case in ipairs {
      { { x = 1 }, "unknown option 'x'" }, { { timeout = "1" }, "option 'timeout' is a string, not a number" },
      { { timeout = 0 }, "'timeout' is a number of seconds" }, { { bind = "here" }, "'bind' is an IP address" },
    } do
      local ok, message = pcall(function() netcheck.run(case[1]) end)
      assert.is_false(ok)
      has(message, case[2])
      has(message, "netcheck_spec.lua")
    end
    has(select(2, pcall(function() netcheck.watch({}, 7) end)), "a function is expected")
  end)
end)
