-- pair: nodes for specs, on loopback with keys of their own, and the broker that they share.
local luv = require "luv"
local p2pd = require "p2pd"
local mosquitto = require "spec.support.mosquitto"
local processes = require "spec.support.processes"

local M = {}

local pair = {}
pair.__index = pair

--- A broker and a folder for keys; to be made in setup and closed in teardown, outside of tasks.
function M.new()
  return setmetatable({
    broker = mosquitto.start(), folder = assert(luv.fs_mkdtemp "/tmp/p2pd-pair-XXXXXX"),
  }, pair)
end

function pair:close()
  self.broker:stop()
  processes.remove(self.folder)
end

--- Settings that name the broker alone.
function pair:settings()
  return { mqtt = { { host = self.broker.host, port = self.broker.port } }, stun = {}, ntp = {} }
end

--- A node on loopback, with the key of this name; and the list of what it has to say to its user.
---@param name string
---@param options? table
function pair:node(name, options)
  local notices = {}
  local all = {
    settings = self:settings(), key = ("%s/%s.pem"):format(self.folder, name), bind = "127.0.0.1",
    on_notice = function(text) notices[#notices + 1] = text end,
  }
  for key, value in pairs(options or {}) do all[key] = value end
  local node, message, code = p2pd.node(all)
  if not node then return nil, message, code end
  return node, notices
end

--- The settings as a file, for programs.
function pair:settings_file()
  local path = self.folder .. "/settings.lua"
  processes.write(path, ("return { mqtt = {{ host = %q, port = %d }}, stun = {}, ntp = {} }\n")
    :format(self.broker.host, self.broker.port))
  luv.fs_chmod(path, 384)
  return path
end

return M
