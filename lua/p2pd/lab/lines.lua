-- wire: JSON lines over a stream of luv's, as the parts of a lab talk to each other.
local cjson = require "cjson"
local luv = require "luv"
local task = require "p2pd.task"

local M = {}

local LONGEST = 64 * 1024 * 1024 -- bytes of one line: a whole timeline fits

local wire = {}
wire.__index = wire

-- cjson knows only floats, and makes userdata of null.
local function plain(value)
  if value == cjson.null then return nil end
  if type(value) == "number" then return math.tointeger(value) or value end
  if type(value) ~= "table" then return value end
  for key, inner in pairs(value) do value[key] = plain(inner) end
  return value
end

--- A table from JSON; nil when it is none.
function M.decode(text)
  local ok, value = pcall(cjson.decode, text)
  if ok and type(value) == "table" then return plain(value) end
end

M.encode = cjson.encode

local function on_read(self, failure, data)
  self.text = self.text .. (data or "")
  if #self.text > LONGEST then failure = "the line is too long" end
  local taken = 1
  for line, next_line in self.text:gmatch "([^\n]*)\n()" do
    self.lines[#self.lines + 1] = line
    taken = next_line
  end
  self.text = self.text:sub(taken)
  if not data or failure then self:close() end
  self.changed:signal()
end

--- Takes a stream over, both its directions, or, with `output`, reads from one and writes to the other.
---@param stream userdata
---@param output? userdata
function M.wrap(stream, output)
  local self = setmetatable({
    stream = stream, output = output or stream, lines = {}, text = "", ended = false, changed = task.condition(),
  }, wire)
  stream:read_start(function(failure, data) on_read(self, failure, data) end)
  return self
end

--- Connects to a Unix socket.
---@return table? wire, string? message, string? code
function M.connect(path)
  local stream, changed, failure = luv.new_pipe(false), task.condition(), nil
  local ok, message, code = stream:connect(path, function(why)
    failure = why or false
    changed:signal()
  end)
  while ok and failure == nil do changed:wait() end
  if ok and not failure then return M.wrap(stream) end
  stream:close()
  return nil, message or "ECONNREFUSED: nobody answers at " .. path, code or "ECONNREFUSED"
end

--- Sends a table; whoever has gone does not hear it.
function wire:send(value)
  self:write(cjson.encode(value))
end

--- Sends a line that is no table.
function wire:write(line)
  if not self.ended then self.output:write(line .. "\n") end
end

--- The next line as it is: nil, message, "EOF" at the end, "ETIMEDOUT" when it takes longer.
---@param timeout? number seconds
function wire:line(timeout)
  local deadline = timeout and task.now() + timeout
  while #self.lines == 0 do
    if self.ended then return nil, "EOF: the other side has gone", "EOF" end
    local ok, message, code = self.changed:wait(deadline and math.max(0, deadline - task.now()))
    if not ok then return nil, message, code end
  end
  return table.remove(self.lines, 1)
end

--- The next table; lines that are none are passed over.
---@param timeout? number seconds
function wire:recv(timeout)
  local deadline = timeout and task.now() + timeout
  while true do
    local line, message, code = self:line(deadline and math.max(0, deadline - task.now()))
    if not line then return nil, message, code end
    local value = M.decode(line)
    if value then return value end
  end
end

--- Sends a table and gives the next one that comes: one question at a time.
function wire:ask(value, timeout)
  while self.asking do self.changed:wait() end
  self.asking = true
  local _ <close> = setmetatable({}, { __close = function()
    self.asking = false
    self.changed:signal()
  end })
  self:send(value)
  return self:recv(timeout)
end

function wire:close()
  self.ended = true
  for _, stream in ipairs { self.stream, self.output } do
    if not stream:is_closing() then stream:close() end
  end
  self.changed:signal()
end

wire.__close = wire.close

return M
