-- own_file: files that a user's programs trust without being told to: nobody else may have written them.
local luv = require "luv"

local M = {}

local MAX_BYTES = 256 * 1024
local OTHERS_WRITE = 18 -- 022: the group, or others

--- A folder or file of this name in ~/.config/p2pd-lua, or below $XDG_CONFIG_HOME.
---@param name string
---@return string path
function M.config(name)
  local base = os.getenv "XDG_CONFIG_HOME"
  if not base or base:sub(1, 1) ~= "/" then base = (os.getenv "HOME" or "/") .. "/.config" end
  return base .. "/p2pd-lua/" .. name
end

local function objection(stat)
  if stat.mode & OTHERS_WRITE ~= 0 then return "others may write it; `chmod go-w` it" end
  if stat.uid ~= luv.getuid() and stat.uid ~= 0 then return "it belongs to another user" end
end

--- Why a folder is not to be trusted, or nil.
---@param path string
---@return string? message, string? code
function M.objection_to_folder(path)
  local stat, message, code = luv.fs_stat(path)
  if not stat then return message, code end
  local reason = stat.type == "directory" and objection(stat)
  if stat.type ~= "directory" then return "it is no folder", "EINVAL" end
  if reason then return reason, "EACCES" end
end

--- The text of a file that nobody else may write.
---@param path string
---@return string? text, string? message, string? code
function M.read(path)
  local file, message, code = luv.fs_open(path, "r", 0)
  if not file then return nil, message, code end
  local stat = assert(luv.fs_fstat(file))
  local text = stat.size <= MAX_BYTES and luv.fs_read(file, MAX_BYTES, 0) or nil
  luv.fs_close(file)
  if stat.type ~= "file" then return nil, "it is no file", "EINVAL" end
  if stat.size > MAX_BYTES then return nil, ("it is larger than %d KiB"):format(MAX_BYTES // 1024), "EFBIG" end
  local reason = objection(stat)
  if reason then return nil, reason, "EACCES" end
  return text
end

return M
