-- needs: what a lab takes of the machine: programs, and the right to make namespaces. What is missing is said in one
-- sentence, with how to get it.
local luv = require "luv"
local program_path = require "p2pd.program_path"
local finder = require "p2pd.lab.finder"
local servers = require "p2pd.lab.servers"
local state = require "p2pd.lab.state"

local M = {}

-- Programs and Debian's packages. What servers need is said by p2pd.lab.servers.
local programs = {
  { "unshare", "util-linux" }, { "nsenter", "util-linux" }, { "setpriv", "util-linux" }, { "mount", "mount" },
  { "env", "coreutils" }, { "ip", "iproute2" },
}

M.path, M.program = program_path.path, program_path.own

--- Where the Lua files are read from instead of the program, as a path that holds in every folder.
---@return string?
function M.source()
  local folder = os.getenv "P2PD_LUA"
  return folder and folder ~= "" and luv.fs_realpath(folder) or folder
end

--- This process's variables, with a PATH by which all programs are found: NAME=VALUE each.
---@return string[]
function M.environment()
  local variables = luv.os_environ()
  variables.PATH, variables.P2PD_LUA = M.path(), M.source()
  local list = {}
  for name, value in pairs(variables) do list[#list + 1] = name .. "=" .. value end
  return list
end

--- The view (p2pd.lab.state) from which a lab is made.
---@return string? view, string? message, string? code
function M.view()
  local view = state.view()
  if view then return view end
  return nil, "ENOTSUP: /proc is another pid namespace's; mount this one's (`unshare --mount-proc` does)", "ENOTSUP"
end

--- Whether all programs are there that the plan needs.
---@return boolean? ok, string? message, string? code
function M.check(plan)
  local found = finder.new()
  for _, program in ipairs(programs) do found:find(program[1], program[2]) end
  for _, router in ipairs(plan.routers) do
    if router.options.portmap then found:find("nft", "nftables") end
  end
  servers.make(servers.asked(plan, ""), found)
  return found:found_all()
end

local function first_line(path)
  local file = io.open(path)
  local line = file and file:read "l"
  if file then file:close() end
  return line
end

--- Whether labs can be had here: a command on a host of a lab has no rights over that lab, and can make no other one.
---@return boolean? ok, string? message, string? code
function M.outside()
  local host = os.getenv "P2PD_LAB_HOST"
  if not host then return true end
  return nil, ("ENOTSUP: this is host '%s' of lab '%s'; labs are reached from outside of them"):format(host,
    os.getenv "P2PD_LAB" or "?"), "ENOTSUP"
end

--- Why namespaces could not be made, and what helps, from what `unshare` said.
---@return string sentence
function M.refusal(said)
  local how
  if luv.getuid() == 0 then
    how = "this root lacks CAP_SYS_ADMIN (in a container, give it that capability, or run the lab outside)"
  elseif first_line "/proc/sys/kernel/apparmor_restrict_unprivileged_userns" == "1" then
    how = "AppArmor keeps user namespaces from ordinary users: as root, "
      .. "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run the lab as root"
  elseif first_line "/proc/sys/kernel/unprivileged_userns_clone" == "0" then
    how = "ordinary users get no user namespaces: as root, `sysctl kernel.unprivileged_userns_clone=1`, "
      .. "or run the lab as root"
  elseif first_line "/proc/sys/user/max_user_namespaces" == "0" then
    how = "ordinary users get no user namespaces: as root, `sysctl user.max_user_namespaces=10000`, "
      .. "or run the lab as root"
  else
    how = "user namespaces are closed to you: run the lab as root"
  end
  return ("EPERM: a lab needs namespaces, and %s (%s)"):format(how, said)
end

return M
