-- lines: JSON lines over streams of luv's, as the parts of a lab talk to each other.
local cjson = require "cjson"
local luv = require "luv"
local split = require "p2pd.split"
local task = require "p2pd.task"

local M = {}

local LONGEST = 64 * 1024 * 1024 -- bytes of one line: a whole timeline fits

local DEEPEST = 16                -- tables within tables

local lines = {}
lines.__index = lines

-- cjson knows only floats, and makes userdata of null.
local function plain(value)
  if value == cjson.null then return nil end
  if type(value) == "number" then return math.tointeger(value) or value end
  if type(value) ~= "table" then return value end
  for key, inner in pairs(value) do value[key] = plain(inner) end
  return value
end

-- A table from JSON; nil when it is none.
local function decode(text)
  local ok, value = pcall(cjson.decode, text)
  if ok and type(value) == "table" then return plain(value) end
end

-- What of a value JSON has no words for, with its name.
local function unspeakable(name, value, depth)
  if value ~= value or value == math.huge or value == -math.huge then return name, tostring(value) end
  if type(value) == "function" or type(value) == "userdata" or type(value) == "thread" then
    return name, "a " .. type(value)
  end
  if type(value) ~= "table" then return nil end
  if depth == DEEPEST then return name, "a table with too many others in it" end
  for key, inner in pairs(value) do
    if type(key) ~= "string" and math.type(key) ~= "integer" then
      return name, ("a table with the key %s"):format(tostring(key))
    end
    local found, what = unspeakable(tostring(key), inner, depth + 1)
    if found then return found, what end
  end
end

--- Whether a table can be sent.
---@return boolean? ok, string? message, string? code
function M.can_carry(value)
  local name, what = unspeakable("it", value, 0)
  if name then return nil, ("EINVAL: '%s' is %s, which makes no sense here"):format(name, what), "EINVAL" end
  local ok, why = pcall(cjson.encode, value)
  if ok then return true end
  return nil, "EINVAL: the options make no sense: " .. tostring(why), "EINVAL"
end

local function on_read(self, failure, data)
  self.split:feed(data or "")
  if not data or failure or self.split.pending > LONGEST then self:close() end
  self.changed:signal()
end

--- Takes a stream over, both its directions, or, with `output`, reads from one and writes to the other.
---@param stream userdata
---@param output? userdata
function M.wrap(stream, output)
  local self = setmetatable({
    stream = stream, output = output or stream, split = split.new(), ended = false, asked = 0, unsent = 0,
    changed = task.condition(),
  }, lines)
  stream:read_start(function(failure, data) on_read(self, failure, data) end)
  return self
end

--- Connects to a Unix socket.
---@return table? lines, string? message, string? code
function M.connect(path)
  local stream, changed, failure = luv.new_pipe(false), task.condition(), nil
  local ok, message, code = stream:connect(path, function(why)
    failure = why or false
    changed:signal()
  end)
  while ok and failure == nil do changed:wait() end
  if ok and not failure then return M.wrap(stream) end
  stream:close()
  if ok then message, code = ("%s: nobody answers at %s"):format(failure, path), failure end
  return nil, message, code
end

--- Sends a table; whoever has gone does not hear it.
function lines:send(value)
  self:write(cjson.encode(value))
end

--- Sends a line that is no table.
function lines:write(line)
  if self.ended then return end
  local sent = self.output:write(line .. "\n", function()
    self.unsent = self.unsent - 1
    self.changed:signal()
  end)
  if sent then self.unsent = self.unsent + 1 end
end

--- Waits until all that was sent has gone out.
---@param timeout number seconds
function lines:flush(timeout)
  local deadline = task.now() + timeout
  while self.unsent > 0 and task.now() < deadline do self.changed:wait(math.max(0, deadline - task.now())) end
end

--- The next line as it is: nil, message, "EOF" at the end, "ETIMEDOUT" when it takes longer.
---@param timeout? number seconds
function lines:line(timeout)
  local deadline = timeout and task.now() + timeout
  while #self.split == 0 do
    if self.ended then return nil, "EOF: the other side has gone", "EOF" end
    local ok, message, code = self.changed:wait(deadline and math.max(0, deadline - task.now()))
    if not ok then return nil, message, code end
  end
  return self.split:pop()
end

--- The next table; lines that are none are passed over.
---@param timeout? number seconds
function lines:recv(timeout)
  local deadline = timeout and task.now() + timeout
  while true do
    local line, message, code = self:line(deadline and math.max(0, deadline - task.now()))
    if not line then return nil, message, code end
    local value = decode(line)
    if value then return value end
  end
end

--- Sends a table with a number as its `id`, and gives the answer that has the same one: one question at a time. An
--- answer to an earlier question, which nobody waits for any more, is passed over.
---@param timeout? number seconds
function lines:ask(value, timeout)
  while self.asking do self.changed:wait() end
  self.asking = true
  local _ <close> = setmetatable({}, { __close = function()
    self.asking = false
    self.changed:signal()
  end })
  local deadline = timeout and task.now() + timeout
  self.asked = self.asked + 1
  value.id = self.asked
  self:send(value)
  while true do
    local answer, message, code = self:recv(deadline and math.max(0, deadline - task.now()))
    if not answer or answer.id == value.id then return answer, message, code end
  end
end

function lines:close()
  self.ended = true
  for _, stream in ipairs { self.stream, self.output } do
    if not stream:is_closing() then stream:close() end
  end
  self.changed:signal()
end

lines.__close = lines.close

return M
