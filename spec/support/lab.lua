-- lab: what the specs of labs share: a user to be, and what must not be left of a lab.
local luv = require "luv"
local processes = require "spec.support.processes"
local program = require "spec.support.program"

local M = {}

local NOBODY = 65534

local user = {}
user.__index = user

-- A copy of the program that everybody may run, wherever the build lies.
local function copy_program(folder)
  local path = folder .. "/p2pd-lua"
  assert(luv.fs_copyfile(program.path, path))
  assert(luv.fs_chmod(path, 493)) -- 0755
  return path
end

local function new_user(self)
  self.folder = program.folder()
  self.tmp = tostring(self.folder)
  self.program = copy_program(self.tmp)
  self.state = ("%s/p2pd-lua-%d"):format(self.tmp, self.uid)
  luv.fs_chmod(self.tmp, 493)
  luv.fs_chown(self.tmp, self.uid, self.uid)
  return setmetatable(self, user)
end

--- The user that runs the specs, and where that is root also an ordinary one. Each has a folder of its own, which is
--- removed with `stop`.
---@return table[] users
function M.users()
  local uid = luv.getuid()
  local users = { { name = uid == 0 and "root" or "an ordinary user", uid = uid, words = {} } }
  if uid == 0 then
    users[2] = {
      name = "an ordinary user", uid = NOBODY,
      words = { "setpriv", "--reuid=" .. NOBODY, "--regid=" .. NOBODY, "--clear-groups" },
    }
  end
  return users
end

--- Why this user cannot have labs here; nil where that is possible.
function M.obstacle(one)
  local words = table.move(one.words, 1, #one.words, 1, {})
  local rights = one.uid == 0 and {} or { "--user", "--map-root-user" }
  words = table.move(rights, 1, #rights, #words + 2, table.move({ "unshare" }, 1, 1, #words + 1, words))
  words = table.move({ "--net", "--pid", "--fork", "true" }, 1, 4, #words + 1, words)
  local it = program.run(words)
  return it.status ~= 0 and it.err or nil
end

M.start = new_user

--- The words by which the user runs the program, with more of start's options.
function user:command(...)
  local words = table.move(self.words, 1, #self.words, 1, {})
  words[#words + 1] = self.program
  for _, word in ipairs { ... } do words[#words + 1] = word end
  words.env = { TMPDIR = self.tmp, HOME = self.tmp, XDG_RUNTIME_DIR = false, P2PD_LAB = false }
  words.cwd = "/"
  return words
end

--- Runs `p2pd-lua lab …` to its end.
function user:lab(...)
  return program.run(self:command("lab", ...))
end

function user:begin(...)
  return program.start(self:command("lab", ...))
end

--- The pid of a lab's first process, by the file in its folder.
function user:first(name)
  for file in processes.folder(("%s/lab/%s"):format(self.state, name)) do
    local pid = file:match "^first%.(%d+)%."
    if pid then return math.tointeger(pid) end
  end
end

--- What still runs with this folder for its temporary files.
---@return string[]
function M.running_in(folder)
  local found, mark = {}, "\0TMPDIR=" .. folder .. "\0"
  for name in processes.folder "/proc" do
    if name:find "^%d+$" and ("\0" .. processes.read("/proc/" .. name .. "/environ")):find(mark, 1, true) then
      found[#found + 1] = processes.read("/proc/" .. name .. "/cmdline"):gsub("[%z\n]", " "):sub(1, 60)
    end
  end
  return found
end

--- What still runs of what this user began.
function user:running()
  return M.running_in(self.tmp)
end

--- Fails when anything is left: a process (and with it a namespace), a mount, a file.
---@param files? boolean false: files may be left
function user:nothing_left(files)
  program.await(function() return #self:running() == 0 end, 3)
  assert(#self:running() == 0, "these still run: " .. table.concat(self:running(), "; "))
  assert(not processes.read "/proc/self/mountinfo":find(self.tmp, 1, true), "a mount is left")
  if files ~= false then
    assert(not luv.fs_stat(self.state), table.concat(processes.find(self.state, ""), ", ") .. " is left")
  end
end

--- Ends all labs of the user.
function user:clear()
  for name in processes.folder(self.state .. "/lab") do self:lab("down", name) end
end

function user:stop()
  processes.remove(self.tmp)
end

return M
