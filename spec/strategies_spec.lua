local context = require "p2pd.context"
local pipeline = require "p2pd.pipeline"
local report = require "p2pd.report"
local run = require "spec.support.run"
local task = require "p2pd.task"
local world = require "spec.support.world"

local ON_LINK = { { ip = "192.168.1.7", prefix = 24, interface = "eth0" } }
local FAR = { { ip = "10.0.0.7", prefix = 24, interface = "eth0" } }

local function entries(...)
  local result = {}
  for i, ip in ipairs { ... } do
    result[i] = world.address { external = ip, internal = ip, nat = "open" }.ipv4[1]
    result[i].if_index = i - 1
  end
  return result
end

local function attempt(options)
  local own_report = report.new()
  return context.new {
    peer = options.peer or world.address { machine_id = "theirs", nat = "full-cone" },
    own = options.own or world.address {
      port = 5000, external = "9.9.9.9", internal = "192.168.1.7", nat = options.own_nat or "full-cone",
    },
    role = options.role or "connect", means = options.world.means, report = own_report, deadline = options.deadline,
  }, own_report
end

local function connect(name, options)
  local strategy = type(name) == "string" and assert(pipeline.load(name)) or name
  local ctx, own_report = attempt(options)
  local started = task.now()
  local pipe, message, code = pipeline.run(strategy, ctx)
  local rungs = {}
  for _, rung in ipairs(own_report:table().rungs) do rungs[rung.name] = rung end
  return {
    pipe = pipe, message = message, code = code, took = task.now() - started, report = own_report, rungs = rungs,
  }
end

describe("direct", function()
  it("tries the best of each scope at once, and keeps the first that answers", run.virtual(function()
    local here = world.new { prefixes = ON_LINK, hosts = {
      ["192.168.1.5:4000"] = { after = 0.02 }, ["8.8.8.8:4000"] = { after = 0.01 },
    } }
    local result = connect("direct", { world = here })
    assert.equal("8.8.8.8:4000", result.pipe.remote)
    assert.near(0.01, result.took, 1e-6)
    assert.same({ 0, 0 }, { here.dialed[1].at - here.dialed[2].at, here.dialed[1].token or 0 })
    assert.equal("client", here.dialed[1].role)
    assert.equal(1, here:open_count())
  end))

  it("tries the next of a scope 250 ms later, or as soon as the former has failed", run.virtual(function()
    local here = world.new { prefixes = FAR, hosts = {
      ["8.8.8.1:4000"] = { after = 3 }, ["8.8.8.2:4000"] = { after = 0.1, code = "ECONNREFUSED" },
      ["8.8.8.3:4000"] = { after = 0.04 },
    } }
    local peer = world.address { machine_id = "theirs", ipv4 = entries("8.8.8.1", "8.8.8.2", "8.8.8.3") }
    local result = connect("direct", { world = here, peer = peer })
    local first = here.dialed[1].at
    assert.near(0.25, here.dialed[2].at - first, 1e-6)
    assert.near(0.35, here.dialed[3].at - first, 1e-6)
    assert.equal("8.8.8.3:4000", result.pipe.remote)
    assert.near(0.39, result.took, 1e-6)
    local dials = result.rungs.direct.dials
    assert.same({
      to = "8.8.8.2:4000", scope = "external", started_ms = 250, ms = 100, ok = false, code = "ECONNREFUSED",
    }, dials[2])
    assert.equal("ECANCELED", dials[1].code)
    assert.equal(1, here:open_count())
  end))

  it("fails as soon as all have, saying why", run.virtual(function()
    local here = world.new { prefixes = ON_LINK, hosts = {
      ["192.168.1.5:4000"] = { after = 0.02, code = "ECONNREFUSED" },
      ["8.8.8.8:4000"] = { after = 0.01, code = "EPEER" },
    } }
    local result = connect("direct", { world = here })
    assert.near(0.02, result.took, 1e-6)
    assert.equal("EUNREACHABLE", result.code)
    assert.truthy(result.message:find("8.8.8.8:4000 refuses; 192.168.1.5:4000 refuses", 1, true))
    here.hosts["192.168.1.5:4000"].code = "EPEER"
    assert.equal("EPEER", connect("direct", { world = here }).code)
    assert.equal(0, here:open_count())
  end))

  it("gives up after its time", run.virtual(function()
    local result = connect("direct", { world = world.new { prefixes = FAR } })
    assert.equal("ETIMEDOUT", result.code)
    assert.near(5, result.took, 1e-6)
  end))

  it("does not apply without an address to try", run.virtual(function()
    local peer = world.address { machine_id = "theirs", external = "192.168.1.5" }
    local result = connect("direct", { world = world.new { prefixes = FAR }, peer = peer })
    assert.equal("192.168.1.5: it is a private address of another network", result.rungs.direct.skipped)
  end))

  it("does not apply where the peer's router lets nobody in, unless it is in our own network", run.virtual(function()
    local here = world.new { prefixes = FAR }
    for _, nat in ipairs { "restricted", "port-restricted", "symmetric", "blocked" } do
      local peer = world.address { machine_id = "theirs", nat = nat }
      local result = connect("direct", { world = here, peer = peer })
      assert.equal("the peer's router lets nobody in uninvited", result.rungs.direct.skipped)
    end
    local firewalled = world.address { machine_id = "theirs", nat = "udp-firewall", internal = "8.8.8.8" }
    assert.truthy(connect("direct", { world = here, peer = firewalled }).rungs.direct.skipped)
    assert.same({}, here.dialed)
    local near = world.new { prefixes = ON_LINK, hosts = { ["192.168.1.5:4000"] = { after = 0.01 } } }
    local peer = world.address { machine_id = "theirs", external = "9.9.9.9", nat = "symmetric" }
    assert.equal("192.168.1.5:4000", connect("direct", { world = near, peer = peer }).pipe.remote)
  end))
end)

