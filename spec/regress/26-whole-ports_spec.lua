-- Where luv gives the process's number and the clock as floats, the servers of specs were given ports like 23005.0.
local ports = require "spec.support.ports"

it("a free port is a whole number", function()
  for _ = 1, 3 do assert.equal("integer", math.type(ports.free())) end
end)
