-- topology and plumbing: from options to addresses, cables and what `ip` is told; nothing is made.
local plumbing = require "p2pd.lab.plumbing"
local texts = require "spec.support.texts"
local timeline = require "p2pd.lab.timeline"
local topology = require "p2pd.lab.topology"

local has, has_not = texts.has, texts.has_not

local function plan(options) return assert(topology.plan(options)) end

local function refusal(options)
  local made, message, code = topology.plan(options)
  assert.is_nil(made)
  assert.are.equal("EINVAL", code)
  return message
end

local function addresses(host)
  local list = {}
  for _, link in ipairs(host.links) do list[#list + 1] = ("%s %s"):format(link.device, link.address) end
  return table.concat(list, ", ")
end

-- Each cable as "router a wan0 - internet r1".
local function cables(made)
  local list = {}
  for i, link in ipairs(made.links) do
    local ends = {}
    for side = 1, 2 do
      local at = link[side]
      ends[side] = ("%s %s"):format(at.kind and at.kind .. " " .. at.name or "internet", at.device)
    end
    list[i] = table.concat(ends, " - ")
  end
  return list
end

describe("the plan of a lab", function()
  it("is a and b behind routers of their own, unless it is said otherwise", function()
    local made = plan {}
    assert.are.equal("lab", made.name)
    assert.are.equal("eth0 192.168.1.10", addresses(made.host.a))
    assert.are.equal("eth0 192.168.2.10", addresses(made.host.b))
    assert.are.equal("30.2.1.2", made.router.a.wan.address)
    assert.are.equal("30.2.1.1", made.router.a.wan.gateway)
    assert.are.equal("2c0f:30:3:1::10", made.host.a.links[1].address6)
    assert.are.same({
      "internet r1 - router a wan0", "internet r2 - router b wan0", "router a lan0 - host a eth0",
      "router b lan0 - host b eth0",
    }, cables(made))
  end)

  it("takes texts and tables, in `routers` or as a and b", function()
    local made = plan { a = "symmetric/random", routers = { c = { nat = "open", delay_ms = 10 } } }
    assert.are.equal("symmetric/random", made.router.a.options.nat)
    assert.are.equal(10, made.router.c.options.delay_ms)
    assert.is_nil(made.router.b)
    assert.are.equal("a c", made.hosts[1].name .. " " .. made.hosts[2].name)
  end)

  it("gives public addresses where nothing is translated", function()
    local made = plan { a = "open", b = "udp-firewall" }
    assert.are.equal("eth0 30.3.1.10", addresses(made.host.a))
    assert.are.equal("eth0 30.3.2.10", addresses(made.host.b))
    has(plumbing.links(made, {}), "route add 30.3.1.0/24 via 30.2.1.2 dev r1")
    has_not(plumbing.links(plan {}, {}), "192.168.")
  end)

  it("joins several hosts behind one router by a bridge", function()
    local made = plan { routers = { r = "full-cone/equal" }, hosts = { x = "r", y = { "r" }, z = { router = "r" } } }
    assert.are.equal("eth0 192.168.1.10", addresses(made.host.x))
    assert.are.equal("eth0 192.168.1.12", addresses(made.host.z))
    assert.are.same({
      "internet r1 - router r wan0", "router r lan1 - host x eth0", "router r lan2 - host y eth0",
      "router r lan3 - host z eth0",
    }, cables(made))
    local _, files = plumbing.router(made, made.router.r)
    has(files.devices, "link add lan0 type bridge\nlink set lan1 master lan0\n")
  end)

  it("gives a host several uplinks, each with routes of its own", function()
    local made = plan { a = "open", b = "symmetric/random", hosts = { m = { "a", "b" } } }
    assert.are.equal("eth0 30.3.1.10, eth1 192.168.2.10", addresses(made.host.m))
    local _, files = plumbing.host(made.host.m, {})
    has(files.devices, "rule add from 192.168.2.10 lookup 202")
    has(files.devices, "route add default via 192.168.2.1 dev eth1 table 202")
    has(files.rules6, "rule add from 2c0f:30:3:2::10 lookup 202")
    _, files = plumbing.host(plan({}).host.a, {})
    has_not(files.devices, "rule")
  end)

  it("puts a carrier's router in front, with shared address space between (RFC 6598)", function()
    local made = plan { a = { nat = "symmetric/random", carrier = "port-restricted/equal" } }
    local inner, front = made.router.a, made.router["a-carrier"]
    assert.are.equal("100.64.1.2", inner.wan.address)
    assert.are.equal("100.64.1.1", inner.wan.gateway)
    assert.are.equal("30.2.101.2", front.wan.address)
    assert.are.same({ "100.64.1.0/24", "2c0f:30:3:101::/64", "2c0f:30:3:1::/64" }, topology.inside(made, front))
    assert.are.same({ "192.168.1.0/24", "2c0f:30:3:1::/64" }, topology.inside(made, inner))
    assert.are.same({
      "internet r101 - router a-carrier wan0", "router a-carrier lan0 - router a wan0", "router a lan0 - host a eth0",
    }, cables(made))
    has(plumbing.links(made, {}), "route add 2c0f:30:3:1::/64 via 2c0f:30:2:101::2 dev r101")
    local _, files = plumbing.router(made, front)
    has(files.devices, "route add 2c0f:30:3:1::/64 via 2c0f:30:3:101::2 dev lan0")
  end)

  it("puts a host into the internet", function()
    local made = plan { hosts = { x = "internet" } }
    assert.are.equal("eth0 30.4.1.2", addresses(made.host.x))
    assert.are.same({ "internet h1 - host x eth0" }, cables(made))
  end)

  it("gives a router as many external addresses as it has, and other ones while it runs", function()
    local made = plan { a = { nat = "symmetric/random", addresses = 3 } }
    local router = made.router.a
    assert.are.same({ "30.2.1.2", "30.2.1.3", "30.2.1.4" }, router.wan.external)
    local wan = assert(topology.readdressed(router, "30.2.1.77"))
    assert.are.same({ "30.2.1.77", "30.2.1.78", "30.2.1.79" }, wan.external)
    assert.are.same({ "30.2.1.77", "30.2.1.1" }, { wan.address, wan.gateway })
    assert.are.same({ "30.2.1.2", "30.2.1.3", "30.2.1.4" }, router.wan.external) -- as it was
    has(plumbing.readdress(router.wan, wan), "addr del 30.2.1.2/24 dev wan0\naddr add 30.2.1.77/24 dev wan0\n")
    for _, wrong in ipairs { "30.2.2.5", "30.2.1.1", "30.2.1.253", "x", "30.2.1" } do
      local ok, message = topology.readdressed(router, wrong)
      assert.is_nil(ok)
      has(message, "from 30.2.1.2 to 30.2.1.254")
    end
  end)

  it("leaves IPv6 out behind a router that has none", function()
    local made = plan { a = { nat = "symmetric/random", ipv6 = "none" } }
    assert.is_nil(made.host.a.links[1].address6)
    has_not(plumbing.links(made, {}), "2c0f:30:3:")
    assert.is_nil(plan({ a = "blocked" }).host.a.links[1].address6)
    assert.are.equal("2c0f:30:3:1::10", plan({ a = { nat = "blocked", ipv6 = "firewall" } }).host.a.links[1].address6)
  end)

  it("numbers the devices so that no two have one number", function()
    local made, seen = plan { hosts = { x = "internet", y = "internet" } }, {}
    for _, link in ipairs(made.links) do
      for side = 1, 2 do
        assert.is_nil(seen[link[side].index])
        seen[link[side].index] = true
      end
    end
    has(plumbing.links(made, { ["host x"] = 17 }),
      "link add name h1 index 101 type veth peer name eth0 netns 17 index 102")
  end)

  it("says what is wrong with options", function()
    has(refusal { q = 1 }, "unknown option 'q'")
    has(refusal { routers = "x" }, "option 'routers' is a table, not a string")
    has(refusal { a = "foo/equal" }, "unknown type 'foo'")
    has(refusal { a = "foo/equal" }, "(router 'a')")
    has(refusal { a = 7 }, "router 'a' is a NAT's text or a table, not a number")
    has(refusal { a = "open", routers = { a = "open" } }, "router 'a' is given twice")
    has(refusal { routers = { ["A b"] = "open" } }, "'A b' cannot be a router's name")
    has(refusal { name = "../x" }, "'../x' cannot be a lab's name")
    has(refusal { a = "open", hosts = { x = "c" } }, "behind 'c', which is no router of this lab")
    has(refusal { a = "open", hosts = { x = {} } }, "host 'x' is behind no router")
    has(refusal { a = "open", hosts = { x = { router = "a", y = 1 } } }, "unknown option 'y'")
    has(refusal { a = { carrier = "open" } }, "a carrier's router translates")
    has(refusal { a = { foo = 1 } }, "a router has no option 'foo'")
    has(refusal { a = "open", hosts = { x = { router = "a", clock_error = "1" } } }, "'clock_error' is a number")
  end)
end)

describe("the files of a host", function()
  it("are mounted where they belong, whatever their path", function()
    local _, files = plumbing.host(plan({}).host.a, { { "/tmp/a b/hosts", "/etc/hosts" } })
    assert.are.equal("/tmp/a\\040b/hosts /etc/hosts none bind 0 0\n", files.mounts)
  end)
end)

describe("the timeline", function()
  it("has a line for each event, that says what became of the packet", function()
    assert.are.equal([[
  0.001000 a   out udp  192.168.1.10:5 > 30.1.0.3:3478                 as 30.2.1.2:9: a new mapping
  0.002000 b   in  tcp  30.2.1.2:7 > 30.2.2.2:8 S                      dropped: nothing went out to there
  0.003000 b   out udp  192.168.2.10:1 > 30.1.0.1:2                    as 30.2.2.2:1: mapped, the link is cut
  0.004000 a   set loss=0.5
  0.005000 lab restart broker1
]], timeline.render {
      {
        at = 0.001, router = "a", direction = "out", protocol = "udp", source = "192.168.1.10:5",
        destination = "30.1.0.3:3478", new_source = "30.2.1.2:9", verdict = "pass", reason = "mapped-new",
      },
      {
        at = 0.002, router = "b", direction = "in", protocol = "tcp", source = "30.2.1.2:7", flags = "S",
        destination = "30.2.2.2:8", verdict = "drop", reason = "filtered",
      },
      {
        at = 0.003, router = "b", direction = "out", protocol = "udp", source = "192.168.2.10:1",
        destination = "30.1.0.1:2", new_source = "30.2.2.2:1", verdict = "pass", reason = "mapped", fate = "down",
      },
      { at = 0.004, router = "a", text = "set loss=0.5" },
      { at = 0.005, text = "restart broker1" },
    })
  end)

  it("knows the words that the router has for reasons and fates", function()
    local file = assert(io.open "bindings/router.c")
    local source = file:read "a"
    file:close()
    for _, list in ipairs { "reasons", "fates" } do
      local body = assert(source:match("const " .. list .. "%[[%u_]+%] = (%b{})"))
      for word in body:gmatch '= "([%l-]+)"' do
        local text = timeline.render {
          { at = 0, router = "a", direction = "out", protocol = "udp", verdict = "drop", [list:sub(1, -2)] = word },
        }
        assert(word == "queued" or word == "mapped" or not text:find(": " .. word .. "\n", 1, true), text)
      end
    end
  end)
end)
