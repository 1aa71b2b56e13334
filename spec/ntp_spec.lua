-- p2pd.clock against servers of all manners on loopback.
local p2pd = require "p2pd"
local clock = require "p2pd.clock"
local core = require "p2pd.core"
local luv = require "luv"
local run = require "spec.support.run"

local PATIENCE = 1 -- seconds, with a sanitizer: less than what a silent server would take

-- An NTP server whose time is wrong by so many seconds: 0 is honest. Made and ended outside of tasks.
local function start(offset)
  local self, text = { input = luv.new_pipe() }, ""
  local output = luv.new_pipe()
  self.process = assert(luv.spawn("lua5.4", {
    args = { "spec/support/lying_ntp.lua", "127.0.0.1", "0", tostring(offset) }, stdio = { self.input, output, 2 },
  }, function() self.process:close() end))
  output:read_start(function(_, data) text = text .. (data or "\n") end)
  while not text:find "\n" do luv.run "once" end
  output:close()
  self.process:unref()
  luv.run "nowait"
  return self, { host = "127.0.0.1", port = math.tointeger(tonumber(text)) }
end

local function stop(self)
  self.process:ref()
  self.input:close()
  while self.process:is_active() do luv.run "once" end
end

-- The machine's clock, as others read it.
local function machine()
  local seconds, microseconds = luv.gettimeofday()
  return seconds + microseconds / 1e6
end

local function near(expected, found, tolerance)
  assert(math.abs(expected - found) <= (tolerance or 0.02), ("%s is not near %s"):format(found, expected))
end

