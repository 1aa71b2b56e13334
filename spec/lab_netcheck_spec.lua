-- netcheck as a whole program, on hosts of one lab behind many kinds of routers.
-- check: alone
-- check: unsanitized
require "p2pd"
local cjson = require "cjson"
local lab = require "p2pd.lab"
local labs = require "spec.support.lab"
local luv = require "luv"
local program = require "spec.support.program"
local run = require "spec.support.run"
local task = require "p2pd.task"
local texts = require "spec.support.texts"

local has, has_not = texts.has, texts.has_not

local AT_ONCE = 3        -- checks side by side
local LONGEST = 4000     -- milliseconds of a check, whatever is silent
local ROUND_TRIP = 20    -- milliseconds
local MOST_RTT = 90      -- of what is measured amid other work
local CLOCK_ERROR = 4321 -- seconds

local obstacle = labs.obstacle(labs.users()[1])

-- Names of routers, each with a host behind it, and what their hosts see: NAT, delta, for UDP and TCP alike.
local KINDS = {
  same = { "port-restricted/equal", "port-restricted", "equal" },
  random = { "symmetric/random", "symmetric", "random" },
  full = { "full-cone/random", "full-cone", "random" },
  open = { "open", "open", "na" },
  firewall = { "udp-firewall", "udp-firewall", "na" },
  blocked = { "blocked", "blocked", "na" },
  mapped = { "port-restricted/equal", "port-restricted", "equal" },
  carrier = { "port-restricted/equal", "symmetric", "random" },
}

local function routers()
  local made = {}
  for name, kind in pairs(KINDS) do made[name] = { nat = kind[1], delay_ms = ROUND_TRIP / 2 } end
  made.random.ipv6 = "none"
  made.mapped.portmap, made.carrier.portmap = true, true
  made.carrier.carrier = "symmetric/random"
  return made
end

local SERVERS = {
  mqtt = '{ { host = "30.1.0.1", port = 1883 }, { host = "30.1.0.2", port = 1883 } }',
  stun = '{ { host = "30.1.0.3", port = 3478 }, { host = "30.1.0.4", port = 3478 } }',
  ntp = '{ { host = "30.1.0.5", port = 123 }, { host = "30.1.0.6", port = 123 }, { host = "30.1.0.7", port = 123 } }',
  turn = "{}", names = "{}",
}

