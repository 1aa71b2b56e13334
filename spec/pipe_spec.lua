local core = require "p2pd.core"
local ends = require "spec.support.ends"
local run = require "spec.support.run"
local session = require "p2pd.repl.session"
local task = require "p2pd.task"

local MIB = 1024 * 1024

describe("pipe", function()
  local both, alice, bob

  setup(function()
    both = ends.new()
    alice, bob = both.alice, both.bob
  end)
  teardown(function() both:close() end)

  local function open() return both:open() end

  local function code_of(_, _, code) return code end

  it("carries bytes both ways", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local bytes = "\0\n\r\255" .. ("x"):rep(1000)
    assert(near:send(bytes))
    assert.equal(bytes, far:recv(5))
    assert(far:send "back")
    assert.equal("back", near:recv(5))
  end))

  it("returns at most what was asked for", run(function()
    local near <close>, far = open()
    local _ <close> = far
    assert(near:send "abcdef")
    assert.equal("abc", far:recv(5, 3))
    assert.equal("def", far:recv(5))
  end))

  it("moves much more than the high-water mark, past a slow reader", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local block = {}
    for i = 1, 4096 do block[i] = string.pack(">I4", i * 2654435761 & 0xffffffff) end
    block = table.concat(block):rep(64) -- 1 MiB
    local sending = task.spawn(function()
      for _ = 1, 32 do assert(near:send(block)) end
      assert(near:shutdown())
    end)
    local parts, total = {}, 0
    while true do
      local data, _, code = far:recv(10)
      if not data then
        assert.equal("EOF", code)
        break
      end
      total = total + #data
      parts[#parts + 1] = data
      if total % (4 * MIB) < #data then task.sleep(0.005) end
    end
    sending:wait()
    assert.equal(32 * MIB, total)
    assert.is_true(table.concat(parts) == block:rep(32))
  end))

  it("times out, and is as good as before", run(function()
    local near <close>, far = open()
    local _ <close> = far
    assert.equal("ETIMEDOUT", code_of(far:recv(0.02)))
    assert(near:send "late")
    assert.equal("late", far:recv(5))
  end))

  it("times out in send when nobody reads", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local code
    for _ = 1, 64 do
      code = code_of(near:send(("x"):rep(MIB), 0.1))
      if code then break end
    end
    assert.equal("ETIMEDOUT", code)
  end))

  it("is half-closed by shutdown", run(function()
    local near <close>, far = open()
    local _ <close> = far
    assert(near:send "question")
    assert(near:shutdown(5))
    assert.equal("EPIPE", code_of(near:send "x"))
    assert.equal("question", far:recv(5))
    assert.equal("EOF", code_of(far:recv(5)))
    assert(far:send "answer")
    assert.equal("answer", near:recv(5))
  end))

  it("delivers what was sent before close", run(function()
    local near, far = open()
    local _ <close> = far
    local data = ("0123456789abcdef"):rep(MIB // 16)
    for _ = 1, 2 do assert(near:send(data)) end
    near:close()
    local total = 0
    while true do
      local part, _, code = far:recv(5)
      if not part then
        assert.equal("EOF", code)
        break
      end
      total = total + #part
    end
    assert.equal(2 * MIB, total)
  end))

  it("survives writing to a peer that has gone", run(function()
    local near <close>, far = open()
    assert(far:send "unread, so that closing resets the connection")
    far:close()
    local code
    for _ = 1, 10 do
      code = code_of(near:send "anybody there?")
      if code then break end
      task.sleep(0.6) -- a closed pipe goes on discarding for as long as something comes every 250 ms
    end
    assert.truthy(code == "EPIPE" or code == "ECONNRESET")
  end))

  it("closes twice, and says so afterwards", run(function()
    local near, far = open()
    local _ <close> = far
    near:close()
    near:close()
    assert.equal("ECLOSED", code_of(near:send "x"))
    assert.equal("ECLOSED", code_of(near:recv()))
    assert.equal("ECLOSED", code_of(near:shutdown()))
    assert.truthy(tostring(near):find "closed")
  end))

  it("wakes who receives when another task closes it", run(function()
    local near, far = open()
    local _ <close> = far
    local receiving = task.spawn(function() return near:recv() end)
    task.sleep(0.01)
    near:close()
    assert.equal("ECLOSED", code_of(receiving:wait()))
  end))

  it("is received from by one task at a time", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local receiving = task.spawn(function() return near:recv() end)
    task.sleep(0.01)
    assert.equal("EBUSY", code_of(near:recv(0.01)))
    assert(far:send "x")
    assert.equal("x", receiving:wait())
  end))

  it("can be used after a wait in it was cancelled", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local receiving = task.spawn(function() return near:recv() end)
    task.sleep(0.01)
    receiving:cancel()
    pcall(receiving.wait, receiving)
    assert(far:send "x")
    assert.equal("x", near:recv(5))
  end))

  it("refuses a peer with another key, and says which one answered", run(function()
    local listener <close> = assert(core.listener.new { identity = bob, ip = "127.0.0.1", port = 0 })
    local pipe, message, code = core.pipe.dial {
      identity = alice, ip = "127.0.0.1", port = listener.port, expect = alice:id(), timeout = 5,
    }
    assert.is_nil(pipe)
    assert.equal("EPEER", code)
    assert.truthy(message:find(bob:id(), 1, true))
  end))

  it("cannot be dialed where nobody listens", run(function()
    local listener = assert(core.listener.new { identity = bob, ip = "127.0.0.1", port = 0 })
    local port = listener.port
    listener:close()
    task.sleep(0.02)
    assert.equal("ECONNREFUSED", code_of(core.pipe.dial {
      identity = alice, ip = "127.0.0.1", port = port, timeout = 5,
    }))
  end))

  it("tells what it is", run(function()
    local near <close>, far = open()
    local _ <close> = far
    near.strategy = "direct"
    assert.equal("direct", near.strategy)
    assert.equal(bob:id(), near.peer)
    assert.equal(near.remote, far.local_address)
    assert.truthy(tostring(near):find("direct", 1, true))
    assert.truthy(tostring(near):find(near.remote, 1, true))
    assert.has_error(function() near.peer = "somebody else" end)
    assert.is_nil(far.strategy) -- each has its own
    local found = session.new {}
    found.env.pipe = near
    assert.same({ "recv", "recv_to", "refuse", "remote" }, found:candidates("pipe.re", "re"))
  end))

  it("throws for arguments that are wrong", run(function()
    local near <close>, far = open()
    local _ <close> = far
    assert.has_error(function() near:send {} end)
    assert.has_error(function() near:send("x", -1) end)
    assert.has_error(function() near:recv "soon" end)
    assert.has_error(function() near:commit "short" end)
    assert.has_error(function() core.pipe.dial { identity = alice, ip = "nowhere", port = 1 } end)
    assert.has_error(function() core.pipe.dial { identity = alice, ip = "127.0.0.1", port = 1, roll = "client" } end)
  end))
end)
