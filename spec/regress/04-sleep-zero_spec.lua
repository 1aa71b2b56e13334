-- A task that slept for no time, again and again, kept the loop from its sockets: each sleep was a timer of no time,
-- started by a timer, and such ones came before anything else.
local luv = require "luv"
local run = require "spec.support.run"
local task = require "p2pd.task"

describe("sleep(0)", function()
  it("lets the loop look at its sockets", run(function()
    local ends = assert(luv.socketpair("stream", nil, { nonblock = true }, { nonblock = true }))
    local near, far = luv.new_pipe(false), luv.new_pipe(false)
    near:open(ends[1])
    far:open(ends[2])
    local arrived
    far:read_start(function(_, data) arrived = data end)
    near:write "it comes"
    local deadline = task.now() + 2
    while not arrived and task.now() < deadline do task.sleep(0) end
    near:close()
    far:close()
    assert.equal("it comes", arrived)
  end))

  it("takes turns with other tasks, and with sleepers that are due", run(function()
    local turns, slept = 0, false
    local other = task.spawn(function()
      task.sleep(0.02)
      slept = true
    end)
    local deadline = task.now() + 2
    while not slept and task.now() < deadline do
      task.sleep(0)
      turns = turns + 1
    end
    assert.is_true(slept)
    assert.is_true(turns > 1)
    other:wait()
  end))
end)