describe("netcheck in the lab", function()
  local net, folder

  lazy_setup(run(function()
    if obstacle then return end
    folder = program.folder()
    net = assert(lab.up {
      routers = routers(), stay = true,
      hosts = {
        same = "same", random = "random", full = "full", open = "open", firewall = "firewall", blocked = "blocked",
        mapped = "mapped", carrier = "carrier", two = { "same", "full" }, gone = "same", moving = "same",
        late = { router = "same", clock_error = CLOCK_ERROR },
      },
    })
  end))

  lazy_teardown(run(function()
    if net then net:down() end
    if folder then getmetatable(folder).__close() end
  end))

  local function test(name, f)
    it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end
      or run(function() net:guard(f) end))
  end

  -- Runs it on a host to its end; what it prints has no traceback, and nothing that only a program would say.
  local function check(host, ...)
    local command = { "p2pd-lua", "netcheck", ... }
    command.timeout = 15
    local it = assert(assert(net:host(host)):run(command))
    for _, text in ipairs { "traceback", ".lua:", "nil" } do has_not(it.out .. it.err, text) end
    return it
  end

  local function checked(host, ...)
    local it = check(host, "--json", ...)
    assert.equal("", it.err)
    local result = cjson.decode(it.out)
    assert.equal(1, select(2, it.out:gsub("\n", "")))
    return result, it.status
  end

  local function about(result)
    local names = {}
    for _, hint in ipairs(result.hints) do names[hint.about] = hint.text end
    return names
  end

  -- A settings file of the lab's servers with other lists.
  local function settings(name, change)
    local text = { "return {\n" }
    for list, servers in pairs(SERVERS) do text[#text + 1] = ("  %s = %s,\n"):format(list, change[list] or servers) end
    local path = folder:write(name .. ".lua", table.concat(text) .. "}\n")
    luv.fs_chmod(path, 384) -- 0600
    return path
  end

  local function ip(host, ...)
    local it = assert(host:run { root = true, timeout = 5, "ip", ... })
    assert(it.status == 0, it.err)
  end

  local function side_by_side(names, f)
    local place, results = 0, {}
    local tasks <close> = task.group()
    for _ = 1, AT_ONCE do
      tasks:spawn(function()
        while place < #names do
          place = place + 1
          local name = names[place]
          results[name] = f(name)
        end
      end)
    end
    for _, one in ipairs(tasks) do one:wait() end
    return results
  end

  test("tells each kind of router, with all fields of the contract", function()
    local names = {}
    for name in pairs(KINDS) do names[#names + 1] = name end
    local results = side_by_side(names, function(name)
      local result, status = checked(name)
      assert.equal(0, status)
      return result
    end)
    for name, kind in pairs(KINDS) do
      local result = results[name]
      local one = result.interfaces[1]
      assert(result.ok and result.ms < LONGEST, ("%s took %g ms"):format(name, result.ms))
      assert.equal(1, #result.interfaces)
      assert.equal("eth0", one.name)
      for _, transport in ipairs { "udp", "tcp" } do
        local nat = one.ipv4[transport]
        assert.equal(("%s: %s/%s"):format(name, kind[2], kind[3]), ("%s: %s/%s"):format(name, nat.nat, nat.delta))
        assert(nat.confidence > 0 and nat.confidence <= 1 and nat.value)
      end
      assert.matches("^%d+%.%d+%.%d+%.%d+$", one.ipv4.internal)
      local translated = name ~= "open" and name ~= "firewall"
      assert.equal(translated, one.ipv4.internal ~= one.ipv4.external)
      assert.matches("^30%.", one.ipv4.external)
      assert.equal(name == "blocked" or name == "random", one.ipv6 == cjson.null)
      for _, list in ipairs { result.brokers, result.stun, result.turn } do
        assert(#list >= 2)
        for _, server in ipairs(list) do
          if server.ok then
            assert(server.rtt_ms >= ROUND_TRIP and server.rtt_ms < MOST_RTT, server.host .. ": " .. server.rtt_ms)
          else
            assert(server.skipped or name == "blocked" and server.transport == "udp", cjson.encode(server))
            assert.matches("^E%w+$", server.code)
            has(server.message, server.code .. ": ")
          end
        end
      end
      for _, broker in ipairs(result.brokers) do assert.is_true(broker.ok) end
      assert.equal(name ~= "blocked", result.clock.ok)
      if result.clock.ok then assert(math.abs(result.clock.offset_ms) < 20 and result.clock.error_ms < 40) end
    end
    assert.equal("udp-firewall", results.same.interfaces[1].ipv6.tcp.nat)
    assert.equal("open", results.open.interfaces[1].ipv6.udp.nat)
    assert.equal("relay", results.same.turn[1].checked)
    assert.truthy(results.same.turn[1].relay:find "^30%.1%.0%.[34]$", results.same.turn[1].relay) -- coturn has both
    assert.equal("tcp", results.blocked.stun[1].transport)
    local mapped, carrier = results.mapped.interfaces[1], results.carrier.interfaces[1]
    assert.is_true(mapped.portmap.ok and mapped.portmap.usable)
    assert.equal(mapped.ipv4.external, mapped.portmap.external)
    assert.is_false(results.same.interfaces[1].portmap.ok)
    assert.equal("ENOTSUP", results.same.interfaces[1].portmap.code)
    assert.equal(cjson.null, results.open.interfaces[1].portmap)
    assert.is_false(carrier.portmap.usable)
    assert.equal("carrier", carrier.ipv4.front.kind)
    assert.matches("^100%.64%.", carrier.ipv4.front.address)
    assert(about(results.carrier).carrier and about(results.blocked)["udp-dropped"])
    assert(about(results.same)["no-portmap"])
    assert.is_nil(about(results.mapped)["no-portmap"])
  end)

  test("says the same to a person", function()
    local parts = {
      same = { "port-restricted NAT", "ports stay as they are", "enable UPnP or NAT-PMP on 192.168." },
      random = { "symmetric NAT", "ports are random", "will need a relay", "IPv6 none", "takes a random port" },
      carrier = { "carrier-grade NAT", "100.64.", "useless, as another router is in front" },
      mapped = { "Everybody can dial you.", "NAT-PMP and UPnP by 192.168.", "(lab mapped)" },
      blocked = { "a firewall that blocks", "Your firewall drops UDP" },
      open = { "nothing: whoever dials gets in", "Everybody can dial you." },
      firewall = { "only answers come in", "A firewall lets only answers in: allow incoming TCP to 30.3." },
    }
    local names = {}
    for name in pairs(parts) do names[#names + 1] = name end
    local results = side_by_side(names, check)
    for name, list in pairs(parts) do
      local it = results[name]
      assert.are.same({ 0, "" }, { it.status, it.err })
      local plain = it.out:gsub("%s+", " ")
      for _, part in ipairs(list) do has(plain, part) end
      for _, part in ipairs { "Brokers  2 of 2 answer: 30.1.0.", "STUN ", "Clock ", "Checked in ", "\nWho " } do
        has(it.out, part)
      end
      for line in it.out:gmatch "[^\n]+" do assert(utf8.len(line) <= 100, line) end
    end
  end)

  test("looks at each interface, by its own way out", function()
    local result = checked "two"
    assert.same({ "eth0", "eth1" }, { result.interfaces[1].name, result.interfaces[2].name })
    assert.equal("port-restricted", result.interfaces[1].ipv4.udp.nat)
    assert.equal("full-cone", result.interfaces[2].ipv4.udp.nat)
    assert.not_equal(result.interfaces[1].ipv4.external, result.interfaces[2].ipv4.external)
    local bound = checked("two", "--bind", result.interfaces[2].ipv4.internal)
    assert.equal(1, #bound.interfaces)
    assert.equal("eth1", bound.interfaces[1].name)
  end)

  test("tells servers that are down from a network that is", function()
    local cases = {
      broker = { mqtt = '{ { host = "30.1.0.1", port = 1884 }, { host = "30.1.0.99", port = 1883 } }' },
      stun = { stun = '{ { host = "30.1.0.99", port = 3478 }, { host = "30.1.0.2", port = 3478 } }' },
      names = { mqtt = '{ { host = "broker.example", port = 1883 } }', stun = '{ { host = "s.example", port = 1 } }' },
      relay = { turn = '{ { host = "30.1.0.3", port = 3477, user = "lab", password = "lab" } }' },
      password = { turn = '{ { host = "30.1.0.3", port = 3478, user = "lab", password = "secret?" }, '
        .. '{ host = "30.1.0.3", port = 3478 } }' },
    }
    local names = { "broker", "stun", "names", "relay", "password" }
    local results = side_by_side(names, function(name)
      local result, status = checked("same", "--settings", settings(name, cases[name]))
      assert.equal(0, status)
      assert(result.ok and result.ms < LONGEST)
      return result
    end)
    has(about(results.broker)["broker-silent"], "30.1.0.1:1884: connection refused")
    has(about(results.broker)["no-relay"], "broker.lua")
    assert.same({ "ECONNREFUSED", false }, { results.broker.brokers[1].code, results.broker.brokers[1].ok })
    assert.equal("port-restricted", results.broker.interfaces[1].ipv4.udp.nat)
    assert(about(results.stun)["stun-silent"])
    assert.equal(cjson.null, results.stun.interfaces[1].ipv4.udp)
    assert.equal(false, results.stun.interfaces[1].ipv4.ok)
    has(results.stun.interfaces[1].ipv4.message, "no STUN server answers")
    assert(about(results.names)["no-names"])
    has(about(results.relay)["relay-silent"], "30.1.0.3:3477")
    local refused, entries = about(results.password)["relay-refuses"], results.password.turn
    has(refused, "password.lua")
    has(entries[1].message, "does not accept the user's name or password (401)")
    has(entries[2].message, "has no user and password in the settings")
    has_not(cjson.encode(results.password), "secret?")
  end)

  test("calls it blocked when brokers answer, and nothing by UDP", function()
    local stun = '{ { host = "30.1.0.99", port = 3478 }, { host = "30.1.0.3", port = 9 } }'
    local result = checked("blocked", "--settings", settings("silent", { stun = stun }))
    assert.equal("blocked", result.interfaces[1].ipv4.udp.nat)
    assert(result.interfaces[1].ipv4.udp.confidence < 0.9)
    assert(about(result)["udp-dropped"])
  end)

  test("tells by how much a clock is wrong", function()
    local result = checked "late"
    assert(math.abs(result.clock.offset_ms - CLOCK_ERROR * 1000) < 20, result.clock.offset_ms)
    has(about(result).clock, "Your clock is 1.2 h ahead")
  end)

  test("ends with 1 where there is no network, and says why", function()
    local gone = assert(net:host "gone")
    ip(gone, "route", "del", "default")
    ip(gone, "-6", "route", "del", "default")
    local result, status = checked "gone"
    assert.same({ false, "ENETUNREACH", 1 }, { result.ok, result.code, status })
    has(about(result)["no-default-route"], "there is no default route")
    ip(gone, "link", "set", "eth0", "down")
    result, status = checked "gone"
    assert.same({ false, "ENETDOWN", 1, 0 }, { result.ok, result.code, status, #result.interfaces })
    assert.same({ 2, false }, { #result.brokers, result.brokers[1].ok })
    local it = check "gone"
    assert.equal(1, it.status)
    has(it.out, "There is no network: no network interface is up")
    it = check("same", "--bind", "192.168.77.1")
    assert.equal(1, it.status)
    has(it.err, "no interface has the address 192.168.77.1")
  end)

  test("says that nothing answers when the cable is cut", function()
    assert(net:cut "full")
    local result, status = checked "full"
    assert(net:mend "full")
    assert.same({ false, "ENETUNREACH", 1 }, { result.ok, result.code, status })
    has(about(result)["nothing-answers"], "offline")
    assert(result.ms < LONGEST, result.ms)
  end)

  test("goes on watching, and notices another address at once", function()
    local moving = assert(net:host "moving")
    local child <close> = assert(moving:start { "p2pd-lua", "netcheck", "--watch", "--json" })
    local lines = child:lines()
    local before = cjson.decode(lines()).interfaces[1].ipv4
    local new = before.internal:gsub("%d+$", "77")
    local began = task.now()
    ip(moving, "address", "del", before.internal .. "/24", "dev", "eth0")
    ip(moving, "address", "add", new .. "/24", "dev", "eth0")
    ip(moving, "route", "replace", "default", "via", before.gateway)
    local after
    repeat after = cjson.decode(lines()) until after.interfaces[1].ipv4 ~= cjson.null and after.interfaces[1].ipv4.ok
    assert.equal(new, after.interfaces[1].ipv4.internal)
    assert.equal("port-restricted", after.interfaces[1].ipv4.udp.nat)
    assert(task.now() - began < 9, "it noticed only when it looked by itself")
  end)

  -- The words by which it is run on a host with a terminal.
  local function in_terminal(host, ...)
    return program.start_in_terminal(host:argv { "p2pd-lua", "netcheck", ... })
  end

  it("rewrites a line while it works at a terminal, and leaves at Ctrl-C with 130", function()
    if obstacle then return pending("no namespaces here: " .. obstacle) end
    local host
    run(function() host = assert(net:host "same") end)()
    local child <close> = in_terminal(host, "--watch")
    child:expect " done, waiting for "
    child:expect "\r\27[K"
    child:expect "Checked in "
    child:write "\3"
    assert.equal(130, child:wait())
    local early <close> = in_terminal(host)
    early:expect " done, waiting for "
    early:write "\3"
    assert.equal(130, early:wait())
    has_not(early.out, "traceback")
  end)

  it("says how it is used", function()
    local help = program.run { program.path, "netcheck", "--help" }
    assert.are.same({ 0, "" }, { help.status, help.err })
    for _, part in ipairs {
      "usage: p2pd-lua netcheck", "--json", "--watch", "--timeout SECONDS", "--settings FILE", "--key FILE",
      "--bind IP", "1 there is no network",
    } do
      has(help.out, part)
    end
    for _, words in ipairs { { "--foo" }, { "extra" }, { "--timeout", "0" }, { "--bind", "here" } } do
      local it = program.run { program.path, "netcheck", table.unpack(words) }
      assert.equal(2, it.status)
      has(it.err, "p2pd-lua netcheck: ")
    end
    local it = program.run { program.path, "netcheck", "--settings", "/nowhere/settings.lua" }
    assert.equal(1, it.status)
    has(it.err, "ENOENT")
  end)
end)
