local core = require "p2pd.core"
local coturn = require "spec.support.coturn"
local luv = require "luv"
local run = require "spec.support.run"

describe("stun", function()
  local server

  setup(function() server = coturn.start() end)
  teardown(function() server:stop() end)

  it("learns an address from a real server", run(function()
    local found = assert(core.stun.lookup { ip = server.host, port = server.port, timeout = 2 })
    assert.equal("127.0.0.1", found.external_ip)
    assert.equal("127.0.0.1", found.local_ip)
    assert.equal(found.local_port, found.external_port) -- there is no NAT between
  end))

  it("asks from the port that was given", run(function()
    local first = assert(core.stun.lookup { ip = server.host, port = server.port, timeout = 2 })
    local again = assert(core.stun.lookup {
      ip = server.host, port = server.port, local_ip = "127.0.0.1", local_port = first.local_port, timeout = 2,
    })
    assert.equal(first.local_port, again.local_port)
    assert.equal(first.local_port, again.external_port)
  end))

  it("gives up in time when nobody answers", run(function()
    local silent = luv.new_udp()
    assert(silent:bind("127.0.0.1", 0))
    local start = luv.hrtime()
    local found, message, code = core.stun.lookup {
      ip = "127.0.0.1", port = silent:getsockname().port, timeout = 0.1,
    }
    silent:close()
    assert.is_nil(found)
    assert.equal("ETIMEDOUT", code)
    assert.truthy(message:find("^ETIMEDOUT: "))
    assert.is_true(luv.hrtime() - start < 1e9)
  end))

  it("throws for arguments that are wrong", run(function()
    assert.has_error(function() core.stun.lookup { ip = "nowhere", port = 1 } end)
    assert.has_error(function() core.stun.lookup { ip = "127.0.0.1", port = 70000 } end)
    assert.has_error(function() core.stun.lookup { ip = "127.0.0.1", port = 1, tiemout = 1 } end)
  end))
end)
