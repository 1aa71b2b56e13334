-- program: other programs as the specs drive them: captured output, and a bound on everything. By luv alone, so that it
-- needs nothing of what is tested; inside a task and outside of one.
local luv = require "luv"
local processes = require "spec.support.processes"

local M = {}

local PATIENCE = 20 * (tonumber(os.getenv "P2PD_SLOWDOWN") or 1) -- seconds that an awaited thing may take
local TURN = 0.05   -- seconds within which a passed deadline is seen

--- The folder of what is built: $P2PD_BUILD, $BUILD, or build.
M.build = os.getenv "P2PD_BUILD" or os.getenv "BUILD" or "build"
M.build = luv.fs_realpath(M.build) or M.build
M.path = M.build .. "/p2pd-lua"

-- One turn of the loop, or a short sleep of the task that asks.
local function turn()
  local core = package.loaded["p2pd.core"]
  if core and core.task.current() then
    core.task.sleep(TURN / 5)
  else
    luv.run "once"
  end
end

-- Waits until condition() is true; false when the time was over.
local function await(condition, seconds)
  local deadline = luv.hrtime() + (seconds or PATIENCE) * 1e9
  local timer = luv.new_timer()
  timer:start(0, TURN * 1000 // 1 | 0, function() end)
  local met = condition()
  while not met and luv.hrtime() < deadline do
    turn()
    met = condition()
  end
  timer:close(function() timer = nil end)
  while timer do turn() end -- luv does not bear handles that are still closing when the Lua state ends
  return met
end
M.await = await

--- Waits until the condition holds; throws when it does not come to that.
function M.eventually(condition)
  if not await(condition) then error("it does not come to that", 2) end
end

-- A program may end before it has read what it is sent: that is no reason for the specs to end by a signal.
local broken_pipes = luv.new_signal()
broken_pipes:start("sigpipe", function() end)
broken_pipes:unref()

local child = {}
child.__index = child

local function collect(self, pipe, name)
  self.open = self.open + 1
  pipe:read_start(function(_, bytes)
    if bytes then
      self[name] = self[name] .. bytes
    else
      pipe:close()
      self.open = self.open - 1
    end
  end)
end

--- Starts a program; `{ path, arg..., env = {NAME=value or false}, cwd = path, control = true for a pipe on fd 3 }`.
--- Without a path that has a slash it is looked for in PATH.
---@param options table
---@return table child with `out` and `err`, what it has written so far; to be closed
function M.start(options)
  local self = setmetatable({ out = "", err = "", seen = 0, open = 0 }, child)
  local variables = luv.os_environ()
  for name, value in pairs(options.env or {}) do variables[name] = value or nil end
  local env = {}
  for name, value in pairs(variables) do env[#env + 1] = name .. "=" .. value end
  self.input = luv.new_pipe(false)
  self.control = options.control and luv.new_pipe(false) or nil
  local out, err = luv.new_pipe(false), luv.new_pipe(false)
  self.handle, self.pid = luv.spawn(options[1], {
    args = table.move(options, 2, #options, 1, {}), env = env, cwd = options.cwd,
    stdio = { self.input, out, err, self.control },
  }, function(status, signal)
    self.status = signal > 0 and 128 + signal or status
    self.handle:close()
  end)
  if not self.handle then
    for _, pipe in pairs { self.input, out, err, self.control } do pipe:close() end
    luv.run "nowait" -- luv does not bear handles that are still closing when the Lua state ends
    error(self.pid, 2)
  end
  collect(self, out, "out")
  collect(self, err, "err")
  return self
end

--- Starts a program in a pseudo-terminal of 24 rows, 80 columns unless `rows` and `columns` say otherwise.
---@param options table as for start
---@return table child `out` is all that was shown; `resize(rows, columns)`
function M.start_in_terminal(options)
  local rows, columns = options.rows or 24, options.columns or 80
  local command = { M.build .. "/pty", tostring(rows), tostring(columns) }
  table.move(options, 1, #options, #command + 1, command)
  command.env, command.cwd, command.control = options.env, options.cwd, true
  return M.start(command)
end

function child:write(bytes)
  self.input:write(bytes)
end

function child:resize(rows, columns)
  self.control:write(("%d %d\n"):format(rows, columns))
end

--- No more input comes.
function child:finish_input()
  if not self.input:is_closing() then
    self.input:shutdown(function() if not self.input:is_closing() then self.input:close() end end)
  end
end

--- Waits for a text (plain) to come behind the one that was expected last; throws when it does not.
---@param text string
---@param name? "out"|"err" out unless given; err is searched as a whole
function child:expect(text, name, seconds)
  local start, stop
  local function found()
    start, stop = self[name or "out"]:find(text, name == "err" and 1 or self.seen + 1, true)
    return start
  end
  await(function() return found() or self.status and self.open == 0 end, seconds)
  if not start then
    error(("'%s' did not come; what came:\n%s\n%s"):format(text, self.out:sub(self.seen + 1), self.err), 2)
  end
  if name ~= "err" then self.seen = stop end
end

function child:kill(signal)
  if not self.status then luv.kill(self.pid, signal) end
end

--- Waits for its end; throws when it does not come.
---@return integer status 128 + N after signal N
function child:wait(seconds)
  if not await(function() return self.status and self.open == 0 end, seconds) then
    error(("it does not end; what came:\n%s\n%s"):format(self.out, self.err), 2)
  end
  return self.status
end

--- Ends it if it has not ended.
function child:close()
  self:kill "sigkill"
  if not self.input:is_closing() then self.input:close() end
  if self.control and not self.control:is_closing() then self.control:close() end
  await(function() return self.status and self.open == 0 end)
end

child.__close = child.close

--- A folder of its own that is removed with the scope: `local folder <close> = program.folder()`; `tostring` gives the
--- path, `folder:write(name, text)` makes a file and gives its path, `folder:read(name)` its text.
function M.folder()
  local path = processes.new_folder()
  local methods = {}
  function methods.write(_, name, text)
    local file = assert(io.open(path .. "/" .. name, "wb"))
    file:write(text)
    file:close()
    return path .. "/" .. name
  end
  function methods.read(_, name)
    local file = io.open(path .. "/" .. name, "rb")
    if not file then return nil end
    local text = file:read "a"
    file:close()
    return text
  end
  return setmetatable({}, {
    __index = methods, __tostring = function() return path end, __close = function() processes.remove(path) end,
  })
end

--- Runs a program to its end; as start, with `input` and `timeout` in seconds.
---@return {status: integer, out: string, err: string}
function M.run(options)
  local self <close> = M.start(options)
  if options.input then self:write(options.input) end
  self:finish_input()
  return { status = self:wait(options.timeout), out = self.out, err = self.err }
end

return M
