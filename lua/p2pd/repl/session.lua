-- session: the state of one prompt and what its lines do, wherever they are typed: at this program's terminal
-- (p2pd.repl) or at that of a program that is attached (p2pd.console). What a session needs of that place:
--
--   read(prompt) -> line; nil, message, "EOF", "EINTR" or "E2BIG"      say(text), complain(text), end_line(), fresh()
--   foreground(task or nil): which one Ctrl-C means    remember(text)  width() -> columns    key(seconds) -> pressed
--   and, where it has them: enter(f, ...) calls f as a line's body; others() -> how many tasks the prompt tells of
-- A place that has colours asks hint(typed) for what may come next.
local own_file = require "p2pd.own_file"
local commands = require "p2pd.repl.commands"
local complete = require "p2pd.repl.complete"
local help = require "p2pd.repl.help"
local hints = require "p2pd.repl.hints"
local luv = require "luv"
local pretty = require "p2pd.repl.pretty"
local task = require "p2pd.task"

local M = { CLEARED = "EINTR" } -- what read tells of a line that Ctrl-C has cleared

local LONG = 0.5         -- seconds after which it is said how long a line took
local MOST_LOCALS = 200  -- as many as a function of Lua's can have
local LARGEST = 4 * 1024 * 1024 -- bytes of an unfinished input

local get_local = debug.getlocal

-- Texts ------------------------------------------------------------------------------------------------------------

local function duration(seconds)
  if seconds < 1e-3 then return ("%.0f µs"):format(seconds * 1e6) end
  if seconds < 1 then return ("%.1f ms"):format(seconds * 1e3) end
  return ("%.2f s"):format(seconds)
end

-- A traceback without its last line, which is the body of every task.
local function own_part(traceback)
  return (traceback:gsub("\n\t%[C%]: in %?$", ""):gsub("\n\t%(%.%.%.tail calls%.%.%.%)$", ""))
end

local function first_line(text)
  return text:match "^[^\n]*"
end

-- Compiling --------------------------------------------------------------------------------------------------------

-- Given to each statement, which calls it last: keeps its locals for the lines that follow.
local function keeper(session)
  return function()
    for i = 1, MOST_LOCALS do
      local name, value = get_local(2, i)
      if not name then break end
      if pretty.is_name(name) then rawset(session.env, name, value) end
    end
  end
end

-- An expression, or else a statement. The message of what is not finished yet ends in "<eof>".
local function compile(session, text)
  local name, env = "=repl", session.env
  local expression = load("return " .. text, name, "t", env)
  if expression then return expression end
  local statement, message = load(text, name, "t", env)
  if not statement then return nil, message end
  return load(text .. "\n;(...)()", name, "t", env) or statement
end

-- Running ----------------------------------------------------------------------------------------------------------

-- Runs f as the task that Ctrl-C cancels. Returns whether it ended well, its results or the error, and the seconds.
local function run(session, f, ...)
  local enter = session.place.enter
  local body = (enter and task.spawn(enter, f, ...) or task.spawn(f, ...)):observe()
  session.running, session.stuck, session.interrupted = body, false, false
  session.place.foreground(body)
  local started = luv.hrtime()
  local results = table.pack(pcall(body.wait, body))
  local seconds = (luv.hrtime() - started) / 1e9
  session.running = nil
  local status = body:status()
  if status == "cancelled" and not session.stuck and not session.interrupted then session.place.end_line() end
  session.place.foreground()
  if status == "done" then return true, table.pack(table.unpack(results, 2, results.n)), seconds end
  if status == "failed" then
    session.trace = own_part(body:traceback())
    return false, results[2], seconds
  end
  if status == "cancelled" then
    if session.stuck then return false, "EDEADLOCK: nothing was left that could wake it", seconds end
    return false, task.cancelled, seconds
  end
  error(results[2], 0) -- it is the prompt itself that is cancelled
end

local function error_text(session, value)
  if task.is_cancelled(value) then return "cancelled" end
  if type(value) == "string" then return session.safe(first_line(value)) end
  return "error object: " .. pretty.text(value, session.style())
end

-- Shows what a line came to, as a task too: the values' own functions may be asked for a text.
local function show(session, done, values)
  session.place.fresh()
  local shown, problem = run(session, function()
    if not done then
      session.complain(error_text(session, values))
    elseif values.n > 0 then
      session.say(pretty.list(values, session.style()))
    end
  end)
  if not shown then session.complain("it cannot be shown: " .. error_text(session, problem)) end
end

-- Returns how many seconds it took.
local function evaluate(session, body)
  local done, values, seconds = run(session, body, session.keep)
  if done and values.n > 0 and values[1] ~= nil then
    rawset(session.env, "__", rawget(session.env, "_"))
    rawset(session.env, "_", values[1])
  end
  show(session, done, values)
  return seconds
end

local function hint_at_close(session, text)
  if not session.hinted_close and text:match "^%s*local%s+[%w_]+%s*<%s*close%s*>" then
    session.hinted_close = true
    session.say(session.paint("faint", "(a <close> variable is closed where its line ends; leave <close> out here)"))
  end
end

-- Reading ----------------------------------------------------------------------------------------------------------

