-- Whether the lab's routers do what their names say, as programs see it from outside that are not ours: coturn's
-- turnutils_natdiscovery, ping, miniupnpd's clients, and plain sockets (spec/support/plain.lua).
-- check: alone
-- check: unsanitized
require "p2pd"
local luv = require "luv"
local lab = require "p2pd.lab"
local run = require "spec.support.run"
local task = require "p2pd.task"

local PORTS = 65536 - 1024 -- that a router gives away; behind the last comes the first
local STUN = "30.1.0.3"
local CROSSING_NS = 0.3e9 // 1 | 0 -- until both ends have started that are to dial at one moment
local ANY_PORT, LISTED_PORT = 4444, 8883 -- a router that blocks lets TCP pass to the second

local TYPES = { "full-cone", "restricted", "port-restricted", "symmetric" }
local DELTAS = { "equal", "preserving", "independent:3", "dependent:2", "random" }

local function plain(...)
  local command = { "lua5.4", "spec/support/plain.lua", ... }
  for place, word in ipairs(command) do command[place] = tostring(word) end
  return command
end

-- What a plain socket says: the first line, and all.
local function ask(host, ...)
  local command, lines = plain(...), {}
  command.timeout = 20
  local ended = assert(host:run(command))
  assert(ended.status == 0, ended.err)
  for line in ended.out:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines[1] or "nothing", lines
end

-- One that goes on until it is closed, and its first line.
local function start(host, ...)
  local child = assert(host:start(plain(...)))
  return child, child:lines()()
end

-- Does it with each of these at once.
local function each(list, f)
  local tasks <close> = task.group()
  for key, value in pairs(list) do tasks:spawn(f, key, value) end
  for _, one in ipairs(tasks) do one:wait() end
end

-- A lab with these routers, a host behind each, and hosts on the open internet.
local function up(routers, ...)
  local hosts = {}
  for name in pairs(routers) do hosts[name] = name end
  for _, name in ipairs { ... } do hosts[name] = "internet" end
  return assert(lab.up { routers = routers, hosts = hosts })
end

local function address_of(host)
  return host:run({ "ip", "-4", "-brief", "address", "show", "eth0" }).out:match "(%d+%.%d+%.%d+%.%d+)/"
end

describe("to coturn's natdiscovery", function()
  local INDEPENDENT, ADDRESS, PORT = "Endpoint Independent", "Address Dependent", "Address and Port Dependent"
  local scopes = {
    ["endpoint-independent"] = INDEPENDENT, ["address-dependent"] = ADDRESS, ["address-and-port-dependent"] = PORT,
  }

  -- What it is to say of each router: how it maps, how it filters.
  local function check(routers, expected)
    local made <close> = up(routers)
    made:guard(each, expected, function(name, words)
      local host = assert(made:host(name))
      local said = host:run({
        "turnutils_natdiscovery", "-m", "-f", "-L", address_of(host), STUN, timeout = 25,
      }).out
      assert(said:find(words[1], 1, true), ("%s: '%s' is not in:\n%s"):format(name, words[1], said))
      assert(said:find(words[2], 1, true), ("%s: '%s' is not in:\n%s"):format(name, words[2], said))
    end)
  end

  it("each type is what it is called, however it chooses ports", run(function()
    local filterings = { ["full-cone"] = INDEPENDENT, restricted = ADDRESS }
    local routers = { open = "open", ["udp-firewall"] = "udp-firewall", blocked = "blocked" }
    local expected = {
      blocked = { "STUN receive timeout", "" },
      open = { "No NAT!", INDEPENDENT .. " Filtering!" }, ["udp-firewall"] = { "No NAT!", PORT .. " Filtering!" },
    }
    for _, kind in ipairs(TYPES) do
      for _, delta in ipairs(DELTAS) do
        local name = ("%s-%s"):format(kind:sub(1, 6), delta:match "%a+")
        routers[name] = kind .. "/" .. delta
        local many = kind == "symmetric" and delta ~= "equal" and delta ~= "preserving" -- else ports follow local ones
        expected[name] = {
          ("NAT with %s Mapping!"):format(many and PORT or INDEPENDENT),
          ("NAT with %s Filtering!"):format(filterings[kind] or PORT),
        }
      end
    end
    check(routers, expected)
  end))

  it("mapping and filtering are what each is told to be", run(function()
    local routers, expected = {}, {}
    local number = 0
    for mapping, mapping_words in pairs(scopes) do
      for filtering, filtering_words in pairs(scopes) do
        number = number + 1
        local name = "r" .. number
        routers[name] = { nat = "full-cone/random", udp = { mapping = mapping, filtering = filtering } }
        expected[name] = {
          ("NAT with %s Mapping!"):format(mapping_words), ("NAT with %s Filtering!"):format(filtering_words),
        }
      end
    end
    check(routers, expected)
  end))
end)

