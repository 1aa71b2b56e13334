-- coturn: the real STUN and TURN server for a test, on a free loopback port, in a folder of its own that ends with it.
-- To be started and stopped outside of tasks (in setup and teardown): it turns the loop while it waits.
local luv = require "luv"
local mosquitto = require "spec.support.mosquitto"
local ports = require "spec.support.ports"
local processes = require "spec.support.processes"

local M = {}

local PATIENCE_NS = 5e9

local server = {}
server.__index = server

-- Whether it takes TCP connections: later than datagrams, when it relays.
local function await_connection(port)
  local outcome, socket
  local deadline = luv.hrtime() + PATIENCE_NS
  repeat
    socket, outcome = luv.new_tcp(), nil
    socket:connect("127.0.0.1", port, function(failure) outcome = failure or "open" end)
    while not outcome and luv.hrtime() < deadline do luv.run "once" end
    socket:close()
    luv.run "nowait"
  until outcome == "open" or luv.hrtime() > deadline
  return outcome == "open"
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

-- What a relay needs beside: users, ports, and peers on loopback, which it would not relay to otherwise.
local function relaying(self, options)
  local args = {
    "--lt-cred-mech", "--user=lab:lab", "--realm=lab", "--allow-loopback-peers", "--min-port=30000", "--max-port=32767",
    "--relay-threads=0",
  }
  self.user, self.password = "lab", "lab"
  if options.names then
    local files = mosquitto.certify(self.folder, options.names)
    self.ca, self.tls_port = files.ca, ports.free()
    table.move({
      "--tls-listening-port=" .. self.tls_port, "--cert=" .. files.certificate, "--pkey=" .. files.key,
    }, 1, 3, #args + 1, args)
  else
    args[#args + 1] = "--no-tls"
  end
  return table.move(options.args or {}, 1, #(options.args or {}), #args + 1, args)
end

--- Starts a server that answers STUN alone; with `turn`, one that relays too, for the user and password that it then
--- has; with `names` (as of mosquitto's) by TLS as well.
---@param options? {turn: boolean?, names: string?, args: string[]?}
---@return table server host, port, tls_port, ca, user, password; server:stop()
function M.start(options)
  options = options or {}
  local folder = assert(luv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/p2pd-coturn-XXXXXX"))
  local port = ports.free()
  local self = setmetatable({ host = "127.0.0.1", port = port, folder = folder }, server)
  local program = assert(processes.which "turnserver", "turnserver is not installed")
  local args = {
    "-n", "-L", "127.0.0.1", "-p", tostring(port), "--no-dtls", "--no-cli", "--log-file=stdout",
    "--pidfile=" .. folder .. "/pid", "--db=" .. folder .. "/db",
  }
  local more = options.turn and relaying(self, options) or { "--stun-only", "--no-tls" }
  self.process = luv.spawn(program, { args = table.move(more, 1, #more, #args + 1, args) }, function()
    self.ended = true
  end)
  assert(self.process, "turnserver does not start")
  self.process:unref()
  if not await_answer(port) or not await_connection(self.tls_port or port) then
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
