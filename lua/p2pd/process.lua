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
    stdio = { self.input, self.outputs[1] or 1, self.outputs[2] or 2 },
  }, function(status, signal)
    self.status, self.signal = status, signal
    self.handle:close()
    self.changed:signal()
  end)
  self.handle, self.pid = handle, message
  return handle, message, code
end

--- Starts a program: `local child <close> = assert(process.start { "mosquitto", "-c", path })`.
--- Its output comes by `child:lines()`; with `output = "inherit"` it goes where ours goes. With `input` it reads what
--- `child:write()` sends; else nothing. `signal(pid, name)` is how it is told to end, where that is not kill(2).
---@param options {[integer]: string, output: "lines"|"inherit"|nil, input: boolean?, env: string[]?, signal: function?}
---@return table? child, string? message, string? code
function M.start(options)
  local self = setmetatable({
    name = options[1]:match "[^/]+$", lines_read = {}, open = 0, outputs = {}, changed = task.condition(),
    signal_by = options.signal or luv.kill,
  }, process)
  if options.input then self.input = luv.new_pipe(false) end
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

--- Sends it input.
function process:write(data)
  self.input:write(data)
end

--- No more input comes.
function process:finish_input()
  if self.input and not self.input:is_closing() then
    self.input:shutdown(function() if not self.input:is_closing() then self.input:close() end end)
  end
end

--- Waits for its end.
---@param timeout? number seconds
---@return integer? status, integer|string signal_or_message, string? code
function process:wait(timeout)
  local deadline = timeout and task.now() + timeout
  while not self.status do
    local ok, message, code = self.changed:wait(deadline and math.max(0, deadline - task.now()))
    if not ok then return nil, message, code end
  end
  return self.status, self.signal
end

--- Ends it, by force if it does not go, and waits for that.
function process:close()
  if self.handle and not self.status and not self.closing then
    self.closing = true
    self.signal_by(self.pid, "sigterm")
    local deadline = task.now() + GRACE
    while not self.status and task.now() < deadline do self.changed:wait(deadline - task.now()) end
    if not self.status then self.signal_by(self.pid, "sigkill") end
    while not self.status do self.changed:wait() end
  end
  for _, output in ipairs(self.outputs) do
    if not output:is_closing() then output:close() end
  end
  if self.input and not self.input:is_closing() then self.input:close() end
end

process.__close = process.close

return M
