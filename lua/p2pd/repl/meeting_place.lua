-- meeting_place: the Unix socket of a console. Its folder is the user's own and open to nobody else; who is at the
-- other end is asked of the system, not of the other end.
local core = require "p2pd.core"
local luv = require "luv"
local task = require "p2pd.task"

local M = {}

local OTHERS = 63 -- 0077
local PRIVATE_FOLDER = 448 -- 0700

local function refuse(code, message, ...)
  return nil, (code .. ": " .. message):format(...), code
end

local function split(path)
  if type(path) ~= "string" then error("a path is a string, not a " .. type(path), 3) end
  local folder, name = path:match "^(.*)/([^/]*)$"
  if not folder then folder, name = ".", path end
  if name == "" or name == "." or name == ".." or path:find "%z" then return nil end
  return folder == "" and "/" or folder, name
end

-- The descriptor of the folder, by which nobody can put another one in its place, and the path that leads through it.
local function enter(path, make)
  local folder, name = split(path)
  if not folder then return refuse("EINVAL", "'%s' cannot be the path of a socket", path) end
  local directory, owner, mode = core.console.folder(folder)
  if not directory and mode == "ENOENT" and make and luv.fs_mkdir(folder, PRIVATE_FOLDER) then
    directory, owner, mode = core.console.folder(folder)
  end
  if not directory then
    if mode == "ENOTDIR" or mode == "ELOOP" then
      return refuse("EPERM", "%s is no folder, or a symbolic link to one", folder)
    end
    return nil, owner, mode
  end
  local why = owner ~= luv.getuid() and "belongs to another user" or mode & OTHERS ~= 0
    and "is open to others; a console needs a folder of its own (mode 700)"
  if why then
    luv.fs_close(directory)
    return refuse("EPERM", "the folder %s %s", folder, why)
  end
  return { directory = directory, path = ("/proc/self/fd/%d/%s"):format(directory, name), name = path }
end

-- What is there: "socket", or why it cannot be used.
local function look(place)
  local stat, message, code = luv.fs_lstat(place.path)
  if not stat then return nil, code == "ENOENT" and ("ENOENT: there is no %s"):format(place.name) or message, code end
  if stat.type == "link" then return refuse("ELOOP", "%s is a symbolic link", place.name) end
  if stat.type ~= "socket" then return refuse("EEXIST", "%s is no socket", place.name) end
  if stat.uid ~= luv.getuid() then return refuse("EPERM", "%s belongs to another user", place.name) end
  return stat
end

local function dial(place)
  local stream, changed, failure = luv.new_pipe(false), task.condition(), nil
  local ok, message, code = stream:connect(place.path, function(why)
    failure = why or false
    changed:signal()
  end)
  while ok and failure == nil do changed:wait() end
  if ok and not failure then return stream end
  stream:close()
  code = failure and failure:match "^%u+" or code
  if code == "ECONNREFUSED" then message = "ECONNREFUSED: no program has its console at " .. place.name end
  return nil, message or failure, code
end

local place = {}

-- Removes the socket, if it is still the one that was made.
function place:close()
  if self.closed then return end
  self.closed = true
  local stat = luv.fs_lstat(self.path)
  if stat and stat.ino == self.ino and stat.dev == self.dev then luv.fs_unlink(self.path) end
  luv.fs_close(self.directory)
end

--- Makes the socket; one that a program left which ended at once is replaced.
---@param path string
---@return table? place with `descriptor`, which listens, and close()
---@return string? message, string? code
function M.make(path)
  local self, message, code = enter(path, true)
  if not self then return nil, message, code end
  setmetatable(self, { __index = place })
  local there
  there, message, code = look(self)
  if there then
    local stream = dial(self)
    if stream then
      stream:close()
      message, code = ("EADDRINUSE: a program has its console at %s"):format(path), "EADDRINUSE"
    else
      luv.fs_unlink(self.path)
    end
  end
  if there and not message or code == "ENOENT" then
    self.descriptor, message, code = core.console.listen(self.path)
  end
  if not self.descriptor then
    self:close()
    return nil, message, code
  end
  local made = assert(luv.fs_lstat(self.path))
  self.ino, self.dev = made.ino, made.dev
  return self
end

--- Whether the other end is this user's.
---@param stream userdata of luv's
---@return boolean? ok, string? message, string? code
function M.is_own(stream)
  local user, process, code = core.console.peer(stream:fileno())
  if not user then return nil, process, code end
  if user ~= luv.getuid() then
    return refuse("EPERM", "process %d at the other end is another user's", process)
  end
  return true
end

--- Connects to a console of this user's.
---@param path string
---@return userdata? stream, string? message, string? code
function M.connect(path)
  local self, message, code = enter(path, false)
  if not self then return nil, message, code end
  local there, stream, own
  there, message, code = look(self)
  if there and there.mode & OTHERS ~= 0 then
    there, message, code = refuse("EPERM", "%s is open to others", path)
  end
  if there then stream, message, code = dial(self) end
  luv.fs_close(self.directory)
  if not stream then return nil, message, code end
  own, message, code = M.is_own(stream)
  if own then return stream end
  stream:close()
  return nil, message, code
end

return M