describe("to plain TCP sockets", function()
  -- Whether a connection is let in: to a port that the host has used, from another address than the one that it spoke
  -- with, and from another port of that; and whether the router has a state of its own that a SYN from both meets.
  local types = {
    open = { stranger = true, friend = true, simultaneous = true },
    ["udp-firewall"] = { stranger = false, friend = false, simultaneous = true },
    ["full-cone/equal"] = { stranger = true, friend = true, simultaneous = true },
    ["restricted/equal"] = { stranger = false, friend = true, simultaneous = true },
    ["port-restricted/equal"] = { stranger = false, friend = false, simultaneous = true },
    ["symmetric/equal"] = { stranger = false, friend = false, simultaneous = true },
    blocked = { stranger = false, friend = false, simultaneous = false },
  }

  it("each type lets in what it is said to let in", run(function()
    local routers, kinds = {}, {}
    for kind, expected in pairs(types) do
      local name = kind:gsub("/.*", "")
      routers[name], kinds[name] = { nat = kind, delay_ms = 20 }, expected -- slow, so that SYNs meet on the way
    end
    local made <close> = up(routers, "near", "far")
    local near, far = assert(made:host "near"), assert(made:host "far")
    local near_ip, far_ip = address_of(near), address_of(far)
    local any <close> = start(near, "reflect", ANY_PORT)
    local listed <close> = start(near, "reflect", LISTED_PORT)
    assert(any and listed)
    local port = 5000
    made:guard(each, kinds, function(name, expected)
      port = port + 10
      local own = port -- a number of its own, as all dial from the same hosts
      local host = assert(made:host(name))
      local function is(what, wanted, got)
        assert(got == wanted, ("%s: %s: '%s', not '%s'"):format(name, what, tostring(got), tostring(wanted)))
      end
      -- straight
      is("a listed port", "30.", ask(host, "ask", "tcp", near_ip, LISTED_PORT):sub(1, 3))
      is("any port", name ~= "blocked", ask(host, "ask", "tcp", near_ip, ANY_PORT):find "^30%." ~= nil)
      -- uninvited
      local held <close>, seen = start(host, "hold", own, near_ip, LISTED_PORT)
      local ip, external = seen:match "^(%S+) (%d+)$"
      is("a stranger", expected.stranger and "open" or "ETIMEDOUT", ask(far, "dial", own, ip, external, 0.5))
      is("a friend", expected.friend and "open" or "ETIMEDOUT", ask(near, "dial", own, ip, external, 0.5))
      is("an unused port", name == "open" and "ECONNREFUSED" or "ETIMEDOUT", ask(far, "dial", own, ip, own + 1, 0.5))
      assert(held)
      -- simultaneous open: the external port is known, as these all keep ports or have none to keep
      local said, at = {}, luv.hrtime() + CROSSING_NS
      each({ outside = { far, own + 2, ip, own + 3 }, inside = { host, own + 3, far_ip, own + 2 } },
        function(side, dial) said[side] = ask(dial[1], "dial", dial[2], dial[3], dial[4], 2, at) end)
      is("simultaneous open, outside", expected.simultaneous and "open" or "ETIMEDOUT", said.outside)
      is("simultaneous open, inside", expected.simultaneous and "open" or "ETIMEDOUT", said.inside)
    end)
  end))

  it("an uninvited SYN gets what the router is told to give", run(function()
    local made <close> = up({
      silent = { nat = "symmetric/random", uninvited = "drop" },
      resets = { nat = "symmetric/random", uninvited = "reset" },
      tells = { nat = "symmetric/random", uninvited = "unreachable" },
    }, "far")
    local far = assert(made:host "far")
    local reflector <close> = start(far, "reflect", ANY_PORT)
    assert(reflector)
    local far_ip = address_of(far)
    -- The ICMP error is "port unreachable" (RFC 5382, REQ-4), of which connect(2) says the same as of a reset.
    local expected = { silent = "ETIMEDOUT", resets = "ECONNREFUSED", tells = "ECONNREFUSED" }
    for name, code in pairs(expected) do
      local ip = ask(assert(made:host(name)), "ask", "tcp", far_ip, ANY_PORT):match "^%S+"
      assert.equal(code, (ask(far, "dial", 0, ip, 7777, 0.5)))
    end
  end))

  -- The external ports of connections from these local ports, by the same router.
  local function series(host, first, step, count, ip)
    local list, _, lines = {}, ask(host, "series", first, step, count, ip, ANY_PORT)
    for place, line in ipairs(lines) do
      local from, external = line:match "^(%d+)%s+%S+ (%d+)$"
      list[place] = { from = math.tointeger(from), to = math.tointeger(external) }
    end
    assert.equal(count, #list)
    return list
  end

  local function differences(list)
    local found = {}
    for place = 2, #list do found[place - 1] = (list[place].to - list[place - 1].to) % PORTS end
    return found
  end

  local function distances(list)
    local found, count = {}, 0
    for _, pair in ipairs(list) do
      local distance = (pair.to - pair.from) % PORTS
      count = count + (found[distance] and 0 or 1)
      found[distance] = true
    end
    return count, next(found)
  end

  local behaves = {}

  function behaves.equal(lists)
    for _, list in ipairs(lists) do
      for _, pair in ipairs(list) do assert.equal(pair.from, pair.to) end
    end
  end

  function behaves.preserving(lists)
    local distance
    for _, list in ipairs(lists) do
      local count, one = distances(list)
      assert.equal(1, count)
      assert.not_equal(0, one)
      assert.equal(distance or one, one)
      distance = one
    end
  end

  function behaves.independent(lists)
    for _, list in ipairs(lists) do
      for _, difference in ipairs(differences(list)) do assert.equal(3, difference) end
    end
  end

  function behaves.dependent(lists)
    for _, difference in ipairs(differences(lists[1])) do assert.equal(2, difference) end
    assert.is_true((distances(lists[2])) > 3)
  end

  function behaves.random(lists)
    for _, list in ipairs(lists) do assert.is_true((distances(list)) > 3) end
  end

  it("each allocation gives the ports that it is said to give", run(function()
    local routers, deltas = {}, {}
    for _, delta in ipairs(DELTAS) do
      local name = delta:match "%a+"
      routers[name], deltas[name] = "symmetric/" .. delta, delta
    end
    local made <close> = up(routers, "near")
    local near = assert(made:host "near")
    local reflector <close> = start(near, "reflect", ANY_PORT)
    assert(reflector)
    local ip = address_of(near)
    made:guard(each, deltas, function(name)
      local host = assert(made:host(name))
      behaves[name] { series(host, 20000, 1, 6, ip), series(host, 30000, 7, 6, ip) }
    end)
  end))

  it("ports stay in the range that is given", run(function()
    local made <close> = up({ a = "port-restricted/random@40000-40049" }, "near")
    local near = assert(made:host "near")
    local reflector <close> = start(near, "reflect", ANY_PORT)
    assert(reflector)
    for _, pair in ipairs(series(assert(made:host "a"), 20000, 1, 20, address_of(near))) do
      assert.is_true(pair.to >= 40000 and pair.to <= 40049)
    end
  end))

  it("a mapping is one for all remotes, or one for each, as it is told", run(function()
    local made <close> = up({
      all = "port-restricted/independent:3", each = "symmetric/independent:3",
    }, "near", "far")
    local near, far = assert(made:host "near"), assert(made:host "far")
    local one <close> = start(near, "reflect", ANY_PORT)
    local other <close> = start(far, "reflect", ANY_PORT)
    assert(one and other)
    for name, difference in pairs { all = 0, each = 3 } do
      local host = assert(made:host(name))
      local first = series(host, 20000, 1, 1, address_of(near))
      local second = series(host, 20000, 1, 1, address_of(far))
      assert.equal(difference, (second[1].to - first[1].to) % PORTS)
    end
  end))
end)

describe("to ping", function()
  it("delays are those that were asked for, within a millisecond", run(function()
    local made <close> = up {
      none = "port-restricted/equal", a = { nat = "symmetric/random", delay_ms = 10 },
      b = { nat = "open", delay_ms = 62.5 }, c = { nat = "full-cone/equal", delay_ms = 5, carrier = { delay_ms = 7 } },
    }
    made:guard(each, { none = 0, a = 20, b = 125, c = 24 }, function(name, expected)
      local said = assert(made:host(name)):run({ "ping", "-c", "10", "-i", "0.2", "30.1.0.1" }).out
      local least = tonumber(said:match "= ([%d.]+)/") -- whatever else the machine has to do comes on top
      assert(least and least >= expected and least < expected + 1, ("%s: not %g ms: %s"):format(name, expected, said))
    end)
  end))

  it("loss is what was asked for, within half a percent", run(function()
    local made <close> = up { a = { nat = "port-restricted/equal", loss = 0.01 }, b = "port-restricted/equal" }
    for name, there_and_back in pairs { a = 1 - 0.99 ^ 2, b = 0 } do
      local said = assert(made:host(name)):run({
        "ping", "-q", "-f", "-c", "20000", "-W", "1", "30.1.0.1", root = true,
      }).out
      local received = tonumber(said:match "transmitted, (%d+) received")
      assert(math.abs(1 - received / 20000 - there_and_back) <= 0.005, said)
    end
  end))

  it("routers are hops that say when a packet has come too far", run(function()
    local made <close> = up { a = { nat = "port-restricted/equal", carrier = { nat = "symmetric/random" } } }
    local host = assert(made:host "a")
    for hops, router in ipairs { "192.168.1.1", "100.64.1.1", "30.2.101.1" } do
      local said = host:run({ "ping", "-c", "1", "-W", "2", "-t", tostring(hops), "30.1.0.1" }).out
      if router == "30.2.101.1" then
        assert.matches("1 received", said)
      else
        assert(said:find("From " .. router, 1, true), said)
        assert.matches("Time to live exceeded", said)
      end
    end
  end))
end)

describe("to clients of port mapping", function()
  it("what is mapped is open to all, over the same slow link", run(function()
    local made <close> = up({ a = { nat = "symmetric/random", portmap = true, delay_ms = 20 } }, "far")
    local host, far = assert(made:host "a"), assert(made:host "far")
    local said = host:run({ "natpmpc", "-g", "192.168.1.1", "-a", "7000", "7001", "tcp", "60" }).out
    assert.matches("Mapped public port 7000 protocol TCP to local port 7001", said)
    said = host:run({
      "upnpc", "-u", "http://192.168.1.1:5000/rootDesc.xml", "-a", "192.168.1.10", "7001", "8000", "udp",
    }).out
    assert.matches("30%.2%.1%.2:8000 UDP is redirected", said)
    local reflector <close> = start(host, "reflect", 7001)
    assert(reflector)
    local far_ip = address_of(far):gsub("%.", "%%.")
    local began = task.now()
    assert.matches(far_ip, (ask(far, "ask", "tcp", "30.2.1.2", 7000)))
    assert.is_true(task.now() - began > 0.08) -- two round trips of 40 ms
    assert.matches(far_ip, (ask(far, "ask", "udp", "30.2.1.2", 8000)))
    assert.equal("ETIMEDOUT", (ask(far, "dial", 0, "30.2.1.2", 7001, 0.5)))
  end))
end)
