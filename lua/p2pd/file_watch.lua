-- file_watch: tells when files change, however that comes about: written, replaced by a rename, removed and made again,
-- touched, or a symbolic link on the way to them set elsewhere. It is the folders that are watched, as a file that is
-- replaced takes a watch of its own with it.
local luv = require "luv"

local M = {}

local SETTLE, MOST = 100, 1000 -- milliseconds: quiet for so long, and told after so long in any case
local MOST_LINKS = 40          -- on the way to a file, as the kernel has it

-- Where files lie -----------------------------------------------------------------------------------------------------

local function join(folder, name)
  return (folder == "/" and "" or folder) .. "/" .. name
end

local function parts_of(path, rest)
  local parts = {}
  for part in path:gmatch "[^/]+" do parts[#parts + 1] = part end
  return table.move(rest, 1, #rest, #parts + 1, parts)
end

--- The path from the root on.
function M.absolute(path)
  return path:sub(1, 1) == "/" and path or join(luv.cwd() or "/", path)
end

-- The names on which it depends what a path leads to, each with the folder that it is in: of each link on the way, and
-- of the file; where something is missing, of what is missing.
local function places_of(path)
  local list, folder, rest, links = {}, "/", parts_of(path, {}), 0
  while rest[1] do
    local name = table.remove(rest, 1)
    local full = join(folder, name)
    local stat = name ~= "." and name ~= ".." and luv.fs_lstat(full)
    if name == ".." then
      folder = folder:match "^(.+)/[^/]*$" or "/"
    elseif name ~= "." then
      local is_link = stat and stat.type == "link"
      if is_link or not stat or not rest[1] then list[#list + 1] = { folder = folder, name = name } end
      if not stat then return list end
      local target = is_link and luv.fs_readlink(full)
      if target then
        links = links + 1
        if links > MOST_LINKS then return list end
        if target:sub(1, 1) == "/" then folder = "/" end
        rest = parts_of(target, rest)
      else
        folder = full
      end
    end
  end
  return list
end

--- What a file is like now: differs from what it was when something was done to the file.
---@param path string
---@return string
function M.stamp(path)
  local stat = luv.fs_stat(path)
  if not stat then return "" end
  return ("%d:%d:%d:%d.%d:%d.%d"):format(stat.dev, stat.ino, stat.size, stat.mtime.sec, stat.mtime.nsec, stat.ctime.sec,
    stat.ctime.nsec)
end

-- Watching ------------------------------------------------------------------------------------------------------------

local watch = {}
watch.__index = watch

-- Tells once nothing has changed for a while; who goes on writing does not put it off for good.
local function notice(self, file)
  self.changed[file.path] = true
  local now = luv.now()
  self.first = self.first or now
  self.timer:start(math.max(0, math.min(SETTLE, self.first + MOST - now)), 0, function()
    local list = {}
    for _, each in ipairs(self.files) do
      if self.changed[each.path] then list[#list + 1] = each end
    end
    self.changed, self.first = {}, nil
    if #list > 0 then self.on_change(list) end
  end)
end

-- A folder's own end is told by its own name, or by none: what was in it has changed, and a new folder needs a new
-- watch.
local function open_folder(self, path)
  local opened = { handle = luv.new_fs_event(), names = {} }
  local own_name = path:match "[^/]*$"
  local ok, message, code = opened.handle:start(path, {}, function(failure, name)
    opened.ended = opened.ended or failure ~= nil or name == nil or name == own_name
    for each, files in pairs(opened.names) do
      if opened.ended or each == name then
        for _, file in ipairs(files) do notice(self, file) end
      end
    end
  end)
  if ok then return opened end
  opened.handle:close()
  return nil, ("%s: the folder %s cannot be watched"):format(message:match "^%u+: [^:]*", path), code
end

--- Watches these files from now on, and no others. What has changed since their stamps were taken is told, too. On a
--- failure it goes on with those that can be watched.
---@param files { name: string, path: string, stamp: string }[]
---@return boolean? ok, string? message, string? code
function watch:set(files)
  local wanted = {}
  for _, file in ipairs(files) do
    for _, place in ipairs(places_of(file.path)) do
      local names = wanted[place.folder] or {}
      wanted[place.folder] = names
      names[place.name] = names[place.name] or {}
      table.insert(names[place.name], file)
    end
  end
  for path, opened in pairs(self.folders) do
    if opened.ended or not wanted[path] then
      opened.handle:close()
      self.folders[path] = nil
    end
  end
  local ok, message, code = true, nil, nil
  for path, names in pairs(wanted) do
    local opened, why, what = self.folders[path], nil, nil
    if not opened then opened, why, what = open_folder(self, path) end
    if opened then
      opened.names = names
    elseif what == "ENOENT" then -- it has just gone: the next look finds what is missing
      for _, list in pairs(names) do
        for _, file in ipairs(list) do notice(self, file) end
      end
    else
      ok, message, code = nil, why, what
    end
    self.folders[path] = opened
  end
  self.files = files
  for _, file in ipairs(files) do
    if M.stamp(file.path) ~= file.stamp then notice(self, file) end
  end
  return ok, message, code
end

--- Ends it; nothing is told from now on.
function watch:close()
  if self.closed then return end
  self.closed = true
  for _, opened in pairs(self.folders) do opened.handle:close() end
  self.folders, self.files = {}, {}
  self.timer:close()
end

--- Watches nothing yet. `on_change` is called with those that have changed, outside of any task; it must not wait.
---@param on_change fun(files: table[])
function M.new(on_change)
  return setmetatable({
    on_change = on_change, folders = {}, files = {}, changed = {}, timer = luv.new_timer(),
  }, watch)
end

return M
