-- process: other programs, as tasks use them; whatever leaves their scope ends them.
local luv = require "luv"
local task = require "p2pd.task"

local M = {}

local GRACE = 2 -- seconds between SIGTERM and SIGKILL

local process = {}
process.__index = process

local function read_lines(self, output)
  local text = ""
  self.open = self.open + 1
  output:read_start(function(_, data)
    text = text .. (data or "\n")
    for line in text:gmatch "([^\n]*)\n" do
      if data or line ~= "" then self.lines_read[#self.lines_read + 1] = line end
    end
    text = text:match "[^\n]*$"
    if not data then
      output:close()
      self.open = self.open - 1
    end
    self.changed:signal()
  end)
end

local function spawn(self, options)
  local handle, message, code = luv.spawn(options[1], {
    args = table.move(options, 2, #options, 1, {}), env = options.env,
    stdio = { nil, self.outputs[1] or 1, self.outputs[2] or 2 },
  }, function(status, signal)
    self.status, self.signal = status, signal
    self.handle:close()
    self.changed:signal()
  end)
  self.handle = handle
  return handle, message, code
end

--- Starts a program: `local child <close> = assert(process.start { "mosquitto", "-c", path })`.
--- Its output comes by `child:lines()`; with `output = "inherit"` it goes where ours goes.
---@param options {[integer]: string, output: "lines"|"inherit"|nil, env: string[]?}
---@return table? child, string? message, string? code
function M.start(options)
  local self = setmetatable({
    name = options[1]:match "[^/]+$", lines_read = {}, open = 0, outputs = {}, changed = task.condition(),
  }, process)
  if options.output ~= "inherit" then self.outputs = { luv.new_pipe(false), luv.new_pipe(false) } end
  -- A signal may break into a task at any step, but not into a coroutine that it runs: no child is ever unknown.
  local _ <close> = setmetatable({}, { __close = function(_, failure) if failure then self:close() end end })
  local handle, message, code = coroutine.wrap(spawn)(self, options)
  if not handle then
    self:close()
    return nil, ("%s: cannot start %s: %s"):format(code, options[1], message), code
  end
  for _, output in ipairs(self.outputs) do read_lines(self, output) end
  return self
end

--- Yields the lines that it prints, on standard output and error alike, until it ends.
function process:lines()
  return function()
    while #self.lines_read == 0 do
      if self.open == 0 then return nil end
      self.changed:wait()
    end
    return table.remove(self.lines_read, 1)
  end
end

--- Ends it, by force if it does not go, and waits for that.
function process:close()
  if self.handle and not self.status and not self.closing then
    self.closing = true
    self.handle:kill "sigterm"
    local deadline = task.now() + GRACE
    while not self.status and task.now() < deadline do self.changed:wait(deadline - task.now()) end
    if not self.status then self.handle:kill "sigkill" end
    while not self.status do self.changed:wait() end
  end
  for _, output in ipairs(self.outputs) do
    if not output:is_closing() then output:close() end
  end
end

process.__close = process.close

return M
