-- child: the processes of a lab, as its keeper starts them: what they say goes into files of their own.
local luv = require "luv"
local task = require "p2pd.task"
local wire = require "p2pd.lab.wire"

local M = {}

local PRIVATE_FILE = 384 -- 0600

local child = {}
child.__index = child

-- The last line that the process wrote to its log.
local function last_words(path)
  local last
  for line in io.lines(path) do
    if line:find "%S" then last = line end
  end
  return last
end

--- Starts a process. With `talks` its standard input and output are a wire; `log` gets the rest.
---@param options {[integer]: string, name: string, log: string, cwd: string?, talks: boolean?}
---@return table? child, string? message, string? code
function M.start(options)
  local self = setmetatable({ name = options.name, log = options.log, changed = task.condition() }, child)
  local log, message, code = luv.fs_open(options.log, "a", PRIVATE_FILE)
  if not log then return nil, message, code end
  local input, output = log, log
  if options.talks then input, output = luv.new_pipe(false), luv.new_pipe(false) end
  local handle, pid, why = luv.spawn(options[1], {
    args = table.move(options, 2, #options, 1, {}), cwd = options.cwd, stdio = { options.talks and input, output, log },
  }, function(status, signal)
    self.status, self.signal = status, signal
    self.handle:close()
    self.changed:signal()
  end)
  luv.fs_close(log)
  if options.talks then self.wire = wire.wrap(output, input) end
  if not handle then
    if self.wire then self.wire:close() end
    return nil, ("%s: cannot start %s: %s"):format(why, options[1], pid), why
  end
  self.handle, self.pid = handle, pid
  return self
end

--- What to say of a process that has ended, or does not do what it is for.
function child:failure(what)
  return ("EIO: %s %s: %s"):format(self.name, what or "has ended", last_words(self.log) or "it says nothing"), "EIO"
end

--- Waits for a line of a process that talks, which has to be this one.
---@return boolean? ok, string? message, string? code
function child:await(expected, seconds)
  local line, _, code = self.wire:line(seconds)
  if line == expected then return true end
  if line then return nil, ("EIO: %s says '%s'"):format(self.name, line), "EIO" end
  return nil, self:failure(code == "ETIMEDOUT" and "does not get ready" or "has ended")
end

--- Asks a process that talks.
---@return table? answer, string? message, string? code
function child:ask(question, seconds)
  local answer, _, code = self.wire:ask(question, seconds)
  if answer then return answer end
  return nil, self:failure(code == "ETIMEDOUT" and "does not answer" or "has ended")
end

--- Waits for its end.
---@return boolean? ended
function child:wait(seconds)
  local deadline = seconds and task.now() + seconds
  while not self.status do
    if not self.changed:wait(deadline and math.max(0, deadline - task.now())) then return nil end
  end
  return true
end

--- Ends it at once.
function child:kill()
  if not self.status then self.handle:kill "sigkill" end
  while not self.status do self.changed:wait() end
end

--- Runs a process to its end.
---@return boolean? ok, string? message, string? code
function M.run(options)
  local self, message, code = M.start(options)
  if not self then return nil, message, code end
  while not self.status do self.changed:wait() end
  if self.status == 0 and self.signal == 0 then return true end
  return nil, self:failure "failed"
end

return M
