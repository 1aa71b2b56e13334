-- check: timeout 180
-- What a node can say of its ports before it is met at them: in a lab.
local lab = require "p2pd.lab"
local labs = require "spec.support.lab"
local run = require "spec.support.run"

local obstacle = labs.obstacle(labs.users()[1])

local function test(name, f)
  it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or run(f))
end

-- What scripts on hosts begin with: `look{…}` opens a network with the lab's servers, `say` prints.
local BEFORE = [[
  local core, luv, network = require "p2pd.core", require "luv", require "p2pd.network"
  local task = require "p2pd.task"
  local opened = setmetatable({}, { __close = function(self) for _, one in ipairs(self) do one:close() end end })
  local _ <close> = opened
  local function say(...) print(...) io.stdout:flush() end
  local function look(options)
    options.stun = options.stun or require "p2pd.settings".load().stun
    options.port, options.notice = 4242, print
    options.on_change = options.on_change or function() end
    local self = assert(network.open(options))
    opened[#opened + 1] = self
    self:ready()
    return self
  end
  -- Whoever comes in by a port is named.
  local function listen(hold)
    local socket = luv.new_tcp()
    assert(socket:bind(hold.local_ip, hold.local_port))
    assert(socket:listen(8, function()
      local guest = luv.new_tcp()
      socket:accept(guest)
      say("guest", guest:getpeername().ip)
      guest:close()
    end))
    opened[#opened + 1] = socket
  end
  -- Whether somebody lets us in there.
  local function dial(ip, port)
    local socket, outcome = luv.new_tcp(), task.channel()
    socket:connect(ip, port, function(failure) outcome:send(failure or "in") end)
    say("dial", outcome:recv(1) or "silence")
    socket:close()
  end
]]

local function start(net, host, source)
  return assert(host:start { net.program, "-e", BEFORE .. source })
end

local function finish(host, source, ...)
  local result = assert(host:lua(BEFORE .. source, { timeout = 20, ... }))
  assert.equal(0, result.status, result.err)
  return result.out
end

local function dial(host, ip, port)
  return finish(host, "local ip, port = ... dial(ip, tonumber(port))", ip, tostring(port)):match "dial%s+(%S+)"
end

-- The port that the router of a lab gave to a port of a host, by its timeline.
local function mapped(net, ip, port)
  local text = assert(net:timeline())
  local external = text:match(("out tcp +%s:%d > [%%d.:]+ S +as [%%d.]+:(%%d+): a new mapping"):format(
    ip:gsub("%.", "%%."), port))
  return tonumber(external)
end

describe("a hold", function()
  test("is a port that the router really has, and lives as long as it is held", function()
    local net <close> = assert(lab.up {
      routers = { a = { nat = "full-cone/random", timeout_s = 1, transitory_s = 1, delay_ms = 5 }, b = "open" },
    })
    net:guard(function()
      local a, b = assert(net:host "a"), assert(net:host "b")
      local child <close> = start(net, a, [[
        for _, keep in ipairs { 0.3, 60 } do
          local self = look { keep = keep }
          self:warm()
          local one, other = assert(self:hold(4)), assert(self:hold(4))
          assert(one.local_port ~= other.local_port and one.external_port ~= other.external_port)
          listen(one)
          say("hold", one.local_ip, one.local_port, one.external_ip, one.external_port)
        end
        task.sleep(20)
      ]])
      local next_line = child:lines()
      local kept = table.pack(assert(next_line()):match "^hold%s+(%S+)%s+(%S+)%s+(%S+)%s+(%S+)")
      local left = table.pack(assert(next_line()):match "^hold%s+(%S+)%s+(%S+)%s+(%S+)%s+(%S+)")
      for _, hold in ipairs { kept, left } do
        assert.equal("30.2.1.2", hold[3])
        assert.equal(tonumber(hold[4]), mapped(net, hold[1], tonumber(hold[2])))
        assert.equal("in", dial(b, hold[3], hold[4]))
        assert.equal("guest\t30.3.2.10", assert(next_line()))
      end
      require "p2pd.task".sleep(3) -- three times as long as a mapping lives without traffic
      assert.equal("in", dial(b, kept[3], kept[4]))
      assert.equal("silence", dial(b, left[3], left[4]))
    end)
  end)

  test("comes back by the same port when its server was started anew", function()
    local net <close> = assert(lab.up { a = { nat = "full-cone/random", delay_ms = 5 }, b = "open" })
    net:guard(function()
      local a, b = assert(net:host "a"), assert(net:host "b")
      local child <close> = start(net, a, [[
        local self = look {}
        self:warm()
        local hold = assert(self:hold(4))
        say("hold", hold.local_port, hold.external_ip, hold.external_port)
        local before = hold.connection
        while hold.connection == before do task.sleep(0.01) end
        say "broken"
        while not hold.connection do task.sleep(0.01) end
        listen(hold)
        say("hold", hold.local_port, hold.external_ip, hold.external_port)
        say("another", assert(self:hold(4)).external_ip)
        task.sleep(20)
      ]])
      local next_line = child:lines()
      local before = assert(next_line())
      assert(net:restart "coturn")
      assert.equal("broken", assert(next_line()))
      assert.equal(before, assert(next_line()))
      assert.equal("another\t30.2.1.2", assert(next_line()))
      local ip, port = before:match "^hold%s+%d+%s+(%S+)%s+(%d+)"
      assert.equal("in", dial(b, ip, port))
    end)
  end)

  test("is had at once where nothing is translated, and not had without a STUN server", function()
    local net <close> = assert(lab.up { a = "port-restricted/equal", b = { nat = "open", delay_ms = 100 } })
    net:guard(function()
      local hosts = { a = assert(net:host "a"), b = assert(net:host "b") }
      local source = [[
        local self = look { stun = (...) == "none" and {} or nil, bind = select(2, ...) }
        self:warm()
        local began = task.now()
        for _, family in ipairs { 4, 6 } do
          local hold, message, code = self:hold(family)
          if hold then
            say(family, hold.local_ip == hold.external_ip and hold.local_port == hold.external_port, hold.translated)
            listen(hold)
          else
            say(family, code, message)
          end
        end
        say(task.now() - began < 0.1) -- less than a round trip
        say(self:sample(4))
      ]]
      assert.matches("^4\ttrue\tfalse\n6\ttrue\tfalse\ntrue\nsample", finish(hosts.b, source))
      assert.matches("^4\ttrue\tfalse\n6\ttrue\tfalse\ntrue\nnil\tENOTSUP: ", finish(hosts.b, source, "none"))
      assert.matches("^4\tENOTSUP\tENOTSUP: without a STUN server [^\n]+\n6\ttrue\tfalse\n",
        finish(hosts.a, source, "none"))
      assert.matches("^4\ttrue\tfalse\n6\tENETUNREACH\t", finish(hosts.a, source, "", "127.0.0.1"))
      assert.falsy(assert(net:timeline()):find("30.1.0.3:3478 S", 1, true)
        and finish(hosts.a, source, "", "127.0.0.1"):find "sample")
    end)
  end)
end)

describe("facts", function()
  test("are what was examined, come from the cache at once, and are a guess where nobody answers", function()
    local net <close> = assert(lab.up {
      routers = {
        a = { nat = "symmetric/independent:7@20000-24000", delay_ms = 10 }, b = { nat = "full-cone/equal" }, c = "open",
      },
    })
    net:guard(function()
      local source = [[
        local function show(self, family, timeout)
          local began = task.now()
          local it = assert(self:facts(family, timeout))
          say(it.nat, it.delta, it.value, it.ip == it.local_ip, it.translated, it.first, it.last, it.confidence > 0.4,
            task.now() - began < 0.01)
        end
        do
          local self = look {}
          show(self, 4)
          show(self, 6)
        end
        show(look {}, 4)
        local self = look { stun = { { host = "30.1.0.77", port = 3478 } } }
        require "p2pd.netcache".put = nil
        show(self, 4, 0.1)
      ]]
      local expected = {
        a = "symmetric\tindependent\t7\tfalse\ttrue\t", b = "full-cone\tequal\t0\tfalse\ttrue\t1024\t65535\t",
        c = "open\tna\t0\ttrue\tfalse\t1024\t65535\t",
      }
      for name, first in pairs(expected) do
        local out = finish(assert(net:host(name)), source)
        local lines = {}
        for line in out:gmatch "[^\n]+" do lines[#lines + 1] = line end
        assert.equal(first, lines[1]:sub(1, #first))
        assert.matches("\ttrue\tfalse$", lines[1])
        assert.equal(name == "c" and "open" or "udp-firewall", lines[2]:match "^%S+")
        assert.equal(first, lines[3]:sub(1, #first))
        assert.matches("\ttrue\ttrue$", lines[3])
      end
    end)
  end)

  test("change with the external address, and who connects by it is told", function()
    local net <close> = assert(lab.up { a = { nat = "port-restricted/equal", delay_ms = 5 } })
    net:guard(function()
      local a = assert(net:host "a")
      local child <close> = start(net, a, [[
        local self = look { keep = 0.2, on_change = function(dead) if dead then say "dead" end end }
        assert(self:facts(4))
        self:warm()
        local hold = assert(self:hold(4))
        say(self:facts(4).ip)
        while self:facts(4).ip == "30.2.1.2" do task.sleep(0.01) end
        say(self:facts(4).ip, self.ipv4[1].external)
        while hold.external_ip == "30.2.1.2" do task.sleep(0.01) end
        say(hold.external_ip)
      ]])
      local next_line = child:lines()
      assert.equal("30.2.1.2", assert(next_line()))
      assert(net:set("a", { address = "30.2.1.77" }))
      assert.equal("dead", assert(next_line()))
      assert.equal("30.2.1.77\t30.2.1.77", assert(next_line()))
      assert.equal("30.2.1.77", assert(next_line()))
      child:wait(5)
    end)
  end)
end)

describe("a sample", function()
  local function steps(out)
    local list, before = {}, nil
    for port in out:gmatch "> (%d+)" do
      if before then list[#list + 1] = tonumber(port) - before end
      before = tonumber(port)
    end
    return list
  end

  test("shows the next ports in their order, also while the NAT is examined", function()
    local net <close> = assert(lab.up {
      routers = {
        a = { nat = "symmetric/independent:7", delay_ms = 10 }, b = { nat = "symmetric/dependent:3", delay_ms = 10 },
        c = { nat = "symmetric/independent:-5", delay_ms = 10, jitter_ms = 5 },
      },
    })
    net:guard(function()
      for name, step in pairs { a = 7, b = 3, c = -5 } do
        local out = finish(assert(net:host(name)), [[
          local self = look {}
          for _ = 1, 3 do
            local began = task.now()
            local sample <close> = assert(self:sample(4, { count = 4 }))
            for i = 2, 4 do assert(sample[i].local_port == sample[i - 1].local_port + 1) end
            assert(task.now() - began < 0.5)
            say(sample)
          end
          local sample <close> = assert(self:sample(4, { local_port = 30123, count = 2 }))
          assert(sample[1].local_port == 30123 and sample[2].local_port == 30124)
          say(self:facts(4).nat)
        ]])
        for line in out:gmatch "sample[^\n]+" do assert.same({ step, step, step }, steps(line), out) end
        assert.matches("symmetric\n$", out)
      end
    end)
  end)

  test("counts what was lost, and keeps examinations away until it is closed", function()
    local net <close> = assert(lab.up { a = { nat = "symmetric/independent:1", delay_ms = 10 } })
    net:guard(function()
      local out = finish(assert(net:host "a"), [[
        local self = look { stun = { { host = "30.1.0.99", port = 3478 }, { host = "30.1.0.3", port = 3478 } } }
        assert(self:facts(4).value == 1)
        self = look { stun = { { host = "30.1.0.99", port = 3478 }, { host = "30.1.0.3", port = 3478 } } }
        local began = task.now()
        local sample = assert(self:sample(4, { count = 3 }))
        assert(task.now() - began < 0.4)
        for _, entry in ipairs(sample) do say("entry", entry.server_ip, entry.external_port > 0) end
        task.sleep(3.2) -- what the cache says would be verified by now
        local port = assert(self:sample(4, { count = 1 }))[1].external_port
        say("quiet", port - sample[3].external_port)
      ]])
      assert.equal("entry\t30.1.0.3\ttrue\nentry\t30.1.0.99\tfalse\nentry\t30.1.0.3\ttrue\nquiet\t1\n", out)
    end)
  end)
end)