describe("the clock", function()
  local children, honest, liar, silent = {}, {}, nil, nil

  lazy_setup(function()
    for place = 1, 4 do children[place], honest[place] = start(0) end
    children[5], liar = start(3.25)
    silent = luv.new_udp()
    assert(silent:bind("127.0.0.1", 0))
  end)

  lazy_teardown(function()
    for _, child in ipairs(children) do stop(child) end
    silent:close()
    luv.run "nowait"
  end)

  local function nobody() return { host = "127.0.0.1", port = silent:getsockname().port } end

  it("is the machine's until it was measured", run(function()
    if core.clock.view() then return end -- another spec of this process has measured
    local now, err = clock.now()
    near(machine(), now)
    assert.is_nil(err)
    local offset, message, code = clock.offset()
    assert.is_nil(offset)
    assert.equal("ENOENT: no clock was asked yet", message)
    assert.equal("ENOENT", code)
  end))

  it("is right, with an error, by servers that are", run(function()
    local seen = {}
    local got = assert(clock.measure { servers = honest, on_server = function(one) seen[#seen + 1] = one.port end })
    near(0, got.offset)
    assert.is_true(got.error > 0 and got.error < 0.05)
    assert.is_true(math.abs(got.offset) <= got.error)
    assert.equal(4, got.agreeing)
    assert.equal(4, #seen)
    for place, one in ipairs(got.servers) do
      assert.is_true(one.ok and one.agrees)
      assert.equal(honest[place].port, one.port)
      assert.same({ "127.0.0.1", 4, 2 }, { one.ip, one.samples, one.stratum })
      assert.is_true(one.rtt > 0 and one.rtt / 2 <= one.error)
    end
    local now, err = clock.now()
    near(machine(), now)
    assert.is_true(err >= got.error)
  end))

  it("does not go by one that lies", run(function()
    local got = assert(clock.measure { servers = { liar, honest[1], honest[2], honest[3] } })
    near(0, got.offset)
    assert.equal(3, got.agreeing)
    assert.is_false(got.servers[1].agrees)
    near(-3.25, got.servers[1].offset)
    near(machine(), (clock.now()))
  end))

  it("shows the error that a node is given, which moves nobody else's time", run(function()
    local got = assert(clock.measure { servers = honest, clock_error = 3600.5 })
    near(3600.5, got.offset)
    near(3600.5, got.servers[1].offset)
    near(machine(), (clock.now()))
    near(-7, (assert(clock.offset(-7))))
    near(0, (assert(clock.offset())))
  end))

  it("says so when there is no majority", run(function()
    assert(clock.measure { servers = honest })
    local got, message, code = clock.measure { servers = { honest[1], liar } }
    assert.is_nil(got)
    assert.equal("EPROTO: the clocks contradict each other", message)
    assert.equal("EPROTO", code)
    near(machine(), (clock.now())) -- what was known before still holds
  end))

  it("does not wait for those that are silent", run(function()
    local began = p2pd.now()
    local got = assert(clock.measure { servers = { nobody(), honest[1], honest[2], honest[3] } })
    assert.is_true(p2pd.now() - began < PATIENCE)
    assert.equal(3, got.agreeing)
    assert.equal("ECANCELED", got.servers[1].code)
  end))

  it("asks others when some fail", run(function()
    local gone = luv.new_udp()
    assert(gone:bind("127.0.0.1", 0))
    local port = gone:getsockname().port
    gone:close()
    local began = p2pd.now()
    local servers = {}
    for place = 1, 5 do servers[place] = { host = "127.0.0.1", port = place == 1 and port or nobody().port } end
    for place = 1, 4 do servers[5 + place] = honest[place] end
    local got = assert(clock.measure { servers = servers, timeout = 5 })
    assert.equal("ECONNREFUSED", got.servers[1].code)
    assert.equal("ESKIPPED", got.servers[3].code) -- the second has its address
    assert.is_true(got.agreeing >= 3)
    assert.is_true(p2pd.now() - began < 2)
  end))

  it("gives up in time", run(function()
    local began = p2pd.now()
    local got, message, code = clock.measure { servers = { nobody() }, timeout = 0.1 }
    assert.is_nil(got)
    assert.equal("ETIMEDOUT", code)
    assert.truthy(message:find "^ETIMEDOUT: ")
    assert.is_true(p2pd.now() - began < 1)
    got, message, code = clock.measure { servers = {} }
    assert.is_nil(got)
    assert.equal("ENOENT: no clocks are in the settings", message)
    assert.equal("ENOENT", code)
    code = select(3, clock.measure { servers = { { host = "nowhere.invalid", port = 123 } } })
    assert.truthy(code:find "^E")
  end))

  it("remembers for as long as it is told", run(function()
    local first = assert(clock.measure { servers = honest })
    local began = p2pd.now()
    local again = assert(clock.measure { servers = { nobody() }, max_age = 60, clock_error = 5 })
    assert.is_true(p2pd.now() - began < 0.1)
    near(first.offset + 5, again.offset)
    near(5, again.servers[1].offset)
    assert.equal(#first.servers, #again.servers)
    assert.is_nil(clock.measure { servers = { nobody() }, max_age = 0, timeout = 0.05 })
  end))

  it("never runs backward", run(function()
    local last = clock.now()
    for round = 1, 20 do
      core.clock.set(core.clock.machine() + (round % 2 * 2 - 1) * 10000000, 0) -- ± 10 ms
      for _ = 1, 50 do
        local now = clock.now()
        assert.is_true(now >= last)
        last = now
      end
    end
    assert(clock.measure { servers = honest })
  end))

  it("leaves nothing behind when it is cancelled", run(function()
    local task <const> = p2pd.spawn(function() clock.measure { servers = { nobody() } } end)
    p2pd.sleep(0.02)
    task:cancel()
    task:wait()
  end))

  it("throws for arguments that are wrong", run(function()
    for _, wrong in ipairs {
      { server = {} }, { servers = 1 }, { timeout = -1 }, { timeout = 0 / 0 }, { clock_error = "soon" },
      { servers = { { host = "", port = 123 } } }, { servers = { { host = "a", port = 0 } } },
    } do
      assert.has_error(function() clock.measure(wrong) end)
    end
    assert.error_matches(function() clock.measure { patience = 1 } end, "unknown option 'patience'")
    for _, wrong in ipairs {
      { ip = "nowhere" }, { ip = "127.0.0.1", port = 70000 }, { ip = "127.0.0.1", samples = 9 },
      { ip = "127.0.0.1", tiemout = 1 },
    } do
      assert.has_error(function() core.clock.ask(wrong) end)
    end
    assert.has_error(function() core.clock.select {} end)
    assert.has_error(function() core.clock.select { { offset_ns = 1 } } end)
  end))
end)
