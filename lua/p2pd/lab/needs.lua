-- needs: what a lab takes of the machine: programs, and the right to make namespaces. What is missing is said in one
-- sentence, with how to get it.
local luv = require "luv"

local M = {}

local FOLDERS = ":/usr/local/sbin:/usr/sbin:/sbin" -- where ip and the servers lie, and a user's PATH does not look

-- Programs and Debian's packages. What servers need is said by p2pd.lab.servers.
local programs = {
  { "unshare", "util-linux" }, { "nsenter", "util-linux" }, { "setpriv", "util-linux" }, { "mount", "mount" },
  { "env", "coreutils" }, { "ip", "iproute2" },
}

--- The PATH by which a lab finds its programs.
function M.path()
  return (os.getenv "PATH" or "/usr/bin:/bin") .. FOLDERS
end

--- Where the Lua files are read from instead of the program, as a path that holds in every folder.
---@return string?
function M.source()
  local folder = os.getenv "P2PD_LUA"
  return folder and folder ~= "" and luv.fs_realpath(folder) or folder
end

--- Where a program lies.
---@return string?
function M.which(name)
  for folder in M.path():gmatch "[^:]+" do
    if luv.fs_access(folder .. "/" .. name, "X") then return folder .. "/" .. name end
  end
end

--- Whether all programs are there that the plan needs.
---@return boolean? ok, string? message, string? code
function M.check(plan)
  local missing, packages = {}, {}
  local function need(program, package)
    if M.which(program) then return end
    missing[#missing + 1] = program
    if packages[#packages] ~= package then packages[#packages + 1] = package end
  end
  for _, program in ipairs(programs) do need(program[1], program[2]) end
  for _, router in ipairs(plan.routers) do
    if router.options.portmap then
      need("nft", "nftables")
      break
    end
  end
  if #missing == 0 then return true end
  return nil, ("ENOENT: not installed: %s; `apt-get install %s` brings what is missing")
    :format(table.concat(missing, ", "), table.concat(packages, " ")), "ENOENT"
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

--- The path of the program p2pd-lua, for stock Lua too: beside the library, or in PATH.
---@return string? path, string? message, string? code
function M.program()
  local own = luv.exepath()
  if own:match "[^/]+$" == "p2pd-lua" then return own end
  local library = package.searchpath("p2pd", package.cpath)
  local beside = library and luv.fs_realpath((library:match "^(.*)/" or ".") .. "/p2pd-lua")
  local path = beside or M.which "p2pd-lua"
  if path then return path end
  return nil, "ENOENT: the program p2pd-lua is neither beside the library p2pd.so nor in PATH", "ENOENT"
end

return M
