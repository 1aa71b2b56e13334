-- host: running programs on a host of a lab.
local luv = require "luv"
local process = require "p2pd.process"
local task = require "p2pd.task"
local enter = require "p2pd.lab.enter"

local M = {}

local host = {}
host.__index = host
host.__name = "p2pd.lab.host"

M.methods = host -- for spec/meta_spec.lua

local option_types = {
  timeout = "number", input = "string", root = "boolean", cwd = "string", env = "table",
}

local function check_command(command, level)
  if type(command) ~= "table" or type(command[1]) ~= "string" then
    error("a command is a table: { \"program\", arguments… }", level + 1)
  end
  for key, value in pairs(command) do
    local kind = option_types[key] or math.type(key) == "integer" and "string"
    if not kind then error(("unknown option '%s'"):format(tostring(key)), level + 1) end
    if type(value) ~= kind and math.type(value) ~= "integer" then
      error(("'%s' is a %s, not a %s"):format(tostring(key), type(value), kind), level + 1)
    end
  end
end

--- A host of a lab, as the keeper tells of it.
function M.new(lab, name, told)
  return setmetatable({ lab = lab, name = name, pid = told.pid, folder = told.folder, hosts = told.hosts }, host)
end

--- The words by which the command is run there.
function host:argv(command)
  local words = {}
  for i, word in ipairs(command) do words[i] = tostring(word) end
  return enter.argv {
    keeper = self.lab.identity, lab = self.lab, host = self, program = self.lab.program, command = words,
    root = command.root, cwd = command.cwd, env = command.env,
  }
end

--- Starts a program there.
function host:start(command)
  check_command(command, 2)
  local argv = self:argv(command)
  argv.input, argv.signal = true, enter.signal
  local child, message, code = process.start(argv)
  if not child then return nil, message, code end
  child.name = command[1]
  if command.input then
    child:write(command.input)
    child:finish_input()
  end
  return child
end

-- Both outputs of a process that runs, each whole.
local function collect(stream, result, name, changed)
  result.open = result.open + 1
  stream:read_start(function(_, data)
    if data then
      result[name][#result[name] + 1] = data
    else
      stream:close()
      result.open = result.open - 1
      changed:signal()
    end
  end)
end

local function spawn(self, argv, changed)
  self.input, self.output, self.errors = luv.new_pipe(false), luv.new_pipe(false), luv.new_pipe(false)
  local message, code
  self.handle, self.pid, code = luv.spawn(argv[1], {
    args = table.move(argv, 2, #argv, 1, {}), stdio = { self.input, self.output, self.errors },
  }, function(status, signal)
    self.status = signal ~= 0 and 128 + signal or status
    self.handle:close()
    changed:signal()
  end)
  if not self.handle then message = self.pid end
  return self.handle, message, code
end

-- However the call ends, so does the program, and all handles are closed.
local function finish(self)
  if self.handle and not self.status then
    enter.signal(self.pid, "sigkill")
    while not self.status do self.changed:wait() end
  end
  for _, stream in ipairs { self.input, self.output, self.errors } do
    if not stream:is_closing() then stream:close() end
  end
end

--- Runs a program there to its end.
function host:run(command)
  check_command(command, 2)
  local changed = task.condition()
  local child <close> = setmetatable({ out = {}, err = {}, open = 0, changed = changed }, { __close = finish })
  local started, message, code = coroutine.wrap(spawn)(child, self:argv(command), changed)
  if not started then return nil, ("%s: cannot start %s: %s"):format(code, command[1], message), code end
  collect(child.output, child, "out", changed)
  collect(child.errors, child, "err", changed)
  if command.input then child.input:write(command.input) end
  child.input:shutdown(function() end)
  local deadline = command.timeout and task.now() + command.timeout
  while not child.status or child.open > 0 do
    local ok = changed:wait(deadline and math.max(0, deadline - task.now()))
    if not ok then
      return nil, ("ETIMEDOUT: %s took longer than %g s"):format(command[1], command.timeout), "ETIMEDOUT"
    end
  end
  return { status = child.status, out = table.concat(child.out), err = table.concat(child.err) }
end

-- Whether this program is in the foreground of a terminal, which then sends its signals to the command too.
local function has_terminal()
  local file = assert(io.open "/proc/self/stat")
  local group, foreground = file:read "a":match "^.*%) %S %d+ (%d+) %d+ %S+ (%S+)" -- proc_pid_stat(5): pgrp, tpgid
  file:close()
  return group == foreground
end

local function close_all(handles)
  for _, handle in ipairs(handles) do handle:close() end
end

--- Runs a program there with our terminal and files as its own. Signals are for the program: it gets those that it
--- does not get by itself.
function host:exec(command)
  check_command(command, 2)
  local argv, changed, ended = self:argv(command), task.condition(), nil
  local handle, pid, interrupted
  local signals <close> = setmetatable({}, { __close = close_all })
  for _, name in ipairs { "sigint", "sigquit", "sigterm", "sighup" } do
    local signal = luv.new_signal()
    signals[#signals + 1] = signal
    signal:start(name, function()
      local from_terminal = name == "sigint" or name == "sigquit"
      if from_terminal then interrupted = luv.constants[name:upper()] end
      if pid and not (from_terminal and has_terminal()) then enter.signal(pid, name) end
    end)
  end
  local code
  handle, pid, code = luv.spawn(argv[1], { args = table.move(argv, 2, #argv, 1, {}), stdio = { 0, 1, 2 } },
    function(status, signal)
      handle:close()
      ended = signal ~= 0 and 128 + signal or status
      changed:signal()
    end)
  if not handle then return nil, ("%s: cannot start %s: %s"):format(code, argv[1], pid), code end
  while not ended do changed:wait() end
  -- nsenter would end as the command did, but does not hear these two signals, and says 1.
  if ended == 1 and interrupted then return 128 + interrupted end
  return ended
end

--- Runs Lua source there, in a p2pd-lua of its own, to its end.
function host:lua(source, options)
  if type(source) ~= "string" then error("Lua source is a string, not a " .. type(source), 2) end
  local command = { self.lab.program, "-" }
  for key, value in pairs(options or {}) do
    if math.type(key) == "integer" then command[key + 2] = value else command[key] = value end
  end
  command.input = source
  return self:run(command)
end

function host:__tostring()
  return ("host %s of lab %s"):format(self.name, self.lab.name)
end

return M