describe("reverse, where it connects,", function()
  it("tells a token and waits for who shows it", run.virtual(function()
    local here
    here = world.new { prefixes = FAR, on_request = function(fields, inner)
      assert.equal("reverse", fields.kind)
      assert.truthy(fields.token:find("^" .. ("%x"):rep(32) .. "$"))
      for expected in pairs(inner.arrivals) do
        assert.equal(fields.token, (expected.token:gsub(".", function(c) return ("%02x"):format(c:byte()) end)))
      end
      task.sleep(0.08)
      inner:arrive("8.8.8.8:777")
      task.sleep(100)
    end }
    local result = connect("reverse", { world = here })
    assert.equal("8.8.8.8:777", result.pipe.remote)
    assert.near(0.08, result.took, 1e-6)
    assert.equal(1, here:open_count())
    assert.equal(1, #here.requests)
    assert.is_nil(result.report:text():find(here.requests[1].token, 1, true))
  end))

  it("uses another token each time", run.virtual(function()
    local here = world.new { prefixes = FAR, on_request = function() return { kind = "refused" } end }
    connect("reverse", { world = here })
    connect("reverse", { world = here })
    assert.not_equal(here.requests[1].token, here.requests[2].token)
  end))

  it("fails at once when it is refused", run.virtual(function()
    local reply = { kind = "refused", code = "ECONNREFUSED", message = "cannot\27[31m dial" }
    local here = world.new { prefixes = FAR, on_request = function() task.sleep(0.1) return reply end }
    local result = connect("reverse", { world = here })
    assert.near(0.1, result.took, 1e-6)
    assert.equal("ECONNREFUSED", result.code)
    assert.equal("ECONNREFUSED: the peer cannot connect to this node: cannot [31m dial", result.rungs.reverse.message)
    reply.code, reply.message = {}, 3
    assert.equal("EUNREACHABLE", connect("reverse", { world = here }).code)
    assert.equal(0, here:open_count())
  end))

  it("fails at once when it cannot ask", run.virtual(function()
    local here = world.new { on_request = function() return nil, "ENOTCONN: no broker can be reached", "ENOTCONN" end }
    local result = connect("reverse", { world = here })
    assert.near(0, result.took, 1e-6)
    assert.equal("ENOTCONN", result.code)
  end))

  it("gives up after its time", run.virtual(function()
    local here = world.new()
    local result = connect("reverse", { world = here })
    assert.equal("ETIMEDOUT", result.code)
    assert.near(8, result.took, 1e-6)
    assert.equal(0, here:open_count())
  end))

  it("does not apply without a broker, or an address of its own", run.virtual(function()
    local none = world.address { signal = {}, machine_id = "theirs" }
    assert.equal("the peer's address names no broker",
      connect("reverse", { world = world.new(), peer = none }).rungs.reverse.skipped)
    local bare = world.address { ipv4 = {} }
    assert.equal("this node has no address that could be connected to",
      connect("reverse", { world = world.new(), own = bare }).rungs.reverse.skipped)
  end))

  it("does not apply where our own router lets nobody in", run.virtual(function()
    local here = world.new { prefixes = FAR }
    assert.equal("this node's router lets nobody in uninvited",
      connect("reverse", { world = here, own_nat = "port-restricted" }).rungs.reverse.skipped)
    assert.same({}, here.requests)
  end))
end)

describe("reverse, where it is asked,", function()
  local token = ("c0ffee00"):rep(4)

  local function respond(here, message, peer)
    local ctx = attempt { world = here, role = "respond", peer = peer }
    return pipeline.respond(assert(pipeline.load("reverse")), ctx, message)
  end

  it("dials the sender's addresses as server, with the token", run.virtual(function()
    local here = world.new { prefixes = FAR, hosts = { ["8.8.8.8:4000"] = { after = 0.04 } } }
    local pipe = respond(here, { kind = "reverse", token = token })
    assert.equal("8.8.8.8:4000", pipe.remote)
    assert.equal(1, #here.dialed)
    assert.same({ "server", ("\xc0\xff\xee\0"):rep(4) }, { here.dialed[1].role, here.dialed[1].token })
    assert.equal(0, #here.replies)
  end))

  it("tells the sender at once when it cannot", run.virtual(function()
    local here = world.new { prefixes = FAR, hosts = { ["8.8.8.8:4000"] = { after = 0.04, code = "ECONNREFUSED" } } }
    local message = { kind = "reverse", token = token }
    local started = task.now()
    assert.is_nil(respond(here, message))
    assert.equal(message, here.replies[1].to)
    assert.near(0.04, here.replies[1].at - started, 1e-6)
    assert.same({ "refused", "ECONNREFUSED" }, { here.replies[1].fields.kind, here.replies[1].fields.code })
    assert.equal(0, here:open_count())
  end))

  it("dials nothing that a stranger may not choose", run.virtual(function()
    local here = world.new { prefixes = FAR }
    for _, ip in ipairs { "127.0.0.1", "192.168.1.5", "224.0.0.1", "255.255.255.255", "0.0.0.0", "169.254.1.1",
      "10.0.0.255" } do
      -- The machine ID is in our own address: anybody can claim to be here.
      local peer = world.address { external = ip, internal = ip }
      assert.is_nil(respond(here, { kind = "reverse", token = token }, peer))
    end
    assert.same({}, here.dialed)
    assert.equal(7, #here.replies)
  end))

  it("wants a token", run.virtual(function()
    local here = world.new { prefixes = FAR }
    for _, bad in ipairs { false, 3, "", token .. "0", token:sub(2), "g" .. token:sub(2), {} } do
      local _, _, code = respond(here, { kind = "reverse", token = bad or nil })
      assert.equal("EINVAL", code)
    end
    assert.same({}, here.dialed)
  end))
end)

describe("the default pipeline", function()
  local function dialing_back(after)
    return function(_, inner)
      task.sleep(after)
      inner:arrive("8.8.8.8:777")
      task.sleep(100)
    end
  end

  it("asks at once when the peer is behind a router", run.virtual(function()
    local here = world.new { prefixes = FAR, on_request = dialing_back(0.1) }
    local result = connect(pipeline.default(), { world = here })
    assert.near(0.1, result.took, 1e-6)
    assert.same({ "reverse", 0, "ECANCELED: reverse connected first" },
      { result.report.winner, result.rungs.reverse.started_ms, result.rungs.direct.message })
    assert.equal("reverse connected first", result.rungs.relay.skipped)
  end))

  it("comes to the relay at once when nothing else applies", run.virtual(function()
    local here = world.new { prefixes = FAR, on_request = function() return { kind = "refused", code = "ENOTSUP" } end }
    local peer = world.address { machine_id = "theirs", nat = "blocked" }
    local result = connect(pipeline.default(), { world = here, peer = peer, own_nat = "symmetric" })
    assert.equal(0, result.rungs.relay.started_ms)
    assert.truthy(result.rungs.punch.skipped)
    assert.equal(1, #here.requests) -- whether the peer has a relay
  end))

  it("asks after a while when it looks reachable", run.virtual(function()
    local here = world.new { prefixes = FAR, on_request = dialing_back(0.1) }
    local peer = world.address { machine_id = "theirs", nat = "open", internal = "8.8.8.8" }
    local result = connect(pipeline.default(), { world = here, peer = peer })
    assert.near(0.35, result.took, 1e-6)
    assert.equal(250, result.rungs.reverse.started_ms)
  end))

  it("asks as soon as direct has failed", run.virtual(function()
    local here = world.new {
      prefixes = FAR, on_request = dialing_back(0.1),
      hosts = { ["8.8.8.8:4000"] = { after = 0.04, code = "ECONNREFUSED" } },
    }
    local peer = world.address { machine_id = "theirs", nat = "open", internal = "8.8.8.8" }
    local result = connect(pipeline.default(), { world = here, peer = peer })
    assert.equal(40, result.rungs.reverse.started_ms)
    assert.near(0.14, result.took, 1e-6)
  end))

  it("does not ask when direct is quick", run.virtual(function()
    local here = world.new { prefixes = ON_LINK, hosts = { ["192.168.1.5:4000"] = { after = 0.01 } } }
    local own = world.address { port = 5000, internal = "192.168.1.7" }
    local result = connect(pipeline.default(), { world = here, own = own })
    assert.equal("direct connected first", result.rungs.reverse.skipped)
    assert.equal(0, #here.requests)
    assert.equal(1, here:open_count())
  end))
end)
