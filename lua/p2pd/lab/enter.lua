-- enter: how a command comes to run on a host of a lab: the words that setpriv, nsenter and env are started with.
--
-- The command gets the host's namespaces and the caller's folder, terminal and environment; but HOME and with it all
-- folders of settings are the host's. It has no capabilities, and can get none, unless all are asked for.
--
--   caller ── setpriv, nsenter, then sh, which waits ── setpriv, env, then the command
--
-- The shell that waits is outside of the host's pid namespace, which its child is in. It hears of the caller's end, and
-- looks whether that was before it could hear of it; its own end the command hears of.
local luv = require "luv"
local files = require "p2pd.lab.files"
local needs = require "p2pd.lab.needs"

local M = {}

local ROUNDS = 10 -- at most, to end what starts others meanwhile

local own_folders = { "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME" }

--- The variables that a command on a host has besides the caller's, and those that it has not.
---@param lab {name: string}
---@param host {name: string, folder: string, hosts: string}
---@return table<string, string> set, string[] unset
function M.variables(lab, host, program)
  return {
    HOME = host.folder .. "/home", XDG_RUNTIME_DIR = host.folder .. "/run",
    PATH = program:match "^(.*)/" .. ":" .. needs.path(),
    P2PD_LUA = needs.source(), P2PD_LAB = lab.name, P2PD_LAB_HOST = host.name, P2PD_LAB_HOSTS = host.hosts,
  }, own_folders
end

-- $1 is the process that started it. Signals of the terminal are for the command: the shell outlives them to tell how
-- that ended. When who started it ends, so does the command; as it may not hear that while it begins, it is told twice,
-- the second time by the shell's end.
local WAIT = [[
[ -z "$1" ] || [ "$PPID" = "$1" ] || exit 143
shift
trap : INT QUIT HUP
trap '[ -z "$!" ] || { kill -TERM $!; sleep 0.1; }; exit 143' TERM
exec 8<&0 9>&2 2>/dev/null
(exec "$@" <&8 2>&9 8<&- 9>&-) &
wait $!
status=$?
while kill -0 $!; do # a signal only ended the waiting
  wait $!
  status=$?
done
exit $status
]]

