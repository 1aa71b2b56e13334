-- state: where the labs of a user are found: a private folder, and in it one for each lab.
--
-- A lab's folder holds `socket`, `log`, the mount point `inside`, and one file that is named after the process that
-- the lab is: `first.PID.START.NAMESPACE.VIEW`, the first process of its pid namespace. A pid alone may have become
-- another's; with the time at which it started (proc_pid_stat(5), field 22) and the namespace it cannot. Both are what
-- they are in the maker's own namespaces of pids and of times, its view: who has another one sees other numbers, and
-- cannot say of a lab whether it runs. The folder comes into being under its name with that file in it, by one
-- rename(2), so of two that want a name one gets it.
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

-- As an absolute path: a lab outlives the folder that its maker is in.
local function temporary()
  local folder = os.getenv "TMPDIR" or ""
  if folder == "" then return "/tmp" end
  if folder:sub(1, 1) == "/" then return folder end
  local here = luv.cwd()
  if here then return here .. "/" .. folder end
  return nil, ("ENOENT: TMPDIR is '%s', in a folder that is gone"):format(folder), "ENOENT"
end

--- The user's folder of labs, whether it is there or not.
---@return string? path, string? message, string? code
function M.folder()
  local runtime = os.getenv "XDG_RUNTIME_DIR"
  local tmp, why, what = temporary()
  if not tmp then return nil, why, what end
  local base = ("%s/p2pd-lua-%d"):format(tmp, luv.getuid())
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

--- What pids and start times mean to this process: its namespaces of pids and of times (time_namespaces(7)), where
--- its /proc shows that one's pids; else nil.
---@return string?
function M.view()
  local pids = (files.read "/proc/self/status" or ""):match "\nNSpid:([^\n]*)" -- from /proc's own namespace inwards
  if not pids or not pids:find "^%s*%d+%s*$" then return nil end
  local links = {}
  for i, name in ipairs { "pid", "time" } do
    links[i] = (luv.fs_readlink("/proc/self/ns/" .. name) or "0"):match "%d+"
  end
  return table.concat(links, "-")
end

--- The identity of a process from the text of its /proc/PID/stat and its pid namespace's link, in that view.
function M.identity(stat, namespace, view)
  local _, start = state_and_start(stat)
  return { pid = math.tointeger((stat:match "^%d+")), start = start, namespace = namespace:match "%d+", view = view }
end

function M.file_of(identity)
  return ("first.%d.%s.%s.%s"):format(identity.pid, identity.start, identity.namespace, identity.view)
end

local function is_no_process(pid)
  return (select(2, luv.kill(pid, 0)) or ""):find "^ESRCH" ~= nil
end

--- Whether it still runs. Not all can be looked at from everywhere: what is not surely dead, nobody may clean up.
---@return "alive"|"dead"|"unknown"
function M.life(identity)
  if M.view() ~= identity.view then return "unknown" end
  if is_no_process(identity.pid) then return "dead" end
  local stat = files.read(("/proc/%d/stat"):format(identity.pid))
  if not stat then return is_no_process(identity.pid) and "dead" or "unknown" end -- it may be hidden: proc(5), hidepid
  local state, start = state_and_start(stat)
  if state == "Z" or start ~= identity.start then return "dead" end
  local namespace, _, code = luv.fs_readlink(("/proc/%d/ns/pid"):format(identity.pid))
  if namespace then return namespace == ("pid:[%s]"):format(identity.namespace) and "alive" or "dead" end
  return (code == "EACCES" or code == "EPERM") and "alive" or M.life(identity) -- or it has ended meanwhile
end

--- Whether this process can go where the lab is.
---@return boolean? ok, string? message, string? code
function M.reach(name, identity)
  local life = M.life(identity)
  if life == "dead" then return nil, ("ECLOSED: the lab '%s' has gone"):format(name), "ECLOSED" end
  if life == "unknown" then
    return nil, ("ENOTSUP: lab '%s' may run, but from here it cannot be reached: it was made in another pid namespace, "
      .. "or its processes are hidden"):format(name), "ENOTSUP"
  end
  local namespace, _, code = luv.fs_readlink(("/proc/%d/ns/pid"):format(identity.pid))
  if namespace then return true end
  if code == "ENOENT" then return nil, ("ECLOSED: the lab '%s' has gone"):format(name), "ECLOSED" end
  return nil, ("EPERM: lab '%s' runs, but from here it cannot be reached: this process may not look at the lab's (it "
    .. "lacks CAP_SYS_PTRACE, or is another user's)"):format(name), "EPERM"
