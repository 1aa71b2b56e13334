-- settings.clock_error: a node whose clock is wrong, as its messages and its peers show.
require "p2pd"
local core = require "p2pd.core"
local pairs_of = require "spec.support.pair"
local run = require "spec.support.run"

describe("a clock error", function()
  local two

  lazy_setup(function() two = pairs_of.new() end)
  lazy_teardown(function() two:close() end)

  -- What arrives of a message between two whose clocks are wrong by so many seconds.
  local function exchange(from_error, to_error)
    local from <close> = assert(core.identity.open { path = two.folder .. "/a.pem" })
    local to <close> = assert(core.identity.open { path = two.folder .. "/b.pem" })
    local sender <close> = assert(core.signal.new { identity = from, clock_error = from_error })
    local receiver <close> = assert(core.signal.new { identity = to, clock_error = to_error })
    local broker = { ip = two.broker.host, port = two.broker.port }
    local links = { assert(sender:link(broker)), assert(receiver:link(broker)) } -- those that nobody holds are closed
    assert(sender:send(to:id(), "hello", { links[1] }))
    local got = assert(receiver:recv(2))
    assert(links[2]:is_up())
    return got, receiver:counters()
  end

  it("of half a minute does not matter", run(function()
    for _, errors in ipairs { { 30 }, { 0, -30 }, { 15, -15 } } do
      local got, counters = exchange(table.unpack(errors, 1, 2))
      assert.is_nil(got.stale)
      assert.equal(1, counters.accepted)
    end
  end))

  it("of an hour keeps messages from being accepted, whoever has it", run(function()
    for _, errors in ipairs { { 3600 }, { 0, 3600 }, { -1800, 1800 } } do
      local got, counters = exchange(table.unpack(errors, 1, 2))
      assert.is_true(got.stale)
      assert.is_true(math.abs(got.skew - (errors[1] - (errors[2] or 0))) < 2)
      assert.equal(0, counters.accepted)
      assert.equal(1, counters.stale)
    end
  end))

  it("does not matter where all have the same", run(function()
    assert.is_nil(exchange(3600, 3600).stale)
  end))

  it("is corrected by a clock offset", run(function()
    local identity <close> = assert(core.identity.open { path = two.folder .. "/a.pem" })
    local signal <close> = assert(core.signal.new { identity = identity, clock_error = 3600 })
    signal:set_clock_offset(-3600)
    local link = assert(signal:link { ip = two.broker.host, port = two.broker.port })
    assert(signal:send(identity:id(), "to myself", { link }))
    local got = assert(signal:recv(2))
    assert.is_nil(got.stale)
    assert.is_true(math.abs(got.time - os.time()) < 3)
  end))

  it("comes from the settings, and nodes that have one are told the time and meet all the same", run(function()
    local settings = two:settings()
    settings.clock_error = 3600
    local a <close> = assert(two:node("a", { settings = settings }))
    local b <close> = assert(two:node "b")
    local pipe <close> = assert(a:connect(b:address(), { strategies = { "reverse" }, timeout = 5 }))
    local _ <close> = b:accept()()
    assert.equal("reverse", pipe.strategy)
    assert.equal(1, b:signal_state().counters.stale)
  end))

  it("is a number", function()
    local identity <close> = assert(core.identity.open { path = two.folder .. "/a.pem" })
    for _, wrong in ipairs { "soon", 0 / 0, math.huge } do
      assert.error_matches(function()
        core.signal.new { identity = identity, clock_error = wrong }
      end, "a number of seconds")
    end
  end)
end)
