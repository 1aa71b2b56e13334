-- ends: two identities, and pipes between them on loopback, for specs of pipes.
local core = require "p2pd.core"
local processes = require "spec.support.processes"

local M = { ATTEMPT = ("a"):rep(16) }

local ends = {}
ends.__index = ends

--- In a folder of their own; to be made in setup and closed in teardown.
---@return {alice: userdata, bob: userdata, folder: string}
function M.new()
  local folder = processes.new_folder()
  return setmetatable({
    folder = folder, alice = assert(core.identity.open { path = folder .. "/alice.pem" }),
    bob = assert(core.identity.open { path = folder .. "/bob.pem" }),
  }, ends)
end

function ends:close()
  self.alice:close()
  self.bob:close()
  processes.remove(self.folder)
end

--- A listener of bob's.
function ends:listen()
  return assert(core.listener.new { identity = self.bob, ip = "127.0.0.1", port = 0 })
end

--- A pipe of alice's to it, committed.
function ends:dial(listener)
  local near = assert(core.pipe.dial {
    identity = self.alice, ip = "127.0.0.1", port = listener.port, expect = self.bob:id(), timeout = 5,
  })
  assert(near:commit(M.ATTEMPT))
  return near
end

--- Both ends of a pipe: alice's, bob's.
function ends:open()
  local listener <close> = self:listen()
  local near = self:dial(listener)
  return near, assert(listener:accept(5))
end

return M