end

-- Whether it is about to end: what it was started with has gone already.
local function is_leaving(identity)
  return files.read(("/proc/%d/cmdline"):format(identity.pid)) == ""
end

local ours = { socket = true, log = true, inside = true }

local function identity_of(file)
  local pid, start, namespace, view = file:match "^first%.(%d+)%.(%d+)%.(%d+)%.([%d-]+)$"
  return pid and { pid = math.tointeger(pid), start = start, namespace = namespace, view = view }
end

--- What is known of a lab: nil when there is nothing of that name. `foreign` is a path there that is no lab's.
---@return {name: string, path: string, identity: table?, life: string, leaving: boolean?, foreign: string?}?
function M.look(folder, name)
  local path = folder .. "/" .. name
  local there, _, code = is_own(path)
  if code == "ENOENT" then return nil end
  local found = { name = name, path = path, life = "dead", foreign = not there and path or nil }
  for _, file in ipairs(there and names_in(path) or {}) do
    local identity = identity_of(file)
    if identity then
      found.identity, found.life = identity, M.life(identity)
      found.leaving = found.life == "alive" and is_leaving(identity)
    elseif not ours[file] then
      found.foreign = path .. "/" .. file
    end
  end
  local inside = found.life == "dead" and names_in(path .. "/inside")[1] -- a lab's is only to be seen from within
  if inside then found.foreign = path .. "/inside/" .. inside end
  return found
end

--- The labs that run.
function M.list(folder)
  local list = {}
  for _, name in ipairs(names_in(folder)) do
    local found = name:sub(1, 1) ~= "." and M.look(folder, name)
    if found and found.life == "alive" and not found.leaving then list[#list + 1] = found end
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
  return await(seconds, function() return M.life(identity) == "dead" end)
end

-- Removes a lab's folder file by file; whoever takes the name meanwhile keeps it, as only an empty folder is removed.
local function remove(path)
  for _, name in ipairs(names_in(path)) do
    if ours[name] or identity_of(name) then
      if not luv.fs_unlink(path .. "/" .. name) then luv.fs_rmdir(path .. "/" .. name) end
    end
  end
  luv.fs_rmdir(path)
end

--- Removes what a lab that has surely ended left. Of several that want to, one does: who takes its first process's
--- file away.
---@return boolean? ok, string? message, string? code
function M.clean(found)
  if found.foreign then
    return nil, ("EBUSY: %s is no lab's; remove it, or take another name"):format(found.foreign), "EBUSY"
  end
  if not found.identity then
    await(CLEANING, function() return #names_in(found.path) == 0 end)
  elseif not luv.fs_unlink(found.path .. "/" .. M.file_of(found.identity)) then
    return true
  end
  remove(found.path)
  return true
end

-- The folder of labs may be removed at any moment, as another lab has ended: then it is made anew.
local function make_unnamed(folder, view)
  local path, message, code
  for _ = 1, ATTEMPTS do
    for _, each in ipairs { above(folder), folder } do
      luv.fs_mkdir(each, files.PRIVATE_FOLDER)
      local ok, why, what = is_private(each)
      if not ok then return nil, why, what end
    end
    path, message, code = luv.fs_mkdtemp(("%s/.%d.%s.XXXXXX"):format(folder, luv.os_getpid(), view))
    if path or code ~= "ENOENT" then break end
  end
  return path, message, code
end

--- Makes the folder under which a lab begins its life; what others left of theirs is removed.
---@param view string this process's
---@return string? path, string? message, string? code
function M.begin(folder, view)
  for _, name in ipairs(names_in(folder)) do
    local pid, of = name:match "^%.(%d+)%.([%d-]+)%."
    if of == view and is_no_process(math.tointeger(pid)) then remove(folder .. "/" .. name) end
  end
  local path, message, code = make_unnamed(folder, view)
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
