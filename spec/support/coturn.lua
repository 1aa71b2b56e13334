-- coturn: the real STUN server for a test, on a free loopback port, in a folder of its own that ends with it.
-- To be started and stopped outside of tasks (in setup and teardown): it turns the loop while it waits.
local luv = require "luv"
local processes = require "spec.support.processes"

local M = {}

local PATIENCE_NS = 5e9

local server = {}
server.__index = server

local function free_port()
  local socket = luv.new_udp()
  assert(socket:bind("127.0.0.1", 0))
  local port = socket:getsockname().port
  socket:close()
  luv.run("nowait")
  return port
end

-- A Binding request (RFC 8489, 5), again and again until something comes back.
local function await_answer(port)
  local answered = false
  local socket = luv.new_udp()
  socket:recv_start(function(_, data) answered = answered or data ~= nil end)
  local request = "\0\1\0\0\x21\x12\xa4\x42" .. "is it there?"
  local deadline = luv.hrtime() + PATIENCE_NS
  while not answered do
    if luv.hrtime() > deadline then
      socket:close()
      luv.run("nowait")
      return false
    end
    socket:send(request, "127.0.0.1", port, function() end)
    luv.run("nowait")
    luv.sleep(10)
  end
  socket:close()
  luv.run("nowait")
  return true
end

--- Starts a server that answers STUN alone.
---@return table server host, port; server:stop()
function M.start()
  local folder = assert(luv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/p2pd-coturn-XXXXXX"))
  local port = free_port()
  local self = setmetatable({ host = "127.0.0.1", port = port, folder = folder }, server)
  local program = assert(processes.which "turnserver", "turnserver is not installed")
  self.process = luv.spawn(program, {
    args = {
      "-n", "--stun-only", "-L", "127.0.0.1", "-p", tostring(port), "--no-tls", "--no-dtls", "--no-cli",
      "--log-file=stdout", "--pidfile=" .. folder .. "/pid", "--db=" .. folder .. "/db",
    },
  }, function() self.ended = true end)
  assert(self.process, "turnserver does not start")
  self.process:unref()
  if not await_answer(port) then
    self:stop()
    error("coturn: no answer from its port", 0)
  end
  return self
end

--- Ends it and removes its folder; once more does nothing.
function server:stop()
  if not self.process then return end
  self.process:ref()
  if not self.ended then self.process:kill "sigkill" end
  while not self.ended do luv.run("once") end
  self.process:close()
  self.process = nil
  luv.run("nowait")
  processes.remove(self.folder)
end

return M
