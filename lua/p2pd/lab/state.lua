-- state: where the labs of a user are found: a private folder, and in it one for each lab.
--
-- A lab's folder holds `socket`, `log`, the mount point `inside`, and one file that is named after the process that
-- the lab is: `first.PID.START.NAMESPACE`, the first process of its pid namespace. A pid alone may have become
-- another's; with the time at which it started (proc_pid_stat(5), field 22) and the namespace it cannot. The folder
-- comes into being under its name with that file in it, by one rename(2), so of two that want a name one gets it.
local luv = require "luv"
local task = require "p2pd.task"
local files = require "p2pd.lab.files"

local M = {}

local OTHERS = 63   -- 0077
local CLEANING = 2  -- seconds after which a folder of no lab, that nobody has cleaned, is cleaned by anybody
local ATTEMPTS = 100 -- to make a folder in one that others remove, as it is empty

-- Folders ---------------------------------------------------------------------------------------------------------

local function is_own(path)
  local stat, message, code = luv.fs_lstat(path)
  if not stat then return nil, message, code end
  if stat.type ~= "directory" then return nil, ("EPERM: %s is no folder"):format(path), "EPERM" end
  if stat.uid ~= luv.getuid() then return nil, ("EPERM: %s belongs to another user"):format(path), "EPERM" end
  return stat
end

-- A folder that is missing is fine.
local function is_private(path)
  local stat, message, code = is_own(path)
  if not stat then return code == "ENOENT", message, code end
  if stat.mode & OTHERS ~= 0 then
    return false, ("EPERM: %s is open to others; `chmod 700` it"):format(path), "EPERM"
  end
  return true
end

local function above(path)
  return path:match "^(.*)/"
end

--- The user's folder of labs, whether it is there or not.
---@return string? path, string? message, string? code
function M.folder()
  local runtime = os.getenv "XDG_RUNTIME_DIR"
  local base = ("%s/p2pd-lua-%d"):format(os.getenv "TMPDIR" or "/tmp", luv.getuid())
  if runtime and runtime:sub(1, 1) == "/" and is_own(runtime) then base = runtime .. "/p2pd-lua" end
  for _, path in ipairs { base, base .. "/lab" } do
    local ok, message, code = is_private(path)
    if not ok then return nil, message, code end
  end
  return base .. "/lab"
end

--- Removes the folder of labs when nothing is left in it.
function M.tidy(folder)
  if luv.fs_rmdir(folder) then luv.fs_rmdir(above(folder)) end
end

local function names_in(path)
  local names, scan = {}, luv.fs_scandir(path)
  for name in function() if scan then return luv.fs_scandir_next(scan) end end do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- Labs ------------------------------------------------------------------------------------------------------------

-- Of what /proc/PID/stat says: the state, and when the process started.
local function state_and_start(stat)
  local fields = {}
  for field in (stat:match "^.*%)(.*)$" or ""):gmatch "%S+" do fields[#fields + 1] = field end
  return fields[1], fields[20] -- the third and the twenty-second of all
end

--- The identity of a process from the text of its /proc/PID/stat and its pid namespace's link.
function M.identity(stat, namespace)
  local _, start = state_and_start(stat)
  return { pid = math.tointeger((stat:match "^%d+")), start = start, namespace = namespace:match "%d+" }
end

function M.file_of(identity)
  return ("first.%d.%s.%s"):format(identity.pid, identity.start, identity.namespace)
end

--- Whether it still runs.
function M.is_alive(identity)
  local stat = files.read(("/proc/%d/stat"):format(identity.pid))
  if not stat then return false end
  local state, start = state_and_start(stat)
  local namespace = luv.fs_readlink(("/proc/%d/ns/pid"):format(identity.pid))
  return state ~= "Z" and start == identity.start and namespace == ("pid:[%s]"):format(identity.namespace)
end

-- Whether it is about to end: what it was started with has gone already.
local function is_leaving(identity)
  return files.read(("/proc/%d/cmdline"):format(identity.pid)) == ""
end

--- What is known of a lab: nil when there is no folder of that name.
---@return {name: string, path: string, identity: table?, alive: boolean, leaving: boolean?}?
function M.look(folder, name)
  local path = folder .. "/" .. name
  if not is_own(path) then return nil end
  local found = { name = name, path = path, alive = false }
  for _, file in ipairs(names_in(path)) do
    local pid, start, namespace = file:match "^first%.(%d+)%.(%d+)%.(%d+)$"
    if pid then
      found.identity = { pid = math.tointeger(pid), start = start, namespace = namespace }
      found.alive = M.is_alive(found.identity)
      found.leaving = found.alive and is_leaving(found.identity)
    end
  end
  return found
end

--- The labs that run.
function M.list(folder)
  local list = {}
  for _, name in ipairs(names_in(folder)) do
    local found = name:sub(1, 1) ~= "." and M.look(folder, name)
    if found and found.alive and not found.leaving then list[#list + 1] = found end
  end
  return list
end

-- Waits until the condition holds.
local function await(seconds, condition)
  local deadline = task.now() + seconds
  while not condition() do
    if task.now() >= deadline then return false end
    task.sleep(0.005)
  end
  return true
end

--- Waits until the lab's first process, and with it all others, has gone.
function M.await_end(identity, seconds)
  return await(seconds, function() return not M.is_alive(identity) end)
end

-- Removes a folder file by file; whoever takes the name meanwhile keeps it, as only an empty folder is removed.
local function remove(path)
  for _, name in ipairs(names_in(path)) do
    if not luv.fs_unlink(path .. "/" .. name) then luv.fs_rmdir(path .. "/" .. name) end
  end
  luv.fs_rmdir(path)
end

--- Removes what a lab that has ended left. Of several that want to, one does: who takes its first
--- process's file away.
function M.clean(found)
  if not found.identity then
    await(CLEANING, function() return #names_in(found.path) == 0 end)
  elseif not luv.fs_unlink(found.path .. "/" .. M.file_of(found.identity)) then
    return
  end
  remove(found.path)
end

-- The folder of labs may be removed at any moment, as another lab has ended: then it is made anew.
local function make_unnamed(folder)
  local path, message, code
  for _ = 1, ATTEMPTS do
    for _, each in ipairs { above(folder), folder } do
      luv.fs_mkdir(each, files.PRIVATE_FOLDER)
      local ok, why, what = is_private(each)
      if not ok then return nil, why, what end
    end
    path, message, code = luv.fs_mkdtemp(("%s/.%d.XXXXXX"):format(folder, luv.os_getpid()))
    if path or code ~= "ENOENT" then break end
  end
  return path, message, code
end

--- Makes the folder under which a lab begins its life; what others left of theirs is removed.
---@return string? path, string? message, string? code
function M.begin(folder)
  for _, name in ipairs(names_in(folder)) do
    local pid = name:match "^%.(%d+)%."
    if pid and not luv.fs_stat("/proc/" .. pid) then remove(folder .. "/" .. name) end
  end
  local path, message, code = make_unnamed(folder)
  if path then luv.fs_mkdir(path .. "/inside", files.PRIVATE_FOLDER) end
  return path, message, code
end

--- Gives up a lab that did not come to life.
M.abandon = remove

--- A path for bind(2) and connect(2), which take no long ones, and the descriptor that it lives by.
function M.socket(path)
  local directory, message, code = luv.fs_open(path, "r", 0)
  if not directory then return nil, message, code end
  return ("/proc/self/fd/%d/socket"):format(directory), directory
end

return M
