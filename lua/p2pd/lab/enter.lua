-- enter: how a command comes to run on a host of a lab: the words that nsenter, env and setpriv are started with.
--
-- The command gets the host's namespaces and the caller's folder, terminal and environment; but HOME and with it all
-- folders of settings are the host's. It has no capabilities, and can get none, unless all are asked for.
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

-- In front of env: signals of the terminal go to the command alone, as nsenter, which waits for it, would end by them.
-- Behind nsenter they are what they were. Where nsenter ends all the same, so does the command.
local function namespaces(first_process, host)
  local first = ("/proc/%d"):format(first_process.pid)
  local holder = ("%s/root/proc/%d/ns"):format(first, host.pid)
  local words = { "--preserve-credentials", "--pid=" .. first .. "/ns/pid", "--ipc=" .. first .. "/ns/ipc" }
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

--- The whole command.
---@param options {first: table, lab: table, host: table, program: string, command: string[], root: boolean?,
---                cwd: string?, env: table<string, string>?} `first` is the lab's first process
---@return string[]
function M.argv(options)
  local set, unset = M.variables(options.lab, options.host, options.program)
  for name, value in pairs(options.env or {}) do set[name] = value end
  local variables = {}
  for _, name in ipairs(unset) do append(variables, { "-u", name }) end
  append(variables, "--chdir=" .. (options.cwd or luv.cwd()))
  for name, value in pairs(set) do append(variables, name .. "=" .. value) end
  local rights = { "setpriv", "--pdeathsig", "TERM" }
  if not options.root then append(rights, without_rights) end
  append(rights, "--")
  return append({ "setpriv", "--pdeathsig", "TERM", "env", "--ignore-signal=INT,QUIT", "nsenter" },
    namespaces(options.first, options.host), { "env", "--default-signal=INT,QUIT" }, variables, rights,
    options.command)
end

--- Sends a signal to the command behind a process that was started with these words: nsenter's one child.
---@param pid integer
---@param signal string|integer
---@param has_ended boolean? whether that process has
function M.signal(pid, signal, has_ended)
  if has_ended then return end
  local children = files.read(("/proc/%d/task/%d/children"):format(pid, pid)) or ""
  luv.kill(math.tointeger(tonumber(children:match "%d+")) or pid, signal)
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

--- The same where that process began a session: to the command and all that it has started. nsenter ends with the
--- command, and as the command did.
function M.signal_all(session, signal, has_ended)
  local found = members(session)
  if #found == 0 then return M.signal(session, signal, has_ended) end
  local rounds = signal == "sigkill" and ROUNDS or 1
  for _ = 1, rounds do
    for _, pid in ipairs(found) do luv.kill(pid, signal) end
    found = rounds > 1 and members(session) or found
    if #found == 0 then return end
  end
end

return M
