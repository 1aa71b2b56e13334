-- What a program printed while one who is attached waited for names was shown after what it printed later.
local consoles = require "spec.support.console"
local frames = require "p2pd.repl.frames"
local program = require "spec.support.program"
local prompts = require "spec.support.prompt"

describe("output that comes with the names", function()
  it("is shown in its order", function()
    local hello = frames.greeting { pid = 1, program = 0 }
    local there <close> = consoles.fake(hello .. frames.encode("P", "p2pd> "), function(bytes, stream)
      local number = bytes:match "^....C(....)"
      if not number then return nil end
      stream:write(frames.encode("O", "one\n") .. frames.encode("C", number .. "name\n") .. frames.encode("O", "two\n"))
      return frames.encode("O", "three\n")
    end)
    local it <close> = prompts.start { command = { program.path, "attach", there.path } }
    it:prompt()
    it:type "na\t"
    for round = 1, 20 do
      it:await("its turn", function(lines)
        local printed = table.concat(lines, " "):gsub("p2pd> ", ""):gsub("name", ""):gsub("%s+", " ")
        return printed:match "detaches (.*)$" == ("one two three "):rep(round)
      end)
      it:type "\t"
    end
  end)
end)
