-- process: other programs, as tasks use them; whatever leaves their scope ends them.
local luv = require "luv"
local split = require "p2pd.split"
local task = require "p2pd.task"

local M = {}

local GRACE = 2 -- seconds between SIGTERM and SIGKILL

local process = {}
process.__index = process

-- Outputs -------------------------------------------------------------------------------------------------------------

-- Reads an output to its end; `take` gets each chunk, and nil at the end.
local function read(self, stream, take)
  self.open = self.open + 1
  stream:read_start(function(_, chunk)
    take(chunk)
    if not chunk then
      stream:close()
      self.open = self.open - 1
    end
    self.changed:signal()
  end)
end

-- What becomes of the chunks of an output that is "lines", and of one that is "text".
local takers = {}

function takers.lines(self)
  local lines = split.new(self.read_lines)
  self.read_lines = self.read_lines or lines
  return function(chunk)
    if chunk then lines:feed(chunk) else lines:finish() end
  end
end

function takers.text(self)
  local chunks = {}
  self.texts[#self.texts + 1] = chunks
  return function(chunk) chunks[#chunks + 1] = chunk end
end

-- Starting ------------------------------------------------------------------------------------------------------------

local function new_pipe(self)
  local stream = luv.new_pipe(false)
  self.streams[#self.streams + 1] = stream
  return stream
end

local function open_output(self, kind, descriptor)
  if kind == "inherit" then return descriptor end
  if math.type(kind) then return kind end
  return new_pipe(self)
end

local function spawn(self, options, output, errors)
  local input = self.input or options.input == "inherit" and 0 or nil
  local handle, message, code = luv.spawn(options[1], {
    args = table.move(options, 2, #options, 1, {}), env = options.env, cwd = options.cwd, detached = options.session,
    stdio = { input, output, errors },
  }, function(status, signal)
    self.status, self.signal = status, signal
    self.handle:close()
    self.changed:signal()
  end)
  self.handle, self.pid = handle, message
  return handle, message, code
end

local function kill(pid, signal, has_ended)
  if not has_ended then luv.kill(pid, signal) end
end

--- Starts a program: `local child <close> = assert(process.start { "mosquitto", "-c", path })`.
---
--- `output` and `errors` (which is as `output` unless given) say what becomes of what it prints: "lines" come by
--- `child:lines()`, from both alike; "text" comes by `child:whole()`; "inherit" goes where ours goes; a number is the
--- file descriptor that it goes to; "stream" leaves `child.output` to the caller. With `input` it reads what
--- `child:write()` sends, or, "inherit", what we would; else nothing. `signal(pid, name, has_ended)` is how it is told
--- to end, where that is not kill(2). `session` gives it a session of its own; then `close` and `kill` reach what it
--- has started too, where `signal` does.
---@param options {[integer]: string, name: string?, output: string|integer|nil, errors: string|integer|nil,
---                input: boolean|string|nil, env: string[]?, cwd: string?, session: boolean?, signal: function?}
---@return table? child, string? message, string? code
function M.start(options)
  local self = setmetatable({
    name = options.name or options[1]:match "[^/]+$", open = 0, streams = {}, texts = {}, changed = task.condition(),
    session = options.session, signal_by = options.signal or kill,
  }, process)
  local kind = options.output or "lines"
  local kind_of_errors = options.errors or kind
  if options.input == true then self.input = new_pipe(self) end
  local output, errors = open_output(self, kind, 1), open_output(self, kind_of_errors, 2)
  -- A signal may break into a task at any step, but not into a coroutine that it runs: no child is ever unknown.
  local _ <close> = setmetatable({}, { __close = function(_, failure) if failure then self:close() end end })
  local handle, message, code = coroutine.wrap(spawn)(self, options, output, errors)
  if not handle then
    self:close()
    return nil, ("%s: cannot start %s: %s"):format(code, options.name or options[1], message), code
  end
  self.output = kind == "stream" and output or nil
  if takers[kind] then read(self, output, takers[kind](self)) end
  if takers[kind_of_errors] then read(self, errors, takers[kind_of_errors](self)) end
  return self
end

-- Using ---------------------------------------------------------------------------------------------------------------

--- Yields the lines that it prints, on standard output and error alike, until it ends.
function process:lines()
  return function()
    while #self.read_lines == 0 do
      if self.open == 0 then return nil end
      self.changed:wait()
    end
    return self.read_lines:pop()
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

-- Waits until the condition holds; false, message and code when that takes longer.
local function await(self, condition, timeout)
  local deadline = timeout and task.now() + timeout
  while not condition(self) do
    local ok, message, code = self.changed:wait(deadline and math.max(0, deadline - task.now()))
    if not ok then return false, message, code end
  end
  return true
end

local function has_ended(self) return self.status ~= nil end
local function is_over(self) return self.status ~= nil and self.open == 0 end

--- Waits for its end.
---@param timeout? number seconds
---@return integer? status, integer|string signal_or_message, string? code
function process:wait(timeout)
  local ok, message, code = await(self, has_ended, timeout)
  if not ok then return nil, message, code end
  return self.status, self.signal
end

--- Its exit status, as shells have it: 128 + N after signal N; nil while it runs.
function process:exit_status()
  return self.status and (self.signal ~= 0 and 128 + self.signal or self.status)
end

--- Waits until it has ended and all its outputs, too: `out` and `err` hold those that are "text".
---@param timeout? number seconds
---@return {status: integer, out: string, err: string}? result, string? message, string? code
function process:whole(timeout)
  if not await(self, is_over, timeout) then
    return nil, ("ETIMEDOUT: %s took longer than %g s"):format(self.name, timeout), "ETIMEDOUT"
  end
  local out, err = table.unpack(self.texts)
  return { status = self:exit_status(), out = table.concat(out or {}), err = table.concat(err or {}) }
end

-- Ending --------------------------------------------------------------------------------------------------------------

--- Ends it at once, and waits for that.
function process:kill()
  self.signal_by(self.pid, "sigkill", has_ended(self))
  await(self, has_ended)
end

--- Ends it, by force if it does not go, and waits for that. Of a session some may still run when the first has ended,
--- as is seen by the outputs that they hold.
function process:close()
  local enough = self.session and is_over or has_ended
  if self.handle and not self.closing and not enough(self) then
    self.closing = true
    self.signal_by(self.pid, "sigterm", has_ended(self))
    if not await(self, enough, GRACE) or self.session then self:kill() end
  end
  for _, stream in ipairs(self.streams) do
    if not stream:is_closing() then stream:close() end
  end
end

process.__close = process.close

--- Lets it run by itself: nobody waits for it any more.
function process:release()
  if not self.status then self.handle:close() end
end

return M