local function prompt(session)
  local others = session.place.others and session.place.others() or #task.list() - 1
  local text = others > 0 and ("p2pd (%d)> "):format(others) or "p2pd> "
  if session.continued then text = ("%" .. #text .. "s"):format ".. " end
  return pretty.prompt(text, session.coloured)
end

local function remember(session, text)
  local message = session.place.remember(text)
  if message then session.complain("the history is not written: " .. message) end
end

-- Reads lines until they make a whole. Returns the text and its function; or false when there was none to run; or nil
-- at the end of the input.
local function read(session)
  local text
  while true do
    session.continued = text ~= nil
    local line, message, code = session.place.read(prompt(session), session.continued)
    if not line then
      if code == "EOF" and not text then return nil end
      if code == M.CLEARED and not text and session.cleared == 0 and not session.hinted_quit then
        session.hinted_quit = true
        session.say(session.paint("faint", "(Ctrl-D or :quit leaves)"))
      elseif code == "EOF" then
        session.complain "the unfinished input was dropped"
      elseif code ~= M.CLEARED then
        session.complain(message)
      end
      return false
    end
    if not text and line:match "^%s*:%a*" and not line:match "^%s*::" then
      remember(session, line)
      local name, rest = line:match "^%s*:(%a*)%s*(.-)%s*$"
      commands.run(session, name, rest)
      return false
    end
    text = text and text .. "\n" .. line or line
    if not text:match "%S" then return false end
    local body, problem = compile(session, text)
    if body or problem:sub(-5) ~= "<eof>" then
      remember(session, text)
      if not body then session.complain(session.safe(first_line(problem))) end
      return text, body
    elseif #text > LARGEST then
      session.complain "the input is too long"
      return false
    end
  end
end

-- The session ------------------------------------------------------------------------------------------------------

-- What the init file returns.
local function apply(session, path, wishes)
  for key, value in next, wishes do
    if key ~= "hints" or type(value) ~= "boolean" then
      session.complain(session.safe(("%s: it may return { hints = true or false } alone"):format(path)))
      return
    end
    session.hints = value
  end
end

-- ~/.config/p2pd-lua/init.lua: run before the first line, with what it makes in sight of them all.
local function run_init(session)
  local path = own_file.config "init.lua"
  local text, message, code = own_file.read(path)
  if code == "ENOENT" or code == "ENOTDIR" then return end
  local reason = own_file.objection_to_folder(path:match "^(.*)/")
  if reason then text, message = nil, "its folder: " .. reason end
  if not text then
    session.complain(session.safe(("%s is not run: %s"):format(path, (message:gsub("^%u+: ", "")))))
    return
  end
  local body
  body, message = load((text:gsub("^#[^\n]*", "")), "@" .. path, "t", session.env)
  if not body then return session.complain(session.safe(first_line(message))) end
  local done, wishes = session.foreground(body)
  if done and type(wishes) == "table" then apply(session, path, wishes) end
end

local function preload(session)
  local p2pd = require "p2pd"
  if session.env.p2pd == nil then session.env.p2pd = p2pd end
  -- The names that a table has though they are not in it yet.
  function session.lazy(value) return rawequal(value, p2pd) and help.fields "p2pd" or {} end
end

local session = {}
session.__index = session

--- A session whose lines are typed at that place. Its `names` are seen by its lines, before globals.
---@param place table see above; `coloured`
---@param names? table<string, any>
---@return table session
function M.new(place, names)
  local paint = pretty.painter(place.coloured)
  local env = setmetatable({}, { __index = _G, __newindex = _G })
  for name, value in pairs(names or {}) do rawset(env, name, value) end
  local self = setmetatable({
    place = place, env = env, coloured = place.coloured, paint = paint, hints = place.coloured,
    safe = function(text) return pretty.safe(text, true) end,
    duration = duration, command_names = commands.names, help_names = help.names,
    say = function(text) place.say(text) end,
    complain = function(text) place.complain(paint("error", text)) end,
    key = function(seconds) return place.key(seconds) end,
  }, session)
  self.keep = keeper(self)
  function self.style() return { width = place.width(), paint = paint, is_cancelled = task.is_cancelled } end
  function self.list(values) return pretty.list(values, self.style()) end
  function self.compile(text) return compile(self, text) end
  function self.evaluate(body) return evaluate(self, body) end
  -- Runs f for a command; what goes wrong is shown. Returns whether it went well, and the first result.
  function self.foreground(f, ...)
    local done, values = run(self, f, ...)
    if not done then show(self, false, values) end
    return done, done and values[1]
  end
  preload(self)
  return self
end

--- Runs a script before the first line is read.
function session:run_script(script, ...)
  local done, values = run(self, script, ...)
  if not done then self.complain(self.safe(self.trace or error_text(self, values))) end
end

--- Cancels what runs, if anything does.
---@return boolean
function session:interrupt()
  if not self.running then return false end
  self.interrupted = true
  self.running:cancel()
  return true
end

--- Nothing can wake what runs.
function session:end_stuck()
  if not self.running then return end
  self.stuck = true
  self.running:cancel()
end

function session:prompt()
  return prompt(self)
end

--- The candidates for `word`, the end of what was typed.
function session:candidates(typed, word)
  return complete.candidates(self, typed, word)
end

--- What may come next; nil when there is nothing to tell.
---@param typed string
---@return string? hint, boolean? takeable whether it can become a part of the line
function session:hint(typed)
  if self.hints then return hints.of(self, typed) end
end

--- Tells of what failed in the background; called from outside of any task.
function session:report(kind, what)
  local trace = kind == "task" and what:traceback() or tostring(what)
  self.trace = own_part(trace)
  local where = kind == "task" and tostring(what):match "^task %d+" .. " failed" or "in a callback"
  self.complain(("%s: %s"):format(where, self.safe(first_line(trace))))
end

--- Runs the user's init file.
function session:init()
  run_init(self)
end

--- Reads lines and runs them, until the user leaves.
function session:loop()
  while not self.over do
    local text, body = read(self)
    if text == nil then break end
    if body then
      local seconds = evaluate(self, body)
      if seconds > LONG then self.say(self.paint("faint", ("(%s)"):format(duration(seconds)))) end
      hint_at_close(self, text)
    end
  end
end

return M
