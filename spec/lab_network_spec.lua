-- check: alone
-- check: timeout 180
-- What a node learns of its network, how soon, and what it does when that changes: in a lab.
local lab = require "p2pd.lab"
local labs = require "spec.support.lab"
local run = require "spec.support.run"

local SANITIZED = os.getenv "P2PD_SANITIZED" ~= nil
local obstacle = labs.obstacle(labs.users()[1])

local function test(name, f)
  it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or run(f))
end

-- Starts a node on the host, prints how long that took, its address, and each address after it; ends after so long.
local NODE = [[
  local luv = require "luv"
  local p2pd = require "p2pd"
  local seconds = tonumber((...))
  local function say(...) print(...) io.stdout:flush() end
  local began = luv.hrtime()
  local node <close> = assert(p2pd.node { on_address = function(address) say("address", address) end })
  say("ready", (luv.hrtime() - began) / 1e6)
  say("address", node:address())
  p2pd.sleep(seconds)
]]

local function node_on(host, seconds)
  local result = assert(host:lua(NODE, { tostring(seconds), timeout = seconds + 20 }))
  assert.equal(0, result.status, result.err)
  local ready, addresses = tonumber(result.out:match "ready%s+(%S+)"), {}
  for address in result.out:gmatch "address%s+(%S+)" do addresses[#addresses + 1] = address end
  return ready, addresses, result.err
end

-- The first interface of an address: external, internal, port, NAT type, delta, value.
local function first_ipv4(address)
  local external, internal, nat, delta = address:match "%[%d+,%d+,([%d.]+),([%d.]+),%d+,(%d),(%d),%d+%]"
  return { external = external, internal = internal, nat = nat, delta = delta }
end

describe("a node in a lab", function()
  test("knows its address at once, its router's kind soon, and the next time both at once", function()
    local net <close> = assert(lab.up {
      routers = {
        a = { nat = "symmetric/random", delay_ms = 10 }, b = { nat = "port-restricted/equal", delay_ms = 10 },
        c = { nat = "symmetric/independent:3", delay_ms = 10 }, d = { nat = "open", delay_ms = 10 },
      },
    })
    net:guard(function()
      local expected = { a = { "6", "6" }, b = { "5", "2" }, c = { "6", "4" }, d = { "1", "1" } }
      for name, words in pairs(expected) do
        local host = assert(net:host(name))
        local ready, addresses = node_on(host, 3)
        local first, last = first_ipv4(addresses[1]), first_ipv4(addresses[#addresses])
        local status = assert(net:status())
        local external = name == "d" and "30.3.4.10" or status.routers[({ a = 1, b = 2, c = 3 })[name]].external[1]
        assert.equal(external, first.external)
        assert.same({ words[1], words[2] }, { last.nat, last.delta }, addresses[#addresses])
        local again, cached = node_on(host, 0)
        assert.same(last, first_ipv4(cached[1]))
        print(("# %s: ready in %.1f ms, by the cache in %.1f ms (round trip 20 ms)"):format(name, ready, again))
        if not SANITIZED then
          assert.is_true(ready < 2 * (4 * 20 + 50), ready)
          assert.is_true(again < 2 * (3 * 20 + 30), again)
        end
      end
    end)
  end)

  test("loses no time by dead servers, and says so when no broker is there", function()
    local net <close> = assert(lab.up { a = { nat = "port-restricted/equal", delay_ms = 10 } })
    net:guard(function()
      local host = assert(net:host "a")
      local settings = [[
        local settings = { stun = {
          { host = "30.1.0.200", port = 3478 }, { host = "30.1.0.3", port = 3478 }, { host = "30.1.0.201", port = 1 },
        }, mqtt = { { host = "30.1.0.202", port = 1883 }, { host = "30.1.0.1", port = 1883 } }, turn = {}, ntp = {} }
      ]]
      local source = settings .. NODE:gsub("p2pd.node {", "p2pd.node { settings = settings, key = 'k.pem',")
      local result = assert(host:lua(source, { "0", timeout = 20, cwd = host.folder }))
      assert.equal(0, result.status, result.err)
      local ready = tonumber(result.out:match "ready%s+(%S+)")
      assert.equal("30.2.1.2", first_ipv4(result.out:match "address%s+(%S+)").external)
      assert.is_true(SANITIZED or ready < 300, ready)
    end)
  end)

  test("takes a port of a router that gives one, and gives it back", function()
    local net <close> = assert(lab.up {
      a = { nat = "open", delay_ms = 10 }, b = { nat = "port-restricted/equal", delay_ms = 10, portmap = true },
    })
    net:guard(function()
      local a, b = assert(net:host "a"), assert(net:host "b")
      local listener <close> = assert(b:start { net.program, "listen", "--echo" })
      local address
      for line in listener:lines() do
        address = line:match "^address (%S+)"
        if address and first_ipv4(address).nat == "3" then break end
      end
      local connect = assert(a:run {
        net.program, "connect", address, "--strategies", "direct", input = "hi\n", timeout = 20,
      })
      assert.equal(0, connect.status, connect.err)
      assert.equal("hi\n", connect.out)
    end)
  end)

  test("hears of a new address, and can be reached by it", function()
    local net <close> = assert(lab.up {
      routers = { a = { nat = "open" }, b = { nat = "open" } },
    })
    net:guard(function()
      local a, b = assert(net:host "a"), assert(net:host "b")
      local listener <close> = assert(b:start { net.program, "listen", "--echo" })
      local next_line = listener:lines()
      local before, after
      repeat before = assert(next_line()):match "^address (%S+)" until before
      for _, words in ipairs {
        { "ip", "addr", "del", "30.3.2.10/24", "dev", "eth0" }, { "ip", "addr", "add", "30.3.2.77/24", "dev", "eth0" },
        { "ip", "route", "replace", "default", "via", "30.3.2.1" },
      } do
        words.root = true
        local done = assert(b:run(words))
        assert.equal(0, done.status, done.err)
      end
      repeat
        local address = assert(next_line()):match "^address (%S+)"
        after = address and address:find("30.3.2.77", 1, true) and not address:find("30.3.2.10,", 1, true) and address
      until after
      assert.not_equal(before, after)
      for _, strategy in ipairs { "direct", "reverse" } do
        local connect = assert(a:run {
          net.program, "connect", after, "--strategies", strategy, input = "hi\n", timeout = 20,
        })
        assert.equal(0, connect.status, strategy .. ": " .. connect.err)
        assert.equal("hi\n", connect.out)
      end
    end)
  end)

  test("corrects its clock, so that a wrong one costs nothing", function()
    local net <close> = assert(lab.up {
      routers = { a = "open", b = "open" }, hosts = { a = { router = "a", clock_error = 3600 }, b = "b" },
    })
    net:guard(function()
      local a, b = assert(net:host "a"), assert(net:host "b")
      local listener <close> = assert(b:start { net.program, "listen", "--echo" })
      local address
      for line in listener:lines() do
        address = line:match "^address (%S+)"
        if address then break end
      end
      local result = assert(a:lua([[
        local p2pd = require "p2pd"
        local node <close> = assert(p2pd.node())
        p2pd.sleep(1)
        local began = p2pd.now()
        local pipe <close> = assert(node:connect((...), { strategies = { "reverse" } }))
        print("counters", node:signal_state().counters.stale)
      ]], { address, timeout = 20 }))
      assert.equal(0, result.status, result.err)
      assert.equal("counters\t0\n", result.out)
    end)
  end)
end)
