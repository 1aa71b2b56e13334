-- Port mapping against the real miniupnpd in labs, and against gateways that misbehave.
-- check: unsanitized
local cjson = require "cjson"
local lab = require "p2pd.lab"
local labs = require "spec.support.lab"
local mapping = require "spec.support.mapping"
local p2pd = require "p2pd"
local program = require "spec.support.program"
local run = require "spec.support.run"
local texts = require "spec.support.texts"

local has = texts.has

local ROUTER = "http://192.168.1.1:5000/rootDesc.xml"
local EXTERNAL = "30.2.1.2"

local obstacle = labs.obstacle(labs.users()[1])
local function test(name, f)
  it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or run(f))
end

-- Without a time it is removed at once; else the child that has it comes too.
local function open(host, options, seconds)
  options.internal_port = options.internal_port or 7000
  local code = mapping.script(options, seconds or 0)
  if not seconds then
    local it = assert(host:run { program.path, "-e", code, timeout = 20 })
    assert(it.status == 0, it.err)
    return cjson.decode(it.out)
  end
  local child = assert(host:start { program.path, "-e", code })
  local line = child:lines()()
  local ok, told = pcall(cjson.decode, line)
  assert(ok, line)
  return told, child
end

-- What the router has mapped: "TCP 7000->192.168.1.10:7000 'name'" for each.
local function mappings(host)
  local list = {}
  local out = assert(host:run { "upnpc", "-u", ROUTER, "-l", timeout = 10 }).out
  for protocol, ports, name in out:gmatch "\n *%d+ (%u+) +(%d+%->%S+) +('[^']*')" do
    list[#list + 1] = ("%s %s %s"):format(protocol, ports, name)
  end
  table.sort(list)
  return list
end

local function crash(child)
  child.signal_by(child.pid, "sigkill")
  child:wait(5)
end

describe("port mapping in the lab", function()
  local net, a, b, outside

  lazy_setup(function()
    if obstacle then return end
    p2pd.run(function()
      net = assert(lab.up {
        servers = false, hosts = { a = "r", b = "r", c = "z" },
        routers = { r = { portmap = true, nat = "port-restricted/random", uninvited = "reset" }, z = "open" },
      })
      net:stay()
      a, b, outside = assert(net:host "a"), assert(net:host "b"), assert(net:host "c")
    end)
  end)

  lazy_teardown(function()
    if net then p2pd.run(function() net:down() end) end
  end)

  before_each(function()
    if net then p2pd.run(function() assert(net:restart "portmap-r") end) end
  end)

  -- What one outside sees at the router's port.
  local function dial(port)
    return assert(outside:run { "lua5.4", "spec/support/plain.lua", "ask", "tcp", EXTERNAL, tostring(port),
      timeout = 10 }).out
  end

  local function reflect(host)
    local child = assert(host:start { "lua5.4", "spec/support/plain.lua", "reflect", "7000" })
    assert(child:lines()() == "ready")
    return child
  end

  test("says what the router offers", function()
    local it = assert(a:lua [[print(require "cjson".encode(assert(require "p2pd.portmap".probe())))]])
    local offer = cjson.decode(it.out)
    assert.equal(EXTERNAL, offer.nat_pmp.external_ip)
    assert.equal(EXTERNAL, offer.upnp.external_ip)
    assert.equal("lab r", offer.upnp.router)
    assert.equal(ROUTER, offer.upnp.location)
    assert.same({}, offer.failures)
    assert.is_true(offer.time < 0.5, it.out)
  end)

  for _, method in ipairs { "nat-pmp", "upnp" } do
    test("by " .. method .. " lets connections in until it is closed", function()
      local server <close> = reflect(a) -- luacheck: ignore 211
      has(dial(7000), "ECONNREFUSED")
      local told, child = open(a, { methods = { method }, name = "greeter" }, 20)
      local held <close> = child -- luacheck: ignore 211
      assert.same({ EXTERNAL, 7000, method }, { told.external_ip, told.external_port, told.method })
      assert.is_true(told.lifetime == 3600 or told.lifetime == 3599, told.lifetime)
      has(dial(7000), "30.3.2.10 ")
      child:close() -- its task is cancelled, and removes the mapping as it leaves its scope
      assert.same({}, mappings(a))
      has(dial(7000), "ECONNREFUSED")
    end)

    test("by " .. method .. " is renewed, and gone by itself after a crash", function()
      local server <close> = reflect(a) -- luacheck: ignore 211
      local told, child = open(a, { methods = { method }, lifetime = 2 }, 5)
      local held <close> = child -- luacheck: ignore 211
      assert.is_true(told.lifetime == 2 or told.lifetime == 1, told.lifetime) -- what the router says is left
      p2pd.sleep(4.5)
      has(dial(7000), "30.3.2.10 ")
      told = cjson.decode(child:lines()())
      assert.is_true(told.renewals >= 3, told.renewals)
      child:wait(5)
      assert.same({}, mappings(a))
      local _, other = open(a, { methods = { method }, lifetime = 2 }, 60)
      local crashed <close> = other -- luacheck: ignore 211
      crash(other)
      assert.equal(1, #mappings(a))
      p2pd.sleep(4)
      assert.same({}, mappings(a))
    end)

    test("by " .. method .. " moves to another port when its own is taken, and stays there", function()
      local first, first_child = open(b, { methods = { method }, name = "b" }, 60)
      local others <close> = first_child -- luacheck: ignore 211
      assert.equal(7000, first.external_port)
      local told, child = open(a, { methods = { method }, name = "a" }, 60)
      local held <close> = child -- luacheck: ignore 211
      assert.is_not.equal(7000, told.external_port)
      assert.equal(2, #mappings(a))
      local server <close> = reflect(a) -- luacheck: ignore 211
      has(dial(told.external_port), "30.3.2.10 ")
      crash(child)
      first_child:close() -- now the wanted port is free
      local again, child_again = open(a, {
        methods = { method }, name = "a", external_port = method == "nat-pmp" and told.external_port or nil,
      }, 60)
      local kept <close> = child_again -- luacheck: ignore 211
      assert.equal(told.external_port, again.external_port)
      assert.equal(1, #mappings(a))
    end)
  end

  test("takes over by its name what an earlier run has left", function()
    local _, child = open(a, { methods = { "upnp" }, name = "mine" }, 60)
    local first <close> = child -- luacheck: ignore 211
    crash(child)
    assert.same({ "TCP 7000->192.168.1.10:7000 'p2pd-lua mine tcp 7000'" }, mappings(a))
    local told, child_again = open(a, { methods = { "upnp" }, name = "mine", external_port = 8000 }, 60)
    local again <close> = child_again -- luacheck: ignore 211
    assert.equal(7000, told.external_port)
    assert.equal(1, #mappings(a))
  end)

  test("takes the first method that answers, and needs no search where it knows the router", function()
    local told = open(a, {})
    assert.equal("nat-pmp", told.method)
    assert.is_true(told.seconds < 0.2, told.seconds)
    told = open(a, { methods = { "upnp" }, location = ROUTER, protocol = "udp" })
    assert.equal(ROUTER, told.location)
    told = open(a, { methods = { "upnp" }, location = "http://192.168.1.77:5000/gone.xml", timeout = 5 })
    assert.equal(ROUTER, told.location)
  end)

  test("is made anew when the router has forgotten it, and tells of what changed", function()
    local child <close> = assert(a:start { program.path, "-e", [[
      local p2pd = require "p2pd"
      local mapping <close> = assert(require "p2pd.portmap".open {
        internal_port = 7000, lifetime = 2, on_change = function(it)
          print("changed", it.external_ip, it.external_port, it.lost)
          io.stdout:flush()
        end })
      print "open"
      io.stdout:flush()
      p2pd.sleep(60)]] })
    local lines = child:lines()
    assert.equal("open", lines())
    assert(net:restart "portmap-r")
    assert.same({}, mappings(a))
    p2pd.sleep(2)
    assert.equal(1, #mappings(a))
    assert(net:set("r", { address = "30.2.1.77" }))
    local restored <close> = setmetatable({}, { __close = function() -- luacheck: ignore 211
      assert(net:set("r", { address = EXTERNAL }))
    end })
    assert.equal("changed\t30.2.1.77\t7000\tnil", lines())
  end)

  test("is undone when its task is cancelled while it is made", function()
    local it = assert(a:lua(([[
      local p2pd = require "p2pd"
      for turn = 1, 30 do
        local task = p2pd.spawn(function()
          local mapping <close> = assert(require "p2pd.portmap".open {
            internal_port = 7000 + turn, methods = { turn %% 2 == 0 and "upnp" or "nat-pmp" }, location = %q })
          p2pd.sleep(60)
        end)
        p2pd.sleep(turn * 0.001)
        task:cancel()
        task:wait()
      end]]):format(ROUTER)))
    assert.equal(0, it.status, it.err)
    assert.same({}, mappings(a))
  end)

  test("says when nobody outside sees the router's address, and what the caller's check finds", function()
    local told = open(a, { seen_ip = "30.9.9.9" })
    assert.is_false(told.verified)
    assert.equal("the router says 30.2.1.2, but others see 30.9.9.9: another router is in front of it", told.reason)
    local it = assert(a:lua [[
      local portmap = require "p2pd.portmap"
      for _, works in ipairs { "yes", "no" } do
        local mapping <close> = assert(portmap.open { internal_port = 7000, verify = function(ip, port)
          print(ip, port)
          if works == "yes" then return true end
          return nil, "nobody comes in"
        end })
        print(mapping.verified, mapping.reason)
      end
      print(pcall(portmap.open, { internal_port = 7000, verify = function() error("oops", 0) end }))]])
    assert.equal("30.2.1.2\t7000\ntrue\tnil\n30.2.1.2\t7000\nfalse\tnobody comes in\nfalse\toops\n", it.out, it.err)
    assert.same({}, mappings(a))
  end)

  test("works from stock Lua too", function()
    local it = assert(a:run {
      "lua5.4", "-e", ("package.cpath = package.cpath .. %q"):format(";" .. program.build .. "/?.so"), "-e", [[
        local p2pd = require "p2pd"
        p2pd.run(function()
          local mapping <close> = assert(require "p2pd.portmap".open { internal_port = 7000 })
          print(mapping)
        end)]],
    })
    assert.equal("mapping (tcp 30.2.1.2:7000 to 7000 by nat-pmp)\n", it.out, it.err)
  end)
end)

describe("port mapping without a good router", function()
  test("fails quickly, with one clear sentence", function()
    local net <close> = assert(lab.up { servers = false, routers = { r = "open" }, hosts = { a = "r" } })
    local told = open(assert(net:host "a"), {})
    assert.equal("ENOTSUP: the router 30.3.1.1 maps no port (NAT-PMP: no answer; UPnP: nobody answers)",
      told.message)
    assert.is_true(told.seconds < 2.5, told.seconds)
  end)

  test("says when another router is in front of the router", function()
    local net <close> = assert(lab.up {
      servers = false, routers = { r = { portmap = true, carrier = "port-restricted/equal" } }, hosts = { a = "r" },
    })
    local told = open(assert(net:host "a"), {})
    assert.equal("ENETDOWN", told.code)
    has(told.message, "the router has no public address: another one is in front of it, or it is offline")
    assert.is_true(told.seconds < 1, told.seconds)
  end)

  it("refuses wrong arguments", run(function()
    local portmap = require "p2pd.portmap"
    for message, options in pairs {
      ["unknown option 'port'"] = { port = 1 }, ["'internal_port' is missing"] = {},
      ["'internal_port' is not a port"] = { internal_port = 0 }, ["'gateway' is not an IP address"] = { gateway = "x" },
      ["'protocol' is not \"tcp\" or \"udp\""] = { internal_port = 1, protocol = "sctp" },
      ["'lifetime' is not a whole number of seconds, 604800 at most"] = { internal_port = 1, lifetime = 1.5 },
    } do
      assert.has_error(function() portmap.open(options) end, message)
    end
  end))
end)

describe("a gateway that", function()
  local net, a, bad
  local GATEWAY = "192.168.1.11"

  lazy_setup(function()
    if obstacle then return end
    p2pd.run(function()
      net = assert(lab.up { servers = false, routers = { r = "port-restricted/equal" }, hosts = { a = "r", b = "r" } })
      net:stay()
      a, bad = assert(net:host "a"), assert(net:host "b")
    end)
  end)

  lazy_teardown(function()
    if net then p2pd.run(function() net:down() end) end
  end)

  -- Opens a mapping there; gives what came of it, and what the gateway said that it did.
  local function ask(ways, options)
    local command = { "lua5.4", "spec/support/bad_igd.lua", GATEWAY }
    for word in ways:gmatch "%S+" do command[#command + 1] = word end
    local server <close> = assert(bad:start(command))
    local lines, done = server:lines(), {}
    assert.equal("ready", lines())
    options.gateway, options.lifetime = GATEWAY, 60
    local told = open(a, options)
    assert.is_true(told.peak_kb < 10240, told.peak_kb)
    server:finish_input()
    for line in lines do done[#done + 1] = line:gsub("\t", " ") end
    return told, table.concat(done, "; ")
  end

  local natpmp = {
    short = "EFORMAT", cut = "EFORMAT", long = "EFORMAT", operation = "EFORMAT", garbage = "EFORMAT", port = "EFORMAT",
    flood = "EFORMAT", version = "ENOTSUP", late = "no answer", elsewhere = "no answer", refuse = "EACCES",
    down = "ENETDOWN", full = "ENOBUFS",
  }
  for way, code in pairs(natpmp) do
    test("answers NAT-PMP so: " .. way, function()
      local told = ask("natpmp=" .. way, { methods = { "nat-pmp" } })
      assert.equal(code == "no answer" and "ENOTSUP" or code, told.code, told.message)
      has(told.message, code == "no answer" and "NAT-PMP: no answer" or "(NAT-PMP: ")
      assert.is_true(told.seconds < 2.3, told.seconds)
    end)
  end

  local too_long, too_slow = "EMSGSIZE: its description is too long", "ENOTSUP: it took too long"
  local unheard, undescribed = "ENOTSUP: nobody answers", "EIO: it does not give its description"
  local upnp = {
    ["upnp=garbage"] = "EFORMAT: what it describes is no gateway",
    ["upnp=huge"] = too_long, ["upnp=endless"] = too_long, ["upnp=headers"] = too_slow, ["upnp=slow"] = too_slow,
    ["upnp=nothing"] = too_slow, ["upnp=named"] = unheard, ["upnp=elsewhere"] = unheard, ["upnp=noise"] = unheard,
    ["upnp=abroad"] = "ENOTSUP: it describes no Internet connection of its own",
    ["upnp=closed"] = undescribed, ["upnp=missing"] = undescribed,
    ["igd=garbage"] = "EFORMAT: what it answers is not UPnP's", ["igd=slow"] = too_slow,
    ["igd=huge"] = "EIO: it does not answer", ["igd=busy"] = "EADDRINUSE: the ports are taken",
    ["igd=liar"] = "EADDRINUSE: the ports are taken", ["igd=refuse"] = "EACCES: it does not allow that",
  }
  for ways, expected in pairs(upnp) do
    test("does this: " .. ways, function()
      local told = ask(ways, { methods = { "upnp" } })
      local code, sentence = expected:match "^(%w+): (.*)$"
      assert.equal(code, told.code, told.message)
      has(told.message, sentence)
      has(told.message, code .. ": the router 192.168.1.11 maps no port (UPnP: ")
      assert.is_true(told.seconds < 3.5, told.seconds)
    end)
  end

  test("knows only mappings that last gets one, and loses it at the end", function()
    local told, done = ask("igd=permanent", { methods = { "upnp" } })
    assert.equal(0, told.lifetime)
    assert.equal("add 7000 0 p2pd-lua node tcp 7000; remove 7000", done)
  end)

  test("knows only equal ports gets these", function()
    local told, done = ask("igd=equal", { methods = { "upnp" }, external_port = 9000 })
    assert.equal(7000, told.external_port)
    assert.equal("add 7000 60 p2pd-lua node tcp 7000; remove 7000", done)
  end)

  for _, way in ipairs { "natpmp=private", "igd=private" } do
    test("has a private address itself is told from one that works: " .. way, function()
      local told = ask(way, {})
      assert.is_false(told.verified)
      assert.equal("the router's own address 10.0.0.7 is private: another router is in front of it", told.reason)
    end)
  end

  test("says no address, or 5000 digits, has none", function()
    local told = ask("igd=huge_ip", { methods = { "upnp" } })
    assert.is_nil(told.external_ip)
    assert.equal("the router does not say its external address", told.reason)
  end)

  test("speaks one protocol badly does not keep the other from working", function()
    assert.equal("upnp", ask("natpmp=refuse igd=fine", {}).method)
    assert.equal("upnp", ask("natpmp=flood igd=fine", {}).method)
    assert.equal("nat-pmp", ask("natpmp=private upnp=endless", {}).method)
  end)

  test("nests deeply, or has long fields, is read", function()
    assert.equal("bad deep", ask("upnp=deep", { methods = { "upnp" } }).router)
    assert.equal("bad long", ask("upnp=long", { methods = { "upnp" } }).router)
  end)
end)
