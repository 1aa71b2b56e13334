-- processes: other programs, for check and bench; on luv alone, since what is tested cannot be relied upon.
local luv = require "luv"
local lines = require "spec.support.lines"

local M = {}

-- Resumes what waits, from a callback of the loop; what it throws ends the program.
local function resume(thread, ...)
  local ok, message = coroutine.resume(thread, ...)
  if not ok then
    io.stderr:write(debug.traceback(thread, tostring(message)), "\n")
    os.exit(70, false)
  end
end

--- Runs a function that may wait.
function M.go(f, ...)
  resume(coroutine.create(f), ...)
end

--- Waits until `wake` is called; after the seconds it is called with "timeout".
local function park(seconds, start)
  local thread, timer, woken = coroutine.running(), luv.new_timer(), false
  local function wake(...)
    if woken then return end
    woken = true
    timer:close()
    resume(thread, ...)
  end
  if seconds then timer:start(math.ceil(seconds * 1000), 0, function() wake "timeout" end) end
  start(wake)
  return coroutine.yield()
end

function M.sleep(seconds)
  park(seconds, function() end)
end

local process = {}
process.__index = process

local function changed(self)
  local wake = self.wake
  self.wake = nil
  if wake then wake() end
end

local function open_files(stdio)
  local opened = {}
  for fd, path in pairs { [0] = stdio[0], stdio[1], stdio[2] } do
    if type(path) == "string" and path ~= "pipe" then
      opened[fd] = assert(luv.fs_open(path, fd == 0 and "r" or "a", 384))
    end
  end
  return opened
end

--- Starts a program, in a session of its own. `stdio` tells for 0, 1, 2 what each is: "pipe", the path of a file, a
--- number of ours, or nothing. A pipe from it is read line by line, one to it is written.
---@param argv string[]
---@param options? {env: string[]?, stdio: table?, cwd: string?}
function M.start(argv, options)
  options = options or {}
  local self = setmetatable({ lines = {}, began = luv.hrtime() }, process)
  local stdio, files = options.stdio or {}, open_files(options.stdio or {})
  self.input = stdio[0] == "pipe" and luv.new_pipe(false) or nil
  self.output = stdio[1] == "pipe" and luv.new_pipe(false) or nil
  local handle, pid = luv.spawn(argv[1], {
    args = table.move(argv, 2, #argv, 1, {}), env = options.env, cwd = options.cwd, detached = true,
    stdio = {
      self.input or files[0] or stdio[0], self.output or files[1] or stdio[1], files[2] or stdio[2] or files[1],
    },
  }, function(code, signal)
    self.seconds = (luv.hrtime() - self.began) / 1e9
    self.status = signal ~= 0 and "signal " .. signal or code
    self.handle:close()
    changed(self)
  end)
  for _, file in pairs(files) do luv.fs_close(file) end
  if not handle then
    for _, pipe in pairs { self.input, self.output } do pipe:close() end
    return nil, ("%s cannot be started: %s"):format(argv[1], pid)
  end
  self.handle, self.pid = handle, pid
  if self.output then
    local take = lines(function(line) self.lines[#self.lines + 1] = line end)
    self.output:read_start(function(_, data)
      take(data)
      if not data then
        self.output:close()
        self.ended = true
      end
      changed(self)
    end)
  end
  return self
end

local function wait(self, deadline)
  local left = (deadline - luv.hrtime()) / 1e9
  if left <= 0 then return false end
  return park(left, function(wake) self.wake = wake end) ~= "timeout"
end

--- Its next line: nil at the end, or when it takes longer.
---@param seconds number
function process:line(seconds)
  local deadline = luv.hrtime() + seconds * 1e9
  while #self.lines == 0 do
    if self.ended or not wait(self, deadline) then return nil end
  end
  return table.remove(self.lines, 1)
end

--- Waits for its end. Returns its status, a number or "signal N"; nil when it takes longer.
---@param seconds number
function process:wait(seconds)
  local deadline = luv.hrtime() + seconds * 1e9
  while self.status == nil or self.output and not self.ended do
    if not wait(self, deadline) then break end
  end
  return self.status
end

function process:write(data)
  self.input:write(data)
end

function process:close_input()
  if self.input and not self.input:is_closing() then self.input:close() end
end

--- Ends it with all that it started in its session: gently, unless told otherwise, and by force after two seconds.
function process:kill(signal)
  self:close_input()
  if self.status == nil then luv.kill(-self.pid, signal or "sigterm") end
  if not self:wait(2) then
    luv.kill(-self.pid, "sigkill")
    self:wait(2)
  end
  if self.output and not self.output:is_closing() then self.output:close() end
end

-- Files -------------------------------------------------------------------------------------------------------------

function M.read(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read "a" or ""
  file:close()
  return text
end

function M.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

--- The names in a folder with their kinds; none if it is not there.
function M.folder(path)
  local scan = luv.fs_scandir(path)
  return function()
    if scan then return luv.fs_scandir_next(scan) end
  end
end

--- The files below a folder whose paths match.
function M.find(path, pattern, found)
  found = found or {}
  for name, kind in M.folder(path) do
    local inner = path .. "/" .. name
    if kind == "directory" then
      M.find(inner, pattern, found)
    elseif inner:find(pattern) then
      found[#found + 1] = inner
    end
  end
  table.sort(found)
  return found
end

--- Makes an empty folder of its own, in $TMPDIR or /tmp; to be removed with `remove`.
---@return string path
function M.new_folder()
  return assert(luv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/p2pd-spec-XXXXXX"))
end

function M.remove(path)
  for name, kind in M.folder(path) do
    if kind == "directory" then M.remove(path .. "/" .. name) else luv.fs_unlink(path .. "/" .. name) end
  end
  luv.fs_rmdir(path)
end

--- Runs a function with a folder that is removed after it.
function M.with_folder(f)
  local folder = M.new_folder()
  local guard <close> = setmetatable({}, { __close = function() M.remove(folder) end }) -- luacheck: ignore
  return f(folder)
end

function M.absolute(path)
  return path:sub(1, 1) == "/" and path or luv.cwd() .. "/" .. path
end

--- Makes a script, and the folder that it is to lie in.
function M.program(folder, name, text)
  local path = ""
  for part in folder:gmatch "[^/]+" do
    path = path .. "/" .. part
    luv.fs_mkdir(path, 493)
  end
  M.write(path .. "/" .. name, text)
  luv.fs_chmod(path .. "/" .. name, 493)
end

--- Where a program lies; servers lie where a user's PATH does not look.
function M.which(name)
  for folder in ((os.getenv "PATH" or "") .. ":/usr/local/sbin:/usr/sbin:/sbin"):gmatch "[^:]+" do
    if luv.fs_access(folder .. "/" .. name, "X") then return folder .. "/" .. name end
  end
end

--- What a shell's command prints, on both its outputs, and its exit status.
function M.output_of(command)
  local stream = assert(io.popen(command .. " 2>&1"))
  local text = stream:read "a"
  return text, select(3, stream:close())
end

return M
