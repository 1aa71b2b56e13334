-- What a router refuses it is not, and what is said of a carrier reaches the carrier's router.
local lab = require "p2pd.lab"
local labs = require "spec.support.lab"
local requests = require "p2pd.lab.requests"
local run = require "spec.support.run"
local topology = require "p2pd.lab.topology"

local function has(text, part)
  assert(text:find(part, 1, true), ("'%s' is not in:\n%s"):format(part, text))
end

-- A keeper without a lab: `refuses(router)` says whether that router's program does.
local function keeper_of(options, refuses)
  local self = { plan = assert(topology.plan(options)), began = 0, events = {}, holders = {}, told = {}, asked = {} }
  for _, router in ipairs(self.plan.routers) do self.holders["router " .. router.name] = { pid = 1 } end
  function self.configure(_, router, given, wan)
    self.told[#self.told + 1] = { router.name, given or router.options, wan or router.wan }
    if given and refuses(router) then return nil, "EINVAL: no", "EINVAL" end
    return true
  end
  function self.ip() return true end
  function self.ask(_, _, question)
    self.asked[#self.asked + 1] = question
    return { events = {} }
  end
  return self
end

local function set(keeper, router, options)
  return requests.answer(keeper, { ["do"] = "set", router = router, options = options, id = 5 })
end

describe("a change that a router refuses", function()
  it("is none, neither of options nor of addresses", function()
    local keeper = keeper_of({ a = "symmetric/random" }, function() return true end)
    local answer = set(keeper, "a", { loss = 1, address = "30.2.1.77" })
    assert.same({ false, "EINVAL", 5 }, { answer.ok, answer.code, answer.id })
    local router = keeper.plan.router.a
    assert.same({ 0, "30.2.1.2" }, { router.options.loss, router.wan.address })
    assert.same({ "a", router.options, router.wan }, keeper.told[#keeper.told])
    assert.same({}, keeper.events)
  end)

  it("is none of the router before it either", function()
    local keeper = keeper_of({ a = { carrier = "symmetric/random" } }, function(router) return router.front == nil end)
    assert.is_false(set(keeper, "a", { loss = 1, ["carrier.loss"] = 1 }).ok)
    assert.same({ "a", keeper.plan.router.a.options, keeper.plan.router.a.wan }, keeper.told[3])
    assert.equal(0, keeper.plan.router.a.options.loss)
    assert.equal(0, keeper.plan.router["a-carrier"].options.loss)
  end)
end)

describe("a change to a carrier", function()
  it("is one to the router in front", function()
    local keeper = keeper_of({ a = { carrier = "symmetric/random" } }, function() return false end)
    assert.is_true(set(keeper, "a", { ["carrier.delay_ms"] = "300" }).ok)
    assert.is_true(set(keeper, "a", { carrier = { jitter_ms = 2 }, loss = 0.5 }).ok)
    assert.is_true(set(keeper, "a-carrier", { ["udp.filtering"] = "none" }).ok)
    local router, front = keeper.plan.router.a, keeper.plan.router["a-carrier"]
    assert.same({ 300, 2, 0, "none" }, {
      front.options.delay_ms, front.options.jitter_ms, front.options.loss, front.options.udp.filtering,
    })
    assert.same({ 0, 0.5, front.options }, { router.options.delay_ms, router.options.loss, router.options.carrier })
  end)

  it("is refused where there is none", function()
    local keeper = keeper_of({ a = "symmetric/random" }, function() return false end)
    has(set(keeper, "a", { ["carrier.delay_ms"] = 300 }).message, "router 'a' has no carrier")
    has(set(keeper, "a", { carrier = "symmetric/random" }).message, "router 'a' has no carrier")
    assert.same({}, keeper.told)
  end)
end)

describe("a timeline from some time on", function()
  it("asks for that alone", function()
    local keeper = keeper_of({ a = "symmetric/random" }, function() return false end)
    requests.answer(keeper, { ["do"] = "timeline" })
    requests.answer(keeper, { ["do"] = "timeline", since = 2 })
    assert.is_nil(keeper.asked[1].since)
    assert(keeper.asked[2].since > 1.9e9 and keeper.asked[2].since <= 2e9)
  end)
end)

describe("options that nobody knows", function()
  local function thrown_here(f, part)
    local ok, err = pcall(f)
    assert.is_false(ok)
    has(err, "21-lab-set_spec.lua:")
    has(err, part)
  end

  it("are an error of who gives them", function()
    thrown_here(function() return (lab.up { foo = 1 }) end, "unknown option 'foo'")
    thrown_here(function() return (lab.up { a = { foo = 1 } }) end, "a router has no option 'foo'")
    thrown_here(function() return (lab.up { routers = { r = { udp = { foo = 1 } } } }) end, "unknown field 'foo'")
    thrown_here(function() return (lab.up { a = { carrier = { foo = 1 } } }) end, "(router 'a')")
    thrown_here(function() return (lab.up { hosts = { x = { foo = 1 } } }) end, "host 'x' has an unknown option 'foo'")
    thrown_here(function() return (lab.up(7)) end, "are a table, not a number")
    for _, options in ipairs {
      { foo = 1 }, { ["udp.foo"] = 1 }, { ["carrier.tcp.foo"] = 1 }, { carrier = { foo = 1 } },
    } do
      thrown_here(function() return (lab.methods.set({}, "a", options)) end, "'foo'")
    end
    thrown_here(function() return (lab.methods.set({}, "a", { "loss" })) end, "no option '1'")
  end)

  it("differ from values that make no sense", function()
    for _, options in ipairs { { a = 7 }, { a = { loss = 2 } }, { name = 5 }, { hosts = { x = 5 } } } do
      assert.equal("EINVAL", select(3, lab.up(options)))
    end
  end)
end)

describe("a lab", function()
  local obstacle = labs.obstacle(labs.users()[1])
  local function test(name, f)
    it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or run(f))
  end

  test("knows its name, and is set all at once or not at all", function()
    local net <close> = assert(lab.up {
      a = { nat = "symmetric/random", carrier = "symmetric/random" }, servers = false,
    })
    assert.equal(net.name, assert(net:status()).name)
    assert(net:set("a", { address = "100.64.1.9", ["carrier.delay_ms"] = 40 }))
    local ok, message, code = net:set("a", { loss = 1, nat = "symmetric/preserving@5000-5000" })
    assert.same({ nil, "EINVAL" }, { ok, code })
    has(message, "more than the one port")
    local routers = assert(net:status()).routers
    local carrier, a = routers[1], routers[2]
    assert.same({ "a-carrier", 40, "a", 0, "100.64.1.9" },
      { carrier.name, carrier.options.delay_ms, a.name, a.options.loss, a.external[1] })
    local ping = assert(assert(net:host "a"):run { "ping", "-c1", "-W2", "30.1.0.1" })
    assert(tonumber(ping.out:match "time=([%d.]+)") >= 80, ping.out)
    has(assert(net:timeline()), "a-carrier set delay_ms=40\n")
    -- With another seed a router begins anew, as what it is.
    assert(net:set("a", { seed = 7 }))
    assert.equal(0, assert(net:stats "a").mappings)
    assert.equal(0, assert(assert(net:host "a"):run { "ping", "-c1", "-W2", "30.1.0.1" }).status)
  end)
end)
