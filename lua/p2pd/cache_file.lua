-- cache_file: small files in ~/.cache/p2pd-lua, or below $XDG_CACHE_HOME, that only their user can read. What cannot be
-- read counts as nothing, and one that cannot be written is left out: nobody depends on them.
local luv = require "luv"

local M = {}

local PRIVATE, PRIVATE_FILE = 448, 384 -- 0700, 0600

local function folder()
  local base = os.getenv "XDG_CACHE_HOME"
  if not base or base:sub(1, 1) ~= "/" then base = (os.getenv "HOME" or "/") .. "/.cache" end
  return base .. "/p2pd-lua", base
end

--- What is in a file, if it is the user's own and not larger than that; and a mark, which is another one whenever the
--- file is. A file that still has the mark `known` is not read.
---@param name string
---@param most integer bytes
---@param known? string
---@return string? text, string? mark
function M.read(name, most, known)
  local file = luv.fs_open(("%s/%s"):format((folder()), name), "r", 0)
  if not file then return nil end
  local stat = luv.fs_fstat(file)
  local mine = stat and stat.type == "file" and stat.uid == luv.getuid() and stat.size <= most
  local mark = mine and ("%d %d %d.%09d"):format(stat.ino, stat.size, stat.mtime.sec, stat.mtime.nsec) or nil
  local text = mine and mark ~= known and luv.fs_read(file, most, 0) or nil
  luv.fs_close(file)
  return text, mark
end

--- Replaces the file as a whole. Two who write at once: the last one counts.
---@param name string
---@param text string
function M.write(name, text)
  local place, base = folder()
  luv.fs_mkdir(base, PRIVATE)
  luv.fs_mkdir(place, PRIVATE)
  local path = ("%s/%s.%d"):format(place, name, luv.os_getpid())
  luv.fs_unlink(path) -- of one that had this number before, and was ended here
  local file = luv.fs_open(path, "wx", PRIVATE_FILE)
  if not file then return end
  local written = luv.fs_write(file, text)
  luv.fs_close(file)
  if written ~= #text or not luv.fs_rename(path, ("%s/%s"):format(place, name)) then luv.fs_unlink(path) end
end

return M
