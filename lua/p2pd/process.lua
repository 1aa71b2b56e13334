-- process: other programs, as tasks use them; whatever leaves their scope ends them.
local luv = require "luv"
local task = require "p2pd.task"

local M = {}

local GRACE = 2 -- seconds between SIGTERM and SIGKILL

local process = {}
process.__index = process

--- Starts a program: `local child <close> = assert(process.start { "mosquitto", "-c", path })`.
--- Its output comes by `child:lines()`; with `output = "inherit"` it goes where ours goes.
---@param options {[integer]: string, output: "lines"|"inherit"|nil, env: string[]?}
---@return table? child, string? message, string? code
function M.start(options)
  local lines = options.output ~= "inherit"
  local self = setmetatable({
    name = options[1]:match "[^/]+$", text = "", lines_read = {}, changed = task.condition(),
    out = lines and luv.new_pipe(false) or nil,
  }, process)
  local handle, message, code = luv.spawn(options[1], {
    args = table.move(options, 2, #options, 1, {}), env = options.env,
    stdio = { nil, self.out or 1, self.out or 2 },
  }, function(status, signal)
    self.status, self.signal = status, signal
    self.handle:close()
    self.changed:signal()
  end)
  if not handle then
    if self.out then self.out:close() end
    return nil, ("%s: cannot start %s: %s"):format(code, options[1], message), code
  end
  self.handle = handle
  if self.out then
    self.out:read_start(function(_, data)
      self.text = self.text .. (data or "\n")
      self.ended = not data
      for line in self.text:gmatch "([^\n]*)\n" do self.lines_read[#self.lines_read + 1] = line end
      self.text = self.text:match "[^\n]*$"
      if self.ended then self.out:close() end
      self.changed:signal()
    end)
  end
  return self
end

--- Yields the lines that it prints, on standard output and error alike, until it ends.
function process:lines()
  return function()
    while #self.lines_read == 0 do
      if self.ended then return nil end
      self.changed:wait()
    end
    return table.remove(self.lines_read, 1)
  end
end

--- Ends it, by force if it does not go, and waits for that.
function process:close()
  if not self.status and not self.closing then
    self.closing = true
    self.handle:kill "sigterm"
    local deadline = task.now() + GRACE
    while not self.status and task.now() < deadline do self.changed:wait(deadline - task.now()) end
    if not self.status then self.handle:kill "sigkill" end
    while not self.status do self.changed:wait() end
  end
  if self.out and not self.out:is_closing() then self.out:close() end
end

process.__close = process.close

return M
