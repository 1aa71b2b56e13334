-- console: a program with a console, and one that is none, for the specs.
local luv = require "luv"
local program = require "spec.support.program"
local prompts = require "spec.support.prompt"

local M = {}

-- A program with a console; `path` is its socket.
local listener = {}
listener.__index = function(self, key) return listener[key] or self.child[key] end

--- Starts one; to be closed.
---@param more? string[] arguments
function M.listen(more)
  local folder = program.folder()
  local home = tostring(folder)
  local settings = folder:write("settings.lua", "return { mqtt = {}, stun = {}, turn = {}, ntp = {} }")
  local self = setmetatable({ folder = folder, path = home .. "/own/console" }, listener)
  local command = {
    program.path, "listen", "--echo", "--settings", settings, "--key", home .. "/key.pem", "--bind", "127.0.0.1",
    "--console", self.path, env = { HOME = home, XDG_CONFIG_HOME = home },
  }
  if more then table.move(more, 1, #more, 1, command) end
  self.child = program.start(command)
  return self
end

function listener:begin()
  self.child:expect("address ")
  return self
end

function listener.__close(self)
  self.child:close()
  getmetatable(self.folder).__close(self.folder)
end

--- Attaches to it, in a terminal.
function M.start(self, home)
  local it = prompts.start { home = home or tostring(self.folder), command = { program.path, "attach", self.path } }
  it:prompt()
  return it
end

--- A program that is none: it says that to whoever attaches, and what `answer` returns to what they say.
---@param words string|fun(): string of the next one who attaches
---@param answer? fun(bytes: string, stream: userdata): string? or "leave" to end at once after `words`
function M.fake(words, answer)
  local folder = program.folder()
  local path = tostring(folder) .. "/console"
  local server, streams = luv.new_pipe(false), {}
  assert(server:bind(path))
  luv.fs_chmod(path, tonumber("600", 8))
  server:listen(8, function()
    local stream = luv.new_pipe(false)
    server:accept(stream)
    streams[stream] = true
    local function leave()
      if not stream:is_closing() then stream:close() end
      streams[stream] = nil
    end
    local function say(text) stream:write(text, answer == "leave" and leave or function() end) end
    stream:read_start(function(failure, bytes)
      if failure or not bytes then return leave() end
      local text = type(answer) == "function" and answer(bytes, stream)
      if text then say(text) end
    end)
    say(type(words) == "string" and words or words())
  end)
  return setmetatable({ path = path, folder = folder }, { __close = function()
    for stream in pairs(streams) do stream:close() end
    server:close()
    luv.run "nowait" -- what is left half closed at its end, luv falls over
    getmetatable(folder).__close(folder)
  end })
end

--- The most memory that the process has had, in MiB, and its children's if it has any.
---@param pid integer
function M.peak(pid)
  local most = 0
  local function look(each)
    local file = io.open(("/proc/%d/status"):format(each))
    if not file then return end
    most = math.max(most, (tonumber(file:read "a":match "VmHWM:%s*(%d+)") or 0) / 1024)
    file:close()
    local children = io.open(("/proc/%d/task/%d/children"):format(each, each))
    local list = children and children:read "a" or ""
    if children then children:close() end
    for child in list:gmatch "%d+" do look(tonumber(child)) end
  end
  look(pid)
  return most
end

return M
