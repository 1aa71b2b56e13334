-- prompt: the real program in a pseudo-terminal, and what then stands on the screen.
local program = require "spec.support.program"
local screens = require "spec.support.screen"
local texts = require "spec.support.texts"

local M = {}

local COLUMNS, ENTER = 80, "\r"

local repl = {}
repl.__index = repl

--- Starts the program's prompt, or `command` in its place; ends it with the scope.
function M.start(options)
  options = options or {}
  local folder = not options.home and program.folder() or nil
  local home = options.home or tostring(folder)
  local env = {
    HOME = home, XDG_STATE_HOME = home .. "/state", XDG_CONFIG_HOME = home, XDG_DATA_HOME = home, TERM = "xterm",
    NO_COLOR = "1", INPUTRC = "/dev/null", LC_ALL = "C.UTF-8", LUA_INIT = false, PS1 = "$ ", ENV = false,
  }
  for name, value in pairs(options.env or {}) do env[name] = value end
  local columns = options.columns or COLUMNS
  local command = { env = env, columns = columns }
  table.move(options.command or { program.path, table.unpack(options) }, 1, 10, 1, command)
  local self = setmetatable({ child = program.start_in_terminal(command), folder = folder, columns = columns }, repl)
  if not options.command then self:prompt() end
  return self
end

function repl.__close(self)
  self.child:close()
  if self.folder then getmetatable(self.folder).__close(self.folder) end
end

function repl:lines()
  return screens.of(self.child.out, self.columns)
end

function repl:text()
  return table.concat(self:lines(), "\n")
end

function repl:await(what, condition)
  local met
  program.await(function()
    met = condition(self:lines())
    return met or self.child.status
  end)
  if met then return end
  error(("%s did not come (status %s); on the screen is:\n%s\n%s"):format(what, self.child.status, self:text(),
    self.child.err), 3)
end

-- Waits until the last line is an empty prompt.
function repl:prompt()
  self:await("the prompt", function(lines) return (lines[#lines] or ""):match "^p2pd[%(%d%) ]*>$" end)
end

-- Waits until the last line is this one, up to the cursor, and that faint text stands behind it ("" for none).
function repl:hints(line, hint)
  self:await(("'%s' with the hint '%s'"):format(line, hint), function(lines)
    local _, screen = screens.of(self.child.out, self.columns)
    return lines[#lines] == (line .. hint):gsub(" +$", "") and screen:hint() == hint and screen.row == #lines
  end)
end

-- Waits until the last lines of the screen are these.
function repl:ends(...)
  local wanted, count = table.concat({ ... }, "\n"), select("#", ...)
  self:await(("'%s'"):format(wanted), function(lines)
    return table.concat(lines, "\n", math.max(1, #lines - count + 1)) == wanted
  end)
end

-- Waits until a line is this one.
function repl:shows(text)
  self:await(("'%s'"):format(text), function(lines)
    for _, line in ipairs(lines) do
      if line == text then return true end
    end
  end)
end

function repl:type(text)
  self.child:write(text)
end

-- Types a line and waits until it was run: what came of it is returned, without the line itself.
function repl:enter(text)
  self:prompt()
  local before = #self:lines()
  self:type(text .. ENTER)
  self:await("the next prompt", function(lines) return #lines > before and lines[#lines]:match "^p2pd.*>$" end)
  local lines = self:lines()
  local rows = (#lines[before] + (utf8.len(text) or 0) - 1) // COLUMNS -- those that the line took beyond the first
  return table.concat(lines, "\n", before + 1 + math.max(0, #text > COLUMNS - 6 and rows or 0), #lines - 1)
end

--- Throws unless the text has that part, wherever the screen's rows end.
function M.says(text, part)
  texts.has(text:gsub("%s", ""), (part:gsub("%s", "")))
end

return M
