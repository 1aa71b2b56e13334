-- history: the lines of earlier sessions, in $XDG_STATE_HOME/p2pd-lua/history. An entry's further lines begin with a
-- tab there, which its first never does: lines that begin with a space, or hold a secret, are not kept.
local luv = require "luv"

local M = {}

M.limits = { entries = 1000, bytes = 1024 * 1024, entry = 16 * 1024 }

local secrets = {
  "pass[ _-]?word", "pass[ _-]?wd", "pass[ _-]?phrase", "secret", "private[ _-]?key", "api[ _-]?key", "credential",
  "token%s*=%s*[\"']", "begin [%l%d ]*key",
}

--- Whether the text may be kept.
---@param text string
function M.is_fit(text)
  if text:match "^%s" or not text:match "%S" or #text > M.limits.entry or text:find "%z" then return false end
  local lower = text:lower()
  for _, pattern in ipairs(secrets) do
    if lower:find(pattern) then return false end
  end
  return true
end

local function folder()
  local state = os.getenv "XDG_STATE_HOME"
  if state and state:sub(1, 1) == "/" then return state .. "/p2pd-lua" end
  local home = os.getenv "HOME"
  return home and home ~= "" and home .. "/.local/state/p2pd-lua" or nil
end

local function make_folder(path)
  if luv.fs_stat(path) then return true end
  local above = path:match "^(.+)/[^/]+$"
  if above then make_folder(above) end
  return luv.fs_mkdir(path, tonumber("700", 8))
end

local MODE = tonumber("600", 8)

-- Gives the file to f while it is open; returns what f does, or nil and a message.
local function with_file(path, flags, f)
  local fd, message = luv.fs_open(path, flags, MODE)
  if not fd then return nil, message end
  local result
  result, message = f(fd)
  luv.fs_close(fd)
  return result, message
end

local function encode(text)
  return text:gsub("\n", "\n\t") .. "\n"
end

local function decode(text)
  local entries = {}
  for line in text:gmatch "([^\n]*)\n" do
    if line:sub(1, 1) == "\t" and #entries > 0 then
      entries[#entries] = entries[#entries] .. "\n" .. line:sub(2)
    elseif line ~= "" then
      entries[#entries + 1] = line
    end
  end
  return entries
end

local history = {}
history.__index = history

-- Puts the entries in the place of the file at once: whoever reads meanwhile has the old or the new.
function history:replace(entries)
  local parts = {}
  for i, entry in ipairs(entries) do parts[i] = encode(entry) end
  local fd, name = luv.fs_mkstemp(self.path .. ".XXXXXX")
  if not fd then return nil, name end
  local written, message = luv.fs_write(fd, table.concat(parts))
  luv.fs_close(fd)
  if written then written, message = luv.fs_rename(name, self.path) end
  if not written then luv.fs_unlink(name) end
  return written, message
end

--- Reads the file. Always gives a history; where it cannot be kept, also a message.
---@return table history with `entries`
---@return string? message
function M.open()
  local self = setmetatable({ entries = {} }, history)
  local where = folder()
  if not where then return self, "neither XDG_STATE_HOME nor HOME is set" end
  local made, message = make_folder(where)
  if not made then return self, message end
  local path = where .. "/history"
  local text
  text, message = with_file(path, "a+", function(fd)
    local stat, failure = luv.fs_fstat(fd)
    if not stat or stat.type ~= "file" then return nil, failure or path .. " is no file" end
    if stat.mode % 64 ~= 0 then luv.fs_fchmod(fd, MODE) end
    local start = math.max(0, stat.size - M.limits.bytes)
    local bytes, problem = luv.fs_read(fd, math.min(stat.size, M.limits.bytes), start)
    if bytes and start > 0 then bytes = bytes:match "\n([^\t].*)$" or "" end
    return bytes, problem
  end)
  if not text then return self, message end
  self.path = path
  local entries = decode(text)
  local size = #entries
  self.entries = table.move(entries, math.max(1, size - M.limits.entries + 1), size, 1, {})
  if size > 2 * M.limits.entries or #text == M.limits.bytes then self:replace(self.entries) end
  self.last = self.entries[#self.entries]
  return self
end

--- Keeps the text unless it is unfit or the same as the last one. Sessions that run side by side add to one file.
---@param text string
---@return boolean kept
---@return string? message why the file could not be written
function history:add(text)
  if not M.is_fit(text) or text == self.last then return false end
  self.last = text
  if not self.path then return true end
  local bytes = encode(text)
  local written, message = with_file(self.path, "a", function(fd) return luv.fs_write(fd, bytes) end)
  if not written then self.path = nil end
  return true, not written and message or nil
end

return M
