-- check: timeout 180
-- Whether strangers get in, as a relay shows it: what a node makes of that, and of other news from outside. In a lab.
local lab = require "p2pd.lab"
local labs = require "spec.support.lab"
local run = require "spec.support.run"

local obstacle = labs.obstacle(labs.users()[1])
local SANITIZED = os.getenv "P2PD_SANITIZED" ~= nil

local function test(name, f)
  it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or run(f))
end

-- What scripts on hosts begin with: `look{…}` opens a network with the lab's servers.
local BEFORE = [[
  local luv, network = require "luv", require "p2pd.network"
  local settings, task = require "p2pd.settings".load(), require "p2pd.task"
  local opened = setmetatable({}, { __close = function(self) for _, one in ipairs(self) do one:close() end end })
  local _ <close> = opened
  local function say(...) print(...) io.stdout:flush() end
  local function look(options)
    options.stun, options.notice = settings.stun, print
    if options.turn == nil then options.turn = settings.turn end
    options.port = options.port or 4242
    options.on_change = options.on_change or function() end
    local self = assert(network.open(options))
    opened[#opened + 1] = self
    self:ready()
    return self
  end
  local function listen(ip, port)
    local socket = luv.new_tcp()
    assert(socket:bind(ip, port))
    assert(socket:listen(8, function()
      local guest = luv.new_tcp()
      socket:accept(guest)
      guest:read_start(function(_, text)
        if not text and not guest:is_closing() then guest:close() end
      end)
    end))
    opened[#opened + 1] = socket
  end
  local function await(condition, seconds)
    local deadline = task.now() + (seconds or 5)
    while not condition() and task.now() < deadline do task.sleep(0.01) end
    return condition()
  end
]]

local function finish(host, source, ...)
  local result = assert(host:lua(BEFORE .. source, { timeout = 25, ... }))
  assert.equal(0, result.status, result.err)
  return result.out
end

describe("a relay outside", function()
  test("shows whom TCP lets in, where UDP says something else, and takes no more time", function()
    local net <close> = assert(lab.up {
      routers = {
        a = { nat = "full-cone/equal", delay_ms = 10 },
        b = { nat = "full-cone/equal", tcp = "port-restricted/equal", delay_ms = 10 },
        c = { nat = "port-restricted/equal", tcp = "full-cone/equal", delay_ms = 10 },
        d = { nat = "restricted/equal", delay_ms = 10 }, e = { nat = "open", delay_ms = 10 },
        f = { nat = "full-cone/equal", tcp = "port-restricted/equal", uninvited = "reset", delay_ms = 10 },
        g = { nat = "full-cone/equal", delay_ms = 10 },
      },
    })
    net:guard(function()
      local expected = {
        a = "full-cone\ttrue", b = "port-restricted\tfalse", c = "full-cone\ttrue", d = "restricted\tfalse",
        e = "open\ttrue", f = "port-restricted\tfalse",
      }
      for name, words in pairs(expected) do
        local out = finish(assert(net:host(name)), [[
          local began = task.now()
          local facts = assert(look {}:facts(4, 5))
          say(facts.nat, facts.confidence > 0.9, task.now() - began)
        ]])
        local said, took = out:match "^(%S+%s%S+)%s(%S+)"
        assert.equal(words, said, name)
        assert.is_true(os.getenv "P2PD_SANITIZED" ~= nil or tonumber(took) < 1.6, took)
      end
      assert.matches("^full%-cone\tfalse", finish(assert(net:host "g"), [[
        local facts = assert(look { turn = false }:facts(4, 5))
        say(facts.nat, facts.confidence > 0.9)
      ]]))
    end)
  end)

  test("shows whether a mapped port works", SANITIZED and function()
    pending "miniupnpc reads texts beyond their end"
  end or function()
    local net <close> = assert(lab.up { a = { nat = "port-restricted/equal", portmap = true } })
    net:guard(function()
      local a = assert(net:host "a")
      local source = [[
        local listens = ...
        if listens == "listen" then listen("0.0.0.0", 4242) end
        local self = look { map = true }
        local _, one = next(self.known)
        for _, known in pairs(self.known) do if known.address.family == 4 then one = known end end
        assert(await(function() return one.mapping end, 15))
        say(one.mapping.verified, one.mapping.reason, one.entry.nat)
      ]]
      assert.equal("true\tnil\tfull-cone\n", finish(a, source, "listen"))
      assert.equal("false\ta connection from outside does not come in by it\tport-restricted\n", finish(a, source, ""))
      assert.equal("nil\tnil\tfull-cone\n", finish(a, [[
        settings.turn = { { host = "30.1.0.99", port = 3478, user = "x", password = "y" } }
      ]] .. source, ""))
    end)
  end)
end)

describe("a node behind an IPv6 firewall", function()
  -- The lab's routers have no pinholes; how they are asked for, portmap_pinhole_spec sees.
  test("asks its router for a pinhole, and lets it go at the end", function()
    local net <close> = assert(lab.up { a = { nat = "port-restricted/equal" }, b = { nat = "open" } })
    net:guard(function()
      local source = [[
        local closed = 0
        package.loaded["p2pd.portmap"] = {
          open = function(options)
            if not options.internal_ip:find ":" then return nil, "ENOTSUP: no", "ENOTSUP" end
            say(options.internal_ip, options.internal_port, options.gateway)
            return {
              external_ip = options.internal_ip, external_port = options.internal_port,
              close = function() closed = closed + 1 end,
            }
          end,
        }
        local self = look { map = true, turn = false }
        await(function() return self.ipv6[1].nat ~= "udp-firewall" and self.ipv6[1].nat ~= "port-restricted" end, 3)
        say(self.ipv6[1].nat, self:facts(6).nat) -- what is let in is that port alone
        self:close()
        say(closed)
      ]]
      local out = finish(assert(net:host "a"), source)
      local ip, gateway, rest = out:match "^(2c0f:30:3:1::10)\t4242\t(%S+)\n(.*)$"
      assert(ip and (gateway:find("^2c0f:") or gateway:find "^fe80:.*%%eth0$"), out)
      assert.equal("open\tudp-firewall\n1\n", rest)
      assert.equal("open\topen\n0\n", finish(assert(net:host "b"), source))
    end)
  end)
end)

describe("a node whose router gets another address", function()
  test("is found on its brokers again", function()
    local net <close> = assert(lab.up { a = { nat = "port-restricted/equal" }, b = { nat = "open" } })
    net:guard(function()
      local a, b = assert(net:host "a"), assert(net:host "b")
      local child <close> = assert(a:start { net.program, "-e", [[
        local p2pd = require "p2pd"
        local holds = require "p2pd.holds"
        local new = holds.new
        function holds.new(options) -- they are not to be asked in 25 s, but at once
          options.keep = 0.3
          return new(options)
        end
        local node <close> = assert(p2pd.node { on_address = function(address) print(address) io.stdout:flush() end })
        for pipe in node:accept() do pipe:close() end
      ]] })
      local address
      local next_line = child:lines()
      repeat address = assert(next_line()) until address:find("30.2.1.2,", 1, true) and address:find(",5,2,", 1, true)
      require "p2pd.task".sleep(1) -- until a hold is kept
      assert(net:set("a", { address = "30.2.1.77" }))
      repeat address = assert(next_line()) until address:find("30.2.1.77,", 1, true)
      local result = assert(b:lua([[
        local node <close> = assert(require "p2pd".node())
        local began = require "p2pd".now()
        local pipe <close> = assert(node:connect((...), { strategies = { "reverse" }, timeout = 5 }))
        print("met", require "p2pd".now() - began)
      ]], { address, timeout = 20 }))
      assert.equal(0, result.status, result.err)
      assert.matches("^met", result.out)
    end)
  end)
end)
