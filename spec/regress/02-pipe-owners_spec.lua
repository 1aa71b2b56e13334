local ends = require "spec.support.ends"
local luv = require "luv"
local run = require "spec.support.run"
local task = require "p2pd.task"

local TOKEN = ("t"):rep(16)

describe("who holds a pipe or a listener", function()
  local both, alice

  setup(function()
    both = ends.new()
    alice = both.alice
  end)
  teardown(function() both:close() end)

  local function listen() return both:listen() end

  local function dial(listener) return both:dial(listener) end

  local function open()
    local listener <close> = listen()
    local near = dial(listener)
    return near, assert(listener:accept(5))
  end

  it("may let go of it as soon as its send is over", run(function()
    local near, far = open()
    local _ <close> = far
    local sent = task.spawn(function(pipe)
      local ok = pipe:send(("x"):rep(8 * 1024 * 1024))
      pipe = nil -- luacheck: ignore
      for _ = 1, 3 do collectgarbage() end
      return ok
    end, near)
    near = nil -- luacheck: ignore
    task.sleep(0.05)
    while far:recv(5) do end
    assert.is_true(sent:wait(5))
  end))

  it("may close the listener and its arrivals on the pipe that it accepted", run(function()
    local listener = listen()
    local arrivals = {}
    for i = 1, 5 do arrivals[i] = assert(listener:expect(("t"):rep(15) .. i, alice:id())) end
    local near <close> = dial(listener)
    task.sleep(0.1) -- so that it waits already when it is accepted
    local far <close> = assert(listener:accept(5))
    listener:close()
    for i = 1, 5 do arrivals[i]:close() end
    assert.is_truthy(far and near)
  end))

  it("learns at an arrival that the listener was closed", run(function()
    local listener = listen()
    local arrival <close> = assert(listener:expect(TOKEN, alice:id()))
    local waiting = task.spawn(function() return arrival:wait() end)
    task.sleep(0.01)
    listener:close()
    local pipe, _, code = waiting:wait(1)
    assert.is_nil(pipe)
    assert.equal("ECLOSED", code)
  end))

  it("is not forgotten by the pipe when another reader came in between", run(function()
    local near <close>, far = open()
    local first = task.spawn(function() return far:recv(3) end)
    local second, async
    async = luv.new_async(function() -- its callback comes before the bytes', its task after them
      task.spawn(function() far.strategy = "between" end)
      second = task.spawn(function() return far:recv(3), select(3, far:recv(3)) end)
      async:close()
    end)
    task.sleep(0.05)
    async:send()
    near:send "hello"
    task.sleep(0.1)
    far:close()
    local before = task.now()
    first:wait(1)
    second:wait(1)
    assert.is_true(task.now() - before < 0.5)
    assert.same({ "done", "done" }, { first:status(), second:status() })
  end))
end)
