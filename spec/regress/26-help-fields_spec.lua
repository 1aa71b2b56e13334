-- What lua/meta says of a field in a second line, :help said of the class: the field's words ended in the middle.
local help = require "p2pd.repl.help"

local function plain(_, text) return text end

describe(":help of a class", function()
  it("has all that is said of a field at the field", function()
    local text = assert(help.about("p2pd.ClockServer", plain, 100))
    assert(text:find("\n  code%?[^\n]*ECANCELED: the others agreed sooner\n?"), text)
    assert(text:find "^class p2pd.ClockServer\n\nfields\n", text)
  end)

  it("has the names of results, and of what a class extends", function()
    assert(help.about("node:connect", plain, 100):find "\n  pipe%s+p2pd.Pipe%?")
    assert(help.about("p2pd.Broker", plain, 100):find "^class p2pd.Broker: p2pd.Server\n")
  end)
end)
