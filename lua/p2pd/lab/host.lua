-- host: running programs on a host of a lab.
local luv = require "luv"
local process = require "p2pd.process"
local enter = require "p2pd.lab.enter"
local needs = require "p2pd.lab.needs"
local state = require "p2pd.lab.state"

local M = {}

local SOON_MS = 2 -- in which to look again whether a command has come to be

local host = {}
host.__index = host
host.__name = "p2pd.lab.host"

M.methods = host -- for spec/meta_spec.lua

local function is_text(value) return type(value) == "string" end
local function is_word(value) return type(value) == "string" or type(value) == "number" end

-- Each with what its value is, and in words.
local known = {
  timeout = { function(value) return type(value) == "number" and value >= 0 end, "a number of seconds, zero or more" },
  input = { is_text, "a string" },
  root = { function(value) return type(value) == "boolean" end, "true or false" },
  cwd = { is_text, "a string" },
  env = {
    function(value)
      if type(value) ~= "table" then return false end
      for name, text in pairs(value) do
        if not is_text(name) or not name:find "^[^=%z-][^=%z]*$" or not is_word(text) then return false end
      end
      return true
    end, "a table of strings by names",
  },
}

-- What each call takes besides the command.
local takes = {
  run = { timeout = true, input = true, root = true, cwd = true, env = true },
  lua = { timeout = true, root = true, cwd = true, env = true },
  start = { input = true, root = true, cwd = true, env = true },
  exec = { root = true, cwd = true, env = true },
  argv = { root = true, cwd = true, env = true },
}

local function show(value)
  if type(value) == "table" then return "a table with others" end
  return type(value) == "string" and ("'%s'"):format(value) or tostring(value)
end

-- Throws, at the line that called the function of that name, what is wrong with its command.
local function check(command, call)
  if type(command) ~= "table" or not is_text(command[1]) then
    error("a command is a table: { \"program\", arguments… }", 3)
  end
  local count = #command
  for key, value in pairs(command) do
    local is_argument = math.type(key) == "integer" and key >= 1 and key <= count
    if is_argument and not is_word(value) then
      error(("argument %d is a %s, not a string"):format(key - 1, type(value)), 3)
    elseif not is_argument then
      if not takes[call][key] then error(("unknown option '%s' of %s"):format(tostring(key), call), 3) end
      local is_good, wish = table.unpack(known[key])
      if not is_good(value) then error(("'%s' is %s, not %s"):format(key, show(value), wish), 3) end
    end
  end
end

--- A host of a lab, as the keeper tells of it.
function M.new(lab, name, told)
  return setmetatable({ lab = lab, name = name, pid = told.pid, folder = told.folder, hosts = told.hosts }, host)
end

-- The words by which the command is run there, where the lab can be reached.
local function words_of(self, command, parent)
  if self.lab.closed then return nil, "ECLOSED: the lab is down", "ECLOSED" end
  local ok, message, code = state.reach(self.lab.name, self.lab.identity)
  if not ok then return nil, message, code end
  local words = {}
  for i, word in ipairs(command) do words[i] = tostring(word) end
  return enter.argv {
    first = self.lab.identity, lab = self.lab, host = self, program = self.lab.program, command = words,
    root = command.root, cwd = command.cwd, env = command.env, parent = parent,
  }
end

-- The same as p2pd.process takes them.
local function options_of(self, command)
  local options, mark, code = words_of(self, command, luv.os_getpid())
  if not options then return nil, mark, code end
  options.name, options.env = command[1], needs.environment()
  return options, mark
end

function host:argv(command)
  check(command, "argv")
  local words, message, code = words_of(self, command)
  if words then return words end
  return nil, message, code
end

-- Starts a command whose end is the end of all that it has started, in a session of its own.
local function start(self, command, output)
  local options, mark, why = options_of(self, command)
  if not options then return nil, mark, why end
  options.input, options.output, options.session, options.signal = true, output, true, enter.signal_all(mark)
  local child, message, code = process.start(options)
  if child and command.input then child:write(command.input) end
  return child, message, code
end

--- Starts a program there.
function host:start(command)
  check(command, "start")
  local child, message, code = start(self, command, "lines")
  if child and command.input then child:finish_input() end
  return child, message, code
end

local function run(self, command)
  local child <close>, message, code = start(self, command, "text")
  if not child then return nil, message, code end
  child:finish_input()
  return child:whole(command.timeout)
end

--- Runs a program there to its end.
function host:run(command)
  check(command, "run")
  return run(self, command)
end

-- Whether this program is in the foreground of a terminal, which then sends its signals to the command too.
local function has_terminal()
  local file = assert(io.open "/proc/self/stat")
  local group, foreground = file:read "a":match "^.*%) %S %d+ (%d+) %d+ %S+ (%S+)" -- proc_pid_stat(5): pgrp, tpgid
  file:close()
  return group == foreground
end

local function close_all(handles)
  for _, handle in ipairs(handles) do handle:close() end
end

-- Signals on their way to a command: none is lost while that comes to be. `send` and `begin` may come in any order.
local function new_courier(mark)
  local self, waiting, timer = {}, {}, luv.new_timer()
  local child, command
  local function deliver()
    command = command or enter.command(child.pid, mark)
    if not command and not child.status then return end
    timer:stop()
    for _, name in ipairs(waiting) do
      if not child.status then luv.kill(command, name) end
    end
    waiting = {}
  end
  function self.send(name)
    local by_terminal = (name == "sigint" or name == "sigquit") and has_terminal()
    if command and by_terminal then return end
    waiting[#waiting + 1] = name
    if child and not timer:is_active() then timer:start(0, SOON_MS, deliver) end
  end
  function self.begin(started)
    child = started
    timer:start(0, SOON_MS, deliver)
  end
  function self.close() timer:close() end
  return self
end

--- Runs a program there with our terminal and files as its own. Signals are for the program: it gets those that it
--- does not get by itself.
function host:exec(command)
  check(command, "exec")
  local options, mark, why = options_of(self, command)
  if not options then return nil, mark, why end
  options.input, options.output, options.signal = "inherit", "inherit", enter.signal(mark)
  local courier = new_courier(mark)
  local open <close> = setmetatable({ courier }, { __close = close_all })
  for _, name in ipairs { "sigint", "sigquit", "sigterm", "sighup" } do
    local signal = luv.new_signal()
    open[#open + 1] = signal
    signal:start(name, function() courier.send(name) end)
  end
  local child <close>, message, code = process.start(options)
  if not child then return nil, message, code end
  courier.begin(child)
  child:wait()
  return child:exit_status()
end

--- Runs Lua source there, in a p2pd-lua of its own, to its end.
function host:lua(source, options)
  if type(source) ~= "string" then error("Lua source is a string, not a " .. type(source), 2) end
  local command = { self.lab.program, "-" }
  for key, value in pairs(options or {}) do
    if math.type(key) == "integer" then command[key + 2] = value else command[key] = value end
  end
  check(command, "lua")
  command.input = source
  return run(self, command)
end

function host:__tostring()
  return ("host %s of lab %s"):format(self.name, self.lab.name)
end

return M
