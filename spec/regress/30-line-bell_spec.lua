-- readline rings the bell by standard error, of which each output was shown as a line of its own above the line that is
-- typed: a key that has nothing to do left an empty line behind.
local prompts = require "spec.support.prompt"

describe("a key that has nothing to do", function()
  it("rings, and leaves the screen as it is", function()
    local it <close> = prompts.start()
    local before = it:lines()
    it:type "\127\27[C"
    it.child:expect "\a"
    it.child:expect "\a"
    it:type "1"
    it:ends "p2pd> 1"
    before[#before] = "p2pd> 1"
    assert.are.same(before, it:lines())
  end)
end)
