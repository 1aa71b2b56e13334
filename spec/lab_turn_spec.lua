-- Relays at the lab's TURN server, through routers that let nothing else pass.
-- check: unsanitized
require "p2pd"
local lab = require "p2pd.lab"
local run = require "spec.support.run"

-- Run on a host that has a relay, with the address that may come: says where it is, then who came and what was seen.
-- The first line also tells how long it took, in ms.
local HAVE = [[
local p2pd, turn = require "p2pd", require "p2pd.turn"
local ip, permit, family = ...
local began = p2pd.now()
local relay <close> = assert(turn.allocate {
  server = { host = ip, port = 3478, user = "lab", password = "lab" }, permit = { permit }, family = tonumber(family),
})
print(relay.ip, relay.port, relay.external_ip, math.floor((p2pd.now() - began) * 1e3))
io.stdout:flush()
local socket <close>, from = assert(relay:wait(10))
print(from, math.floor(p2pd.now() * 1e3))
io.stdout:flush()
print(select(3, relay:wait(10)))
]]

-- Run on a host that goes to a relay.
local COME = [[
local p2pd, luv = require "p2pd", require "luv"
local ip, port = ...
local stream, outcome = luv.new_tcp(), p2pd.channel(1)
print(math.floor(p2pd.now() * 1e3))
assert(stream:connect(ip, tonumber(port), function(failure) outcome:send { failure } end))
print(outcome:recv(5)[1] or "open")
stream:read_start(function() outcome:send {} end)
outcome:recv(10)
]]

-- A Lua program on this host, with its first line.
local function start(host, source, ...)
  local child = assert(host:start { host.lab.program, "-", ... })
  child:write(source)
  child:finish_input()
  local lines = child:lines()
  return setmetatable({ child = child, first = lines() or child:wait(5), lines = lines }, {
    __close = function() child:close() end,
  })
end

local function external_address(host)
  local ended = assert(host:lua([[
    print(assert(require "p2pd.stun".lookup { ip = "30.1.0.3", port = 3478 }).external_ip)
  ]], { timeout = 10 }))
  return (ended.out:gsub("%s", ""))
end

describe("in the lab, turn", function()
  it("brings hosts together whose routers let nothing else in or out, in few round trips", run(function()
    local net <close> = assert(lab.up { routers = {
      a = { nat = "blocked", open_ports = { 3478 }, delay_ms = 10 },
      b = { nat = "symmetric/random", delay_ms = 10 },
    } })
    net:guard(function()
      local a, b = assert(net:host "a"), assert(net:host "b")
      local outside = external_address(b)
      local have <close> = start(a, HAVE, "30.1.0.3", outside)
      local ip, port, external, allocated_ms = have.first:match "^(%S+)%s(%d+)%s(%S+)%s(%d+)$"
      assert.equal("30.1.0.3", ip, have.first)
      assert.not_equal(outside, external)
      assert.is_true(tonumber(allocated_ms) >= 60 and tonumber(allocated_ms) < 85, allocated_ms) -- 3 T
      local come <close> = start(b, COME, ip, port)
      local from, at_ms = have.lines():match "^(%S+)%s(%d+)$"
      assert.equal(outside, from)
      local took_ms = tonumber(at_ms) - tonumber(come.first)
      assert.is_true(took_ms >= 60 and took_ms < 85, took_ms) -- the peer's 2 T, and T for the connection made ahead
      assert.equal("open", come.lines())
      assert(net:restart "coturn")
      assert.equal("ECONNRESET", have.lines()) -- and it is told when the server is gone
    end)
  end))

  it("relays IPv6, and is asked over it", run(function()
    local net <close> = assert(lab.up { a = "udp-firewall" })
    net:guard(function()
      local got = assert(net:host("a"):lua([[
        local turn = require "p2pd.turn"
        local server = { host = "2c0f:30:1::3", port = 3478, user = "lab", password = "lab" }
        local relay <close> = assert(turn.allocate { server = server, family = 6, permit = { "2c0f:30:1::4" } })
        print(relay.ip, relay.server)
        local socket <close> = assert(relay:connect("2c0f:30:1::4", 3478))
        print(socket.remote)
        local other <close> = assert(turn.allocate { server = server })
        print(other.ip)
      ]], { timeout = 20 }))
      assert.equal("2c0f:30:1::3\t[2c0f:30:1::3]:3478\n[2c0f:30:1::4]:3478\n30.1.0.3\n", got.out, got.err)
    end)
  end))

  it("shows whether strangers get in by TCP", run(function()
    local net <close> = assert(lab.up { routers = { open = "open", shut = "port-restricted/equal" } })
    net:guard(function()
      for name, wanted in pairs { open = "true\n", shut = "false\n" } do
        local got = assert(net:host(name):lua([[
          local luv, stun, turn = require "luv", require "p2pd.stun", require "p2pd.turn"
          local held <close> = assert(stun.connect { ip = "30.1.0.3", port = 3478 })
          local listener = luv.new_tcp()
          assert(listener:bind("0.0.0.0", 20000))
          listener:listen(8, function() end)
          print((turn.probe({ host = "30.1.0.3", port = 3478, user = "lab", password = "lab" },
            held.external_ip, 20000, 0.5)))
          listener:close()
        ]], { timeout = 20 }))
        assert.equal(wanted, got.out, name .. got.err)
      end
    end)
  end))

  it("uses the next server when one does not answer, and says what is wrong when none does", run(function()
    local net <close> = assert(lab.up { a = "port-restricted/equal" })
    net:guard(function()
      local got = assert(net:host("a"):lua([[
        local p2pd, turn = require "p2pd", require "p2pd.turn"
        local function at(ip, password)
          return { host = ip, port = 3478, user = "lab", password = password or "lab" }
        end
        local began = p2pd.now()
        local relay <close> = assert(turn.race { servers = { at "30.1.0.99", at("30.1.0.3", "no"), at "30.1.0.4" } })
        print(relay.server, p2pd.now() - began < 1)
        print((select(2, turn.race { servers = { at "30.1.0.1", at("30.1.0.3", "no") } })))
        print((select(2, turn.allocate { server = at "30.1.0.99", timeout = 0.3 })))
      ]], { timeout = 20 }))
      assert.equal("30.1.0.4:3478\ttrue\n"
        .. "EACCES: TURN server 30.1.0.3:3478 does not accept the user's name or password (401)\n"
        .. "ENETUNREACH: TURN server 30.1.0.99:3478: network is unreachable\n", got.out, got.err)
    end)
  end))
end)