local function namespaces(first_process, host)
  local first = ("/proc/%d"):format(first_process.pid)
  local holder = ("%s/root/proc/%d/ns"):format(first, host.pid)
  local words = {
    "--preserve-credentials", "--no-fork", "--pid=" .. holder .. "/pid_for_children", "--ipc=" .. first .. "/ns/ipc",
  }
  if luv.getuid() ~= 0 then words[#words + 1] = "--user=" .. first .. "/ns/user" end
  for option, name in pairs { mount = "mnt", net = "net", uts = "uts" } do
    words[#words + 1] = ("--%s=%s/%s"):format(option, holder, name)
  end
  return words
end

-- No capability, and none by starting another program. The root of the lab is none to the kernel. CAP_NET_RAW can be
-- had by nothing but a file that has it: where ping is such a file, it would not start without (execve(2): EPERM).
local without_rights = {
  "--bounding-set=-all,+net_raw", "--inh-caps=-all", "--ambient-caps=-all", "--securebits=+noroot,+noroot_locked",
  "--no-new-privs",
}

local function append(list, ...)
  for _, words in ipairs { ... } do
    if type(words) == "string" then words = { words } end
    table.move(words, 1, #words, #list + 1, list)
  end
  return list
end

-- The folder that the command begins in, and its PWD, as the shell would set that to another one.
local function folder_of(options)
  local wanted, here = options.cwd, luv.cwd()
  if wanted and wanted:sub(1, 1) == "/" then return wanted, wanted end
  if wanted and here then here = here .. "/" .. wanted end
  return here, wanted and here or os.getenv "PWD"
end

-- Variables that the shell does not hand on, as it could not name them.
local function add_unnameable(set)
  for name, value in pairs(luv.os_environ()) do
    if name:find "^[^-]" and not name:find "^[%a_][%w_]*$" and set[name] == nil then set[name] = value end
  end
end

local count = 0

-- A word that stands among those of each process on the way to a command, but not among the command's: as the name of
-- a variable that is not to be there it harms nothing.
local function new_mark()
  count = count + 1
  return ("P2PD_LAB_ENTERS_%d_%d"):format(luv.os_getpid(), count)
end

--- The whole command.
---@param options {first: table, lab: table, host: table, program: string, command: string[], root: boolean?,
---                cwd: string?, env: table<string, string>?, parent: integer?} `first` is the lab's first process;
---                without `parent` it does not matter who starts it
---@return string[]? words, string mark_or_message, string? code
function M.argv(options)
  local folder, shown = folder_of(options)
  if not folder then return nil, "ENOENT: the folder that this program is in is gone; go to another one", "ENOENT" end
  local mark, set, unset = new_mark(), M.variables(options.lab, options.host, options.program)
  set.PWD = shown
  for name, value in pairs(options.env or {}) do set[name] = value end
  add_unnameable(set)
  -- The shell's child ignores what a terminal sends.
  local variables = { "env", "--default-signal=INT,QUIT", "-u", mark, "--chdir=" .. folder }
  for _, name in ipairs(unset) do append(variables, { "-u", name }) end
  for name, value in pairs(set) do append(variables, name .. "=" .. value) end
  local rights = { "setpriv", "--pdeathsig", "TERM" }
  if not options.root then append(rights, without_rights) end
  return append({ "setpriv", "--pdeathsig", "TERM", "nsenter" }, namespaces(options.first, options.host),
    { "sh", "-c", WAIT, "sh", options.parent and ("%d"):format(options.parent) or "" }, rights, "--", variables,
    options.command), mark
end

-- The one child of a process; nil where there is none.
local function child_of(pid)
  local children = files.read(("/proc/%d/task/%d/children"):format(pid, pid)) or ""
  return math.tointeger(tonumber(children:match "%d+"))
end

--- The command behind a process that was started with these words, when it has come to be itself: before that, signals
--- may be lost on the way.
---@return integer? pid
function M.command(pid, mark)
  local child = child_of(pid)
  local words = child and files.read(("/proc/%d/cmdline"):format(child)) or ""
  return words ~= "" and not words:find(mark, 1, true) and child or nil
end

-- Ends what has not come to be a command yet: the shell that waits sees to that.
local function give_up(pid, signal)
  local child = signal == "sigkill" and child_of(pid)
  luv.kill(pid, signal)
  if child then luv.kill(child, signal) end
end

--- How a command is told to end (p2pd.process), which was started with the words that have this mark.
---@return fun(pid: integer, signal: string, has_ended: boolean)
function M.signal(mark)
  return function(pid, signal, has_ended)
    if has_ended then return end
    local command = M.command(pid, mark)
    if command then luv.kill(command, signal) else give_up(pid, signal) end
  end
end

-- The processes of the session that a process began, without that one and those that have ended.
local function members(session)
  local found = {}
  for name in luv.fs_scandir_next, luv.fs_scandir "/proc" do
    local stat = name:find "^%d+$" and files.read(("/proc/%s/stat"):format(name)) or ""
    local state, of = stat:match "^.*%) (%S) %d+ %d+ (%d+)" -- proc_pid_stat(5): state, session
    local pid = tonumber(name)
    if tonumber(of) == session and pid ~= session and state ~= "Z" then found[#found + 1] = math.tointeger(pid) end
  end
  return found
end

--- The same where the command is in a session of its own: it tells all that the command has started, too. The shell
--- that waits, which began the session, ends with the command.
---@return fun(pid: integer, signal: string, has_ended: boolean)
function M.signal_all(mark)
  return function(session, signal, has_ended)
    if not has_ended and not M.command(session, mark) then return give_up(session, signal) end
    for _ = 1, signal == "sigkill" and ROUNDS or 1 do
      local found = members(session)
      if #found == 0 then return end
      for _, pid in ipairs(found) do luv.kill(pid, signal) end
    end
  end
end

return M
