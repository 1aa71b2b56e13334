local core = require "p2pd.core"
local ends = require "spec.support.ends"
local luv = require "luv"
local run = require "spec.support.run"
local task = require "p2pd.task"

local ATTEMPT = ("a"):rep(16)
local TOKEN = ("t"):rep(16)

describe("listener", function()
  local both, alice, bob

  setup(function()
    both = ends.new()
    alice, bob = both.alice, both.bob
  end)
  teardown(function() both:close() end)

  local function listen() return both:listen() end

  local function dial(listener, options)
    options = options or {}
    options.identity, options.ip, options.port = alice, "127.0.0.1", listener.port
    options.timeout = options.timeout or 5
    return core.pipe.dial(options)
  end

  it("gives out a pipe once its peer has committed", run(function()
    local listener <close> = listen()
    local pipe <close> = assert(dial(listener, { expect = bob:id() }))
    assert.equal("ETIMEDOUT", (select(3, listener:accept(0.05))))
    assert(pipe:commit(ATTEMPT))
    local accepted <close> = assert(listener:accept(5))
    assert.equal(alice:id(), accepted.peer)
    assert.equal(bob:id(), pipe.peer)
  end))

  it("says when the port is taken", run(function()
    local listener <close> = listen()
    local _, message, code = core.listener.new { identity = alice, ip = "127.0.0.1", port = listener.port }
    assert.equal("EADDRINUSE", code)
    assert.truthy(message:find(tostring(listener.port), 1, true))
  end))

  it("takes in a peer that it asked to come", run(function()
    local listener <close> = listen()
    local arrival <close> = assert(listener:expect(TOKEN, alice:id()))
    local dialing = task.spawn(function()
      local pipe <close> = assert(dial(listener, { role = "server", token = TOKEN, expect = bob:id() }))
      assert(pipe:send "here I am")
      assert.equal("EOF", (select(3, pipe:recv(5))))
    end)
    local pipe <close> = assert(arrival:wait(5))
    assert.equal(alice:id(), pipe.peer)
    assert(pipe:commit(ATTEMPT))
    assert.equal("here I am", pipe:recv(5))
    pipe:close()
    dialing:wait()
    assert.equal("ETIMEDOUT", (select(3, listener:accept(0.05)))) -- it never comes out of accept
  end))

  it("closes what shows an unknown token", run(function()
    local listener <close> = listen()
    local pipe, _, code = dial(listener, { role = "server", token = TOKEN, expect = bob:id() })
    assert.is_nil(pipe)
    assert.equal("ECONNRESET", code)
    assert.equal(1, listener:stats().unexpected)
  end))

  it("closes what is no peer", run(function()
    local listener <close> = listen()
    local ended = task.channel(1)
    local socket = luv.new_tcp()
    socket:connect("127.0.0.1", listener.port, function()
      socket:read_start(function(failure, data) if failure or not data then ended:send(true, 0) end end)
      socket:write("GET / HTTP/1.1\r\n\r\n")
    end)
    assert.is_true(ended:recv(5))
    socket:close()
    assert.equal(1, listener:stats().failed)
  end))

  it("wakes who waits when it is closed, and closes twice", run(function()
    local listener = listen()
    local waiting = task.spawn(function() return listener:accept() end)
    task.sleep(0.01)
    listener:close()
    listener:close()
    assert.equal("ECLOSED", (select(3, waiting:wait())))
    assert.equal("ECLOSED", (select(3, listener:accept())))
    assert.equal("ECLOSED", (select(3, listener:expect(TOKEN, alice:id()))))
  end))

  it("can be waited for again after a cancelled wait", run(function()
    local listener <close> = listen()
    local waiting = task.spawn(function() return listener:accept() end)
    task.sleep(0.01)
    waiting:cancel()
    pcall(waiting.wait, waiting)
    local pipe <close> = assert(dial(listener))
    assert(pipe:commit(ATTEMPT))
    local accepted <close> = assert(listener:accept(5))
    assert.equal(alice:id(), accepted.peer)
  end))
end)
