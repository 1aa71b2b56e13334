-- A task of a group that was cancelled before it came to a wait could spawn another one while the group was being
-- closed: nobody cancelled that, and who left the scope waited for it.
local run = require "spec.support.run"
local task = require "p2pd.task"

describe("a group that is being closed", function()
  it("cancels what is spawned into it", run(function()
    local out, room, began = task.channel(8), task.channel(8), task.now()
    do
      local tasks <close> = task.group()
      tasks:spawn(function()
        while true do
          room:send(true)
          tasks:spawn(function()
            out:send(1)
            room:recv()
          end)
        end
      end)
      out:recv()
    end
    assert.is_true(task.now() - began < 1)
  end))
end)
