-- files: the private files and folders of a lab.
local luv = require "luv"

local M = {}

M.PRIVATE_FOLDER = 448 -- 0700
M.PRIVATE_FILE = 384   -- 0600

--- The whole text of a file; nil when it cannot be read.
---@return string?
function M.read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return text
end

---@return boolean? ok, string? message, string? code
function M.write(path, text)
  local file, message, code = luv.fs_open(path, "w", M.PRIVATE_FILE)
  if not file then return nil, message, code end
  local written
  written, message, code = luv.fs_write(file, text)
  luv.fs_close(file)
  if written then return true end
  return nil, message, code
end

--- Makes a folder, all those above it, and files in it.
---@param path string
---@param contents? table<string, string> text by name
---@return string path
function M.make_folder(path, contents)
  local made = ""
  for part in path:gmatch "[^/]+" do
    made = made .. "/" .. part
    luv.fs_mkdir(made, M.PRIVATE_FOLDER)
  end
  for name, text in pairs(contents or {}) do assert(M.write(path .. "/" .. name, text)) end
  return path
end

--- A log, to be given to a process as its output.
---@return integer? descriptor, string? message, string? code
function M.open_log(path)
  return luv.fs_open(path, "a", M.PRIVATE_FILE)
end

--- The last thing that was written to a log.
---@return string?
function M.last_words(path)
  local last
  for line in (M.read(path) or ""):gmatch "[^\n]+" do
    if line:find "%S" then last = line end
  end
  return last
end

return M
