-- mapping: a program that has a port mapped and tells of it, for hosts of labs and of other networks.
local cjson = require "cjson"

local M = {}

local HOLD = [[
local cjson, p2pd = require "cjson", require "p2pd"
local options, seconds = cjson.decode(%q), %f
for key, value in pairs(options) do options[key] = math.tointeger(value) or value end
local began = p2pd.now()
local mapping <close>, message, code = require "p2pd.portmap".open(options)
local function show()
  local told = { message = message, code = code, seconds = p2pd.now() - began }
  for _, key in ipairs { "external_ip", "external_port", "method", "lifetime", "verified", "reason", "router",
    "location", "name", "renewals", "lost" } do
    if mapping then told[key] = mapping[key] end
  end
  told.peak_kb = tonumber(io.open "/proc/self/status":read "a":match "VmHWM:%%s*(%%d+)")
  print(cjson.encode(told))
  io.stdout:flush()
end
show()
if mapping and seconds > 0 then
  p2pd.sleep(seconds)
  show()
end
]]

--- A script that opens a mapping, prints it as JSON, keeps it for so many seconds, and prints it again.
---@param options table as p2pd.portmap.open takes them
---@param seconds number
---@return string
function M.script(options, seconds)
  return HOLD:format(cjson.encode(options), seconds)
end

return M
