-- child: the processes of a lab, as its keeper starts them: what they say goes into files of their own.
local luv = require "luv"
local process = require "p2pd.process"
local task = require "p2pd.task"
local files = require "p2pd.lab.files"
local lines = require "p2pd.lab.lines"

local M = {}

local child = {}
child.__index = child

--- Starts a process. With `talks` its standard input and output are `child.lines`; `log` gets the rest.
---@param options {[integer]: string, name: string, log: string, cwd: string?, talks: boolean?}
---@return table? child, string? message, string? code
function M.start(options)
  local log, message, code = files.open_log(options.log)
  if not log then return nil, message, code end
  local all = table.move(options, 1, #options, 1, {
    cwd = options.cwd, input = options.talks, output = options.talks and "stream" or log, errors = log,
  })
  local running
  running, message, code = process.start(all)
  luv.fs_close(log)
  if not running then return nil, message, code end
  return setmetatable({
    name = options.name, log = options.log, process = running, pid = running.pid,
    lines = options.talks and lines.wrap(running.output, running.input) or nil,
  }, child)
end

function child:runs()
  return not self.process.status
end

--- What to say of a process that has ended, or does not do what it is for.
function child:failure(what)
  local said = files.last_words(self.log) or "it says nothing"
  return ("EIO: %s %s: %s"):format(self.name, what or "has ended", said), "EIO"
end

--- Runs a function that waits for something which the process does: its end, too, ends that waiting.
---@param seconds number that the function takes at most
---@return any ... what the function returns; nil when the process has ended
function child:while_it_runs(seconds, f)
  local results
  task.race {
    function()
      results = table.pack(f())
      return results[1]
    end,
    function() return self.process:wait(seconds) end,
  }
  if results then return table.unpack(results, 1, results.n) end
end

--- Waits for a line of a process that talks, which has to be this one.
---@return boolean? ok, string? message, string? code
function child:await(expected, seconds)
  local line, _, code = self.lines:line(seconds)
  if line == expected then return true end
  if line then return nil, ("EIO: %s says '%s'"):format(self.name, line), "EIO" end
  return nil, self:failure(code == "ETIMEDOUT" and "does not get ready" or "has ended")
end

--- Asks a process that talks.
---@return table? answer, string? message, string? code
function child:ask(question, seconds)
  local answer, _, code = self.lines:ask(question, seconds)
  if answer then return answer end
  return nil, self:failure(code == "ETIMEDOUT" and "does not answer" or "has ended")
end

--- Ends it at once.
function child:kill()
  self.process:kill()
end

--- Runs a process to its end.
---@return boolean? ok, string? message, string? code
function M.run(options)
  local self, message, code = M.start(options)
  if not self then return nil, message, code end
  self.process:wait()
  if self.process:exit_status() == 0 then return true end
  return nil, self:failure "failed"
end

return M
