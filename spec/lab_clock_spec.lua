-- The clock in the lab: three servers of chrony's and one that lies, 20 ms away. All machines there have one clock, so
-- what a host finds must be the error that it was given.
-- check: alone
-- check: unsanitized
require "p2pd"
local lab = require "p2pd.lab"
local run = require "spec.support.run"

local BAR = 0.002     -- seconds by which it may be wrong
local BAR_ROUGH = 0.02 -- where packets take up to 20 ms longer
local ROUNDS = 10
local WRONG = 0.75    -- the error of the host's clock, in seconds
local LIES = { 3.25, -3.25, 0.03, 0.008, 1e9 } -- the fourth is within what the way to a server hides

-- Measures so often on a host, and gives the worst of what was found: how far from the truth, the claimed error, how
-- many agreed at least, and the time that the slowest took.
local MEASURE = [[
local clock, luv = require "p2pd.clock", require "luv"
local rounds, wrong, liar = tonumber(arg[1]), tonumber(arg[2]), arg[3]
local servers = {}
for place = 1, liar and 3 or 4 do servers[place] = { host = "30.1.0." .. 4 + place, port = 123 } end
if liar then table.insert(servers, 1, { host = liar, port = 123 }) end
local off, claimed, agreeing, slowest, bounded = 0, 0, 9, 0, true
for _ = 1, rounds do
  local start = luv.hrtime()
  local got = assert(clock.measure { servers = servers, clock_error = wrong })
  off, claimed = math.max(off, math.abs(got.offset - wrong)), math.max(claimed, got.error)
  agreeing, slowest = math.min(agreeing, got.agreeing), math.max(slowest, (luv.hrtime() - start) / 1e9)
  bounded = bounded and math.abs(got.offset - wrong) <= got.error
end
print(off, claimed, agreeing, slowest, bounded)
]]

local function measure(host, wrong, liar)
  local ended = assert(host:lua(MEASURE, { tostring(ROUNDS), tostring(wrong), liar, timeout = 20 }))
  assert(ended.status == 0, ended.err)
  local numbers = {}
  for word in ended.out:gmatch "%S+" do numbers[#numbers + 1] = tonumber(word) or word == "true" end
  return table.unpack(numbers)
end

-- A lab with a host behind a router, whose clock is wrong, and one on the open internet.
local function up()
  local net = assert(lab.up {
    routers = { a = { nat = "symmetric/random", delay_ms = 10 } },
    hosts = { a = { router = "a", clock_error = WRONG }, liar = "internet" },
  })
  return net, assert(net:host "a"), assert(net:host "liar")
end

describe("the clock in the lab", function()
  it("is within 2 ms at 20 ms of round trip, with one of four lying", run(function()
    local net <close>, a, liar = up()
    net:guard(function()
      local shown = assert(liar:run { "ip", "-4", "-brief", "address", "show", "eth0" })
      local address = shown.out:match "(%d+[%d.]+)/"
      for _, lie in ipairs(LIES) do
        local server <close> = assert(liar:start {
          "lua5.4", "spec/support/lying_ntp.lua", address, "123", tostring(lie), root = true,
        })
        assert.equal("123", server:lines()())
        local off, claimed, agreeing, slowest, bounded = measure(a, WRONG, address)
        assert(off <= BAR, ("it is wrong by %.3f ms where one lies by %g s"):format(off * 1e3, lie))
        assert(bounded and claimed < 0.02, ("it claims an error of %.3f ms"):format(claimed * 1e3))
        assert(agreeing >= 3)
        assert(slowest < 0.5, ("it took %.3f s"):format(slowest))
      end
    end)
  end))

  it("finds the error that the host's settings give it", run(function()
    local net <close>, a = up()
    net:guard(function()
      local ended = assert(a:lua([[
        local got = assert(require "p2pd.clock".measure())
        print(got.offset, got.agreeing, #got.servers)]], { timeout = 10 }))
      local offset, agreeing, asked = ended.out:match "(%S+)%s+(%S+)%s+(%S+)"
      assert(math.abs(tonumber(offset) - WRONG) < BAR, ended.out .. ended.err)
      assert.equal("4 4", agreeing .. " " .. asked)
    end)
  end))

  it("is bounded by what it claims where packets are late and lost", run(function()
    local net <close>, a = up()
    net:guard(function()
      assert(net:set("a", { jitter_ms = 20, loss = 0.1 }))
      local off, _, agreeing, _, bounded = measure(a, WRONG)
      assert(net:set("a", { jitter_ms = 0, loss = 0 }))
      assert(off <= BAR_ROUGH and bounded and agreeing >= 3, ("it is wrong by %.3f ms"):format(off * 1e3))
    end)
  end))

  it("says that nobody answers where nothing passes", run(function()
    local net <close>, a = up()
    net:guard(function()
      assert(net:cut "a")
      local ended = assert(a:lua([[
        print(select(3, require "p2pd.clock".measure { timeout = 0.3 }))]], { timeout = 10 }))
      assert(net:mend "a")
      assert.equal("ETIMEDOUT\n", ended.out)
    end)
  end))
end)
