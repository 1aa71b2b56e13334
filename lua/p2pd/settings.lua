-- settings: which servers a node uses, from a Lua file that can do nothing but return a table.
local luv = require "luv"
local own_file = require "p2pd.own_file"
local servers = require "p2pd.servers"

local M = {}

local MAX_INSTRUCTIONS = 100000

-- What an entry of each list may hold: the type of each field, `?` when it may be missing.
local entry = { host = "string", port = "number" }
local function with(more)
  local fields = {}
  for name, kind in pairs(entry) do fields[name] = kind end
  for name, kind in pairs(more) do fields[name] = kind end
  return fields
end

local lists = {
  mqtt = with { tls = "boolean?", ca = "string?" },
  stun = entry,
  turn = with {
    transport = "string?", user = "string?", password = "string?", realm = "string?", ca = "string?",
  },
  ntp = entry,
  names = with { key = "string?" },
}

local MAX_CLOCK_ERROR = 1e9 -- seconds; more than thirty years

local function check_entry(list, place, value)
  local where = ("%s[%d]"):format(list, place)
  if type(value) ~= "table" then return nil, where .. " is no table" end
  for name in pairs(value) do
    if not lists[list][name] then return nil, ("%s has an unknown field '%s'"):format(where, tostring(name)) end
  end
  for name, kind in pairs(lists[list]) do
    local optional = kind:sub(-1) == "?"
    if not (optional and value[name] == nil) and type(value[name]) ~= kind:gsub("%?", "") then
      return nil, ("%s.%s is %s, not a %s"):format(where, name, tostring(value[name]), (kind:gsub("%?", "")))
    end
  end
  if #value.host == 0 or #value.host > 253 then return nil, where .. ".host is no host name" end
  if math.type(value.port) ~= "integer" or value.port < 1 or value.port > 65535 then
    return nil, where .. ".port is not from 1 to 65535"
  end
  return true
end

local function check_list(name, list)
  if type(list) ~= "table" then return nil, name .. " is no list" end
  for place, value in pairs(list) do
    local ok, why = check_entry(name, math.type(place) == "integer" and place or 0, value)
    if not ok then return nil, why end
  end
  return true
end

local function check_setting(name, value)
  if lists[name] then return check_list(name, value) end
  if name ~= "clock_error" then
    return nil, ("unknown setting '%s' (known: clock_error, mqtt, names, ntp, stun, turn)"):format(tostring(name))
  end
  if type(value) ~= "number" or not (math.abs(value) <= MAX_CLOCK_ERROR) then
    return nil, ("clock_error is %s, not a number of seconds"):format(tostring(value))
  end
  return true
end

--- Settings from a table: the lists that it gives replace the built-in ones.
---@param given table
---@return table? settings, string? message, string? code
function M.from(given)
  if type(given) ~= "table" then error("settings are a table", 2) end
  for name, value in pairs(given) do
    local ok, why = check_setting(name, value)
    if not ok then return nil, "EINVAL: settings: " .. why, "EINVAL" end
  end
  local settings = { clock_error = given.clock_error or 0 }
  for name in pairs(lists) do settings[name] = given[name] or servers[name] end
  return settings
end

-- The file runs in a coroutine of its own, so that the limit on its instructions touches nothing else.
local function evaluate(text, path)
  local chunk, message = load(text, "@" .. path, "t", {})
  if not chunk then return nil, message end
  local thread = coroutine.create(chunk)
  debug.sethook(thread, function() error("it runs for too long", 0) end, "", MAX_INSTRUCTIONS)
  local ok, result = coroutine.resume(thread)
  if not ok then return nil, tostring(result) end
  if coroutine.status(thread) ~= "dead" then return nil, "it yields" end
  return result
end

--- Settings from a file.
---@param path string
---@return table? settings, string? message, string? code
function M.read(path)
  local text, message, code = own_file.read(path)
  if not text then
    return nil, ("%s: settings file %s: %s"):format(code, path, (message:gsub("^%u+: ", ""))), code
  end
  local result, why = evaluate(text, path)
  if type(result) ~= "table" then
    return nil, ("EINVAL: settings file %s: %s"):format(path, why or "it does not return a table"), "EINVAL"
  end
  local settings, wrong = M.from(result)
  if not settings then return nil, ("%s (in %s)"):format(wrong, path), "EINVAL" end
  return settings
end

--- Where the user's settings lie: ~/.config/p2pd-lua/settings.lua, or below $XDG_CONFIG_HOME.
function M.default_path()
  return own_file.config "settings.lua"
end

--- Settings as an option gives them: a table, a path, or nil for the user's file if it is there.
---@param given table|string|nil
---@return table? settings, string? message, string? code
function M.load(given)
  if type(given) == "table" then return M.from(given) end
  if type(given) == "string" then return M.read(given) end
  if given ~= nil then error("settings are a table or the path of a file", 2) end
  local path = M.default_path()
  if not luv.fs_stat(path) then return M.from {} end
  return M.read(path)
end

return M
