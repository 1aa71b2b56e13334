-- program_path: where programs lie: those of others, and p2pd-lua itself, which a library in stock Lua starts too.
local luv = require "luv"

local M = {}

local USUAL = "/usr/bin:/bin" -- where programs lie when PATH is not set, or empty
local FOLDERS = ":/usr/local/sbin:/usr/sbin:/sbin" -- where ip and the servers lie, and a user's PATH does not look

--- The PATH by which programs are found.
function M.path()
  local path = os.getenv "PATH" or ""
  return (path ~= "" and path or USUAL) .. FOLDERS
end

--- Where a program lies.
---@return string?
function M.which(name)
  for folder in M.path():gmatch "[^:]+" do
    if luv.fs_access(folder .. "/" .. name, "X") then return folder .. "/" .. name end
  end
end

--- The path of the program p2pd-lua, for stock Lua too: beside the library, or in PATH.
---@return string? path, string? message, string? code
function M.own()
  local own = luv.exepath()
  if own:match "[^/]+$" == "p2pd-lua" then return own end
  local library = package.searchpath("p2pd", package.cpath)
  local beside = library and luv.fs_realpath((library:match "^(.*)/" or ".") .. "/p2pd-lua")
  local path = beside or M.which "p2pd-lua"
  if path then return path end
  return nil, "ENOENT: the program p2pd-lua is neither beside the library p2pd.so nor in PATH", "ENOENT"
end

return M
