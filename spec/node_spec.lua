local p2pd = require "p2pd"
local pair = require "spec.support.pair"
local run = require "spec.support.run"

-- The rungs of the node's last attempt, by name.
local function rungs(node)
  local by_name = {}
  for _, rung in ipairs(node.last_report:table().rungs) do by_name[rung.name] = rung end
  return by_name
end

-- Echoes what comes on each pipe that arrives.
local function echo(node)
  return p2pd.spawn(function()
    for pipe in node:accept() do
      p2pd.spawn(function()
        local _ <close> = pipe
        for data in function() return (pipe:recv()) end do pipe:send(data) end
      end)
    end
  end)
end

describe("two nodes", function()
  local two
  setup(function() two = pair.new() end)
  teardown(function() two:close() end)

  it("meet by direct, and both know how and whom", run(function()
    local a <close> = two:node "a"
    local b <close> = two:node "b"
    local pipe <close> = assert(a:connect(b:address()))
    local arrived <close> = b:accept()()
    assert.equal("direct", pipe.strategy)
    assert.equal("direct", arrived.strategy)
    assert.equal(b:id(), pipe.peer)
    assert.equal(a:id(), arrived.peer)
    assert.equal("127.0.0.1:" .. b:address():match "127%.0%.0%.1,127%.0%.0%.1,(%d+)", pipe.remote)
    assert(pipe:send "there")
    assert.equal("there", arrived:recv(5))
    assert(arrived:send "and back")
    assert.equal("and back", pipe:recv(5))
    assert.is_true(rungs(a).direct.ok)
    assert.is_string(rungs(a).reverse.skipped)
  end))

  it("meet by reverse when only that is asked for", run(function()
    local a <close> = two:node "a"
    local b <close> = two:node "b"
    local pipe <close> = assert(a:connect(b:address(), { strategies = { "reverse" } }))
    local arrived <close> = b:accept()()
    assert.equal("reverse", pipe.strategy)
    assert.equal("reverse", arrived.strategy)
    assert.equal(a:id(), arrived.peer)
    assert(arrived:send "hello")
    assert.equal("hello", pipe:recv(5))
  end))

  it("meet by reverse when direct fails, at once", run(function()
    local a <close> = two:node "a"
    local b <close> = two:node "b"
    local wrong_port = b:address():gsub("(127%.0%.0%.1,127%.0%.0%.1,)%d+", "%11")
    local pipe <close> = assert(a:connect(wrong_port))
    assert.equal("reverse", pipe.strategy)
    assert.equal("ECONNREFUSED", rungs(a).direct.code)
    assert.is_true(rungs(a).reverse.ok)
    local arrived <close> = b:accept()()
    assert.equal("reverse", arrived.strategy)
  end))

  it("hand out one pipe of several that opened; the other is closed at both ends", run(function()
    local a <close> = two:node "a"
    local b <close> = two:node "b"
    for _ = 1, 3 do
      local pipe <close> = assert(a:connect(b:address(), { pipeline = p2pd.pipeline.race { "direct", "reverse" } }))
      assert(pipe:send "x")
      local arrived <close> = b:accept()()
      assert.equal("x", arrived:recv(5))
      assert.equal(pipe.strategy, arrived.strategy)
    end
    p2pd.sleep(0.2)
    assert.equal(0, #b.arrived)
  end))

  it("carry many pipes at a time", run(function()
    local a <close> = two:node "a"
    local b <close> = two:node "b"
    echo(b)
    local group <close> = p2pd.group()
    local tasks = {}
    for i = 1, 30 do
      tasks[i] = group:spawn(function()
        local pipe <close> = assert(a:connect(b:address()))
        assert(pipe:send("line " .. i .. "\n"))
        return pipe:lines()()
      end)
    end
    for i, task in ipairs(tasks) do assert.equal("line " .. i, (task:wait(10))) end
  end))

  it("refuse a peer with another key, and say so", run(function()
    local a <close> = two:node "a"
    local b <close> = two:node "b"
    local c <close> = two:node "c"
    local address = b:address():gsub(b:id(), c:id(), 1)
    local pipe, message, code = a:connect(address, { strategies = { "direct" } })
    assert.is_nil(pipe)
    assert.equal("EPEER", code)
    assert.matches(b:id(), message, 1, true)
    p2pd.sleep(0.05)
    assert.equal(0, #b.arrived)
  end))

  it("ask allow() before a pipe is handed out and before a packet leaves", run(function()
    local asked = {}
    local b <close> = two:node("b", { allow = function(peer)
      asked[#asked + 1] = peer
      return false
    end })
    local a <close> = two:node "a"
    local pipe = a:connect(b:address(), { strategies = { "direct" } })
    if pipe then
      local data, _, code = pipe:recv(5)
      assert.is_nil(data)
      assert.equal("EDENIED", code)
      pipe:close()
    end
    assert.equal("ETIMEDOUT", select(3, a:connect(b:address(), { strategies = { "reverse" }, timeout = 0.3 })))
    assert.same({ a:id(), a:id() }, asked)
    assert.equal(0, #b.arrived)
  end))

  it("are not made to dial by one peer more than three times a minute", run(function()
    local a <close> = two:node "a"
    local b <close> = two:node "b"
    for _ = 1, 3 do
      local _ <close> = assert(a:connect(b:address(), { strategies = { "reverse" } }))
      local _ <close> = b:accept()()
    end
    local pipe, _, code = a:connect(b:address(), { strategies = { "reverse" }, timeout = 1 })
    assert.is_nil(pipe)
    assert.equal("EAGAIN", code)
  end))

  it("meet by reverse though their clocks differ by an hour", run(function()
    local a <close> = two:node "a"
    local b <close> = two:node "b"
    a.signal:set_clock_offset(3600)
    local pipe <close> = assert(a:connect(b:address(), { strategies = { "reverse" }, timeout = 5 }))
    local _ <close> = b:accept()()
    assert.equal("reverse", pipe.strategy)
  end))

  it("keep the same address when they start again, and say when they cannot", run(function()
    local address
    do
      local b <close> = two:node "b"
      address = b:address()
    end
    local b <close>, notices = two:node "b"
    assert.equal(address, b:address())
    assert.same({}, notices)
    local other <close>, others = two:node("b", { listen = false })
    assert.not_equal(address, other:address())
    assert.same({}, others)
  end))

  it("do not listen twice with one key", run(function()
    local _ <close> = two:node "b"
    local second, message, code = two:node "b"
    assert.is_nil(second)
    assert.equal("EBUSY", code)
    assert.matches("^EBUSY: ", message)
  end))

  it("tell why an address cannot be connected to", run(function()
    local a <close> = two:node "a"
    local function code_of(address) return (select(3, a:connect(address))) end
    assert.equal("EINVAL", code_of "0-0-0-x")
    assert.equal("EINVAL", code_of(a:address()))
    assert.equal("ENOTSUP", code_of "alice")
    assert.equal("ENOTSUP", code_of "0,1-[1,0,8.8.8.8,192.168.21.21,58959,3,2,0]-0-zmUGXPOFxUBuToh-easdasd")
    assert.has_error(function() a:connect(7) end, "an address is expected, not a number")
    assert.has_error(function() a:connect("x", { stratagems = {} }) end, "unknown option 'stratagems'")
  end))

  it("work without any broker, by direct alone", run(function()
    local none = { settings = { mqtt = {}, stun = {}, ntp = {} } }
    local a <close> = two:node("a", none)
    local b <close> = two:node("b", none)
    assert.matches("^None%-", b:address())
    local pipe <close> = assert(a:connect(b:address()))
    assert.equal("direct", pipe.strategy)
    local _ <close> = b:accept()()
    assert.is_nil((a:connect(b:address(), { strategies = { "reverse" } })))
    assert.matches("names no broker", rungs(a).reverse.skipped)
  end))

  it("lose nothing to dead brokers beside the living", run(function()
    local settings = two:settings()
    table.insert(settings.mqtt, 1, { host = "127.0.0.1", port = 1 })
    table.insert(settings.mqtt, { host = "does-not-resolve.invalid", port = 1883 })
    local a <close> = two:node("a", { settings = settings })
    local b <close> = two:node("b", { settings = settings })
    local pipe <close> = assert(a:connect(b:address(), { strategies = { "reverse" } }))
    local _ <close> = b:accept()()
    assert.equal("reverse", pipe.strategy)
  end))

  it("are of no use once closed", run(function()
    local a = two:node "a"
    local text = tostring(a)
    assert.matches("^node %w+ %(port %d+%)$", text)
    a:close()
    a:close()
    assert.equal("ECLOSED", select(3, a:connect "x"))
    assert.is_nil(a:accept()())
    assert.matches("%(closed%)$", tostring(a))
  end))

  it("wait in accept() until they are closed", run(function()
    local a = two:node "a"
    local waiting = p2pd.spawn(function() return a:accept()() == nil end)
    p2pd.sleep(0.05)
    a:close()
    assert.is_true(waiting:wait(5))
  end))
end)
