-- mosquitto: the real broker for a test, on free loopback ports, with a configuration of its own that ends with it.
-- To be started and stopped outside of tasks (in setup and teardown): it turns the loop while it waits.
local luv = require "luv"
local ports = require "spec.support.ports"
local processes = require "spec.support.processes"

local M = {}

local PATIENCE_NS = 5e9

local broker = {}
broker.__index = broker

local function shell(command)
  assert(os.execute(command .. " >/dev/null 2>&1"), command)
end

--- A throwaway authority, and a certificate of it for these names, as in "DNS:broker.test,IP:127.0.0.1".
---@return {ca: string, certificate: string, key: string}
function M.certify(folder, names)
  local files = { ca = folder .. "/ca.pem", certificate = folder .. "/server.pem", key = folder .. "/server.key" }
  local new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test "
  shell(("%s -keyout %s/ca.key -out %s"):format(new, folder, files.ca))
  shell(("%s -CA %s -CAkey %s/ca.key -addext subjectAltName=%s -addext basicConstraints=CA:FALSE -keyout %s -out %s")
    :format(new, files.ca, folder, names, files.key, files.certificate))
  return files
end

-- Turns the loop until the function returns a value, or throws.
local function await(what, f)
  local deadline = luv.hrtime() + PATIENCE_NS
  while true do
    local value = f()
    if value then return value end
    if luv.hrtime() > deadline then error("mosquitto: " .. what, 0) end
    luv.run("nowait")
    luv.sleep(2)
  end
end

local function connects(port)
  local answer
  local socket = luv.new_tcp()
  socket:connect("127.0.0.1", port, function(failure) answer = failure or "open" end)
  await("no answer from its port", function() return answer end)
  socket:close()
  luv.run("nowait")
  return answer == "open"
end

--- Starts a broker. With `names` it has a TLS port too, with a certificate for them.
---@param options? {names: string?, port: integer?, config: string?}
---@return table broker host, port, tls_port, ca, folder; broker:stop()
function M.start(options)
  options = options or {}
  local self = setmetatable({ host = "127.0.0.1", port = options.port or ports.free() }, broker)
  self.folder = assert(luv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/p2pd-mosquitto-XXXXXX"))
  local lines = {
    "user " .. (luv.os_get_passwd().username or "nobody"), -- as root it would become another, who may not read the key
    "listener " .. self.port .. " 127.0.0.1", "allow_anonymous true", "persistence false", options.config or "",
  }
  if options.names then
    local files = M.certify(self.folder, options.names)
    self.ca, self.tls_port = files.ca, ports.free()
    lines[#lines + 1] = ("listener %d 127.0.0.1\nallow_anonymous true\ncertfile %s\nkeyfile %s")
      :format(self.tls_port, files.certificate, files.key)
  end
  local config = self.folder .. "/mosquitto.conf"
  processes.write(config, table.concat(lines, "\n") .. "\n")
  self.log = self.folder .. "/log"
  local log = assert(luv.fs_open(self.log, "w", 384))
  local program = assert(processes.which "mosquitto", "mosquitto is not installed")
  self.handle, self.pid = luv.spawn(program, { args = { "-c", config }, stdio = { nil, log, log } }, function(status)
    self.status = status
  end)
  luv.fs_close(log)
  assert(self.handle, self.pid)
  self.handle:unref()
  await("it does not listen: " .. self.log, function()
    if self.status then error(processes.read(self.log), 0) end
    return connects(self.port)
  end)
  return self
end

--- Ends it and removes its folder; once more does nothing.
function broker:stop()
  if not self.handle then return end
  self.handle:ref()
  self.handle:kill "sigterm"
  await("it does not end", function() return self.status end)
  self.handle:close()
  self.handle = nil
  luv.run("nowait")
  processes.remove(self.folder)
end

return M
