local luv = require "luv"
local run = require "spec.support.run"
local task = require "p2pd.task"

local MANY = 20000

describe("the runtime", function()
  it("gives a task more arguments, and takes more results, than a fresh stack holds", run(function()
    local list = {}
    for i = 1, MANY do list[i] = i end
    local one = task.spawn(function(...) return ... end, table.unpack(list))
    for _ = 1, 3 do -- each time they are copied from the task's own stack
      assert.equal(MANY, select("#", one:wait()))
      assert.equal(MANY, (select(MANY, one:wait())))
    end
  end))

  it("lets a coroutine outlive the cancelled task that made it", run(function()
    local outlives
    local maker = task.spawn(function()
      pcall(task.sleep, 10)
      outlives = coroutine.wrap(function()
        while true do coroutine.yield((pcall(type, 1))) end
      end)
    end)
    task.sleep(0)
    maker:cancel()
    maker:wait()
    local seen
    local timer = luv.new_timer()
    timer:start(0, 0, function() -- outside of any task
      seen = outlives()
      timer:close()
    end)
    task.sleep(0.05)
    assert.is_true(seen)
  end))

  it("does not stop the loop's next turn when a task ends before it", function()
    local fired = false
    local timer = luv.new_timer()
    timer:start(1, 0, function()
      fired = true
      timer:close()
    end)
    task.run(function() end)
    luv.run()
    assert.is_true(fired)
  end)
end)
