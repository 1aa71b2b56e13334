-- What STUN servers say to hosts behind the lab's routers, by UDP and TCP, with change requests.
-- check: unsanitized
require "p2pd"
local lab = require "p2pd.lab"
local run = require "spec.support.run"

-- Run on a host, with the server's address as its argument; prints what it finds, a line each.
local ASK = [[
local stun = require "p2pd.stun"
local ip, local_ip = ...
local function say(...) print(table.concat({ ... }, " ")) end
local socket <close> = assert(stun.socket { ip = local_ip, device = local_ip and "eth0" })
local first = assert(socket:ask(ip, 3478))
say("udp", first.external_ip, first.external_port == socket.local_port and "equal" or "else")
say("other", first.other_ip, first.other_port)
local second = assert(socket:ask(first.other_ip, first.other_port))
say("mapping", second.external_port == first.external_port and "independent" or "dependent")
local fresh <close> = assert(stun.socket { ip = local_ip })
for _, change in ipairs { "both", "port", "address" } do
  local got, _, code = fresh:ask(ip, 3478, { change = change, timeout = 0.25 })
  say(change, got and got.from_ip .. " " .. got.from_port or code)
end
local connection <close> = assert(stun.connect { ip = ip, port = 3478, local_ip = local_ip })
say("tcp", connection.external_ip, connection.external_port == connection.local_port and "equal" or "else")
assert(connection:ask())
]]

local EXTERNAL = [[
local found = assert(require "p2pd.stun".external {
  servers = {
    { host = "30.1.0.3", port = 3478 }, { host = "30.1.0.9", port = 3478 }, { host = "30.1.0.4", port = 3478 },
  },
})
print(found.external_ip, found.confirmed, found.same_port)
]]

local function lines(host, source, ...)
  local ended = assert(host:lua(source, { timeout = 20, ... }))
  assert.equal(0, ended.status, ended.err)
  local found = {}
  for line in ended.out:gmatch "[^\n]+" do found[#found + 1] = line end
  return found
end

-- The host's first address that is of one of these forms.
local function address_of(host, ...)
  local list = host:run({ "ip", "-oneline", "address", "show", "eth0" }).out
  for _, form in ipairs { ... } do
    local found = list:match(" (" .. form .. ")/%d+ ")
    if found then return found end
  end
end

describe("in the lab, stun", function()
  it("shows what each router does", run(function()
    local net <close> = assert(lab.up { routers = {
      cone = "full-cone/equal", restricted = "restricted/random", symmetric = "symmetric/random",
      firewall = "udp-firewall",
    } })
    net:guard(function()
      local both, port, address = "both 30.1.0.4 3479", "port 30.1.0.3 3479", "address 30.1.0.4 3478"
      local none = { "both ETIMEDOUT", "port ETIMEDOUT", "address ETIMEDOUT" }
      local expected = {
        cone = { "equal", "independent", both, port, address },
        restricted = { "else", "independent", none[1], port, none[3] },
        symmetric = { "else", "dependent", table.unpack(none) },
        firewall = { "equal", "independent", table.unpack(none) },
      }
      for name, wanted in pairs(expected) do
        local host = assert(net:host(name))
        local own = address_of(host, "30%.%g+", "192%.168%.%g+")
        local got = lines(host, ASK, "30.1.0.3", own)
        local external = got[1]:match "^udp (%S+)"
        assert.same({
          ("udp %s %s"):format(external, wanted[1]), "other 30.1.0.4 3479", "mapping " .. wanted[2],
          wanted[3], wanted[4], wanted[5], ("tcp %s %s"):format(external, wanted[1]),
        }, got, name)
        assert.equal(name == "firewall", external == own, name)
        assert.same({ ("%s\ttrue\t%s"):format(external, name ~= "symmetric") }, lines(host, EXTERNAL))
      end
      local host = assert(net:host "firewall")
      local own = address_of(host, "2c0f:%g+")
      local got = lines(host, ASK, "2c0f:30:1::3", own)
      assert.equal(("udp %s equal"):format(own), got[1])
      assert.same({ "other 2c0f:30:1::4 3479", "mapping independent" }, { got[2], got[3] })
      assert.equal(("tcp %s equal"):format(own), got[7])
    end)
  end))

  it("finds the answers in spite of loss, copies and disorder, and gives up in time behind a cut cable", run(function()
    local net <close> = assert(lab.up {
      a = { nat = "port-restricted/equal", delay_ms = 10, jitter_ms = 10, loss = 0.1, duplicate = 0.2, reorder = 0.2 },
    })
    net:guard(function()
      local host = assert(net:host "a")
      local got = lines(host, [[
        local p2pd, stun = require "p2pd", require "p2pd.stun"
        local socket <close> = assert(stun.socket())
        local tasks <close> = p2pd.group()
        local again = 0
        for i = 1, 200 do
          tasks:spawn(function()
            local answer = assert(socket:ask(i % 2 == 0 and "30.1.0.3" or "30.1.0.4", 3478, { timeout = 10 }))
            again = again + answer.requests - 1
          end)
        end
        for _, one in ipairs(tasks) do one:wait() end
        local stats = socket:stats()
        print(again > 5, stats.strays > 5, stats.garbage, stats.foreign)
      ]])
      assert.same({ "true\ttrue\t0\t0" }, got)
      assert(net:cut "a")
      got = lines(host, [[
        local p2pd, stun = require "p2pd", require "p2pd.stun"
        local start = p2pd.now()
        print(select(3, stun.lookup { ip = "30.1.0.3", port = 3478, timeout = 0.3 }))
        print(select(3, stun.connect { ip = "30.1.0.3", port = 3478, timeout = 0.3 }))
        print(p2pd.now() - start < 1)
      ]])
      assert.same({ "ETIMEDOUT", "ETIMEDOUT", "true" }, got)
    end)
  end))

  it("hears from routers what cannot be reached", run(function()
    local net <close> = assert(lab.up { a = "port-restricted/equal" })
    net:guard(function()
      local got = lines(assert(net:host "a"), [[
        local p2pd, stun = require "p2pd", require "p2pd.stun"
        local socket <close> = assert(stun.socket())
        local start = p2pd.now()
        print(select(3, socket:ask("30.1.0.1", 3478))) -- a broker's: nobody has that port
        print(p2pd.now() - start < 0.5)
      ]])
      assert.same({ "ECONNREFUSED", "true" }, got)
    end)
  end))
end)
