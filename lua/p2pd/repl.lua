-- repl: the prompt. Every line is a task of its own; what other tasks print appears above the line that is typed.
local core = require "p2pd.core"
local luv = require "luv"
local commands = require "p2pd.repl.commands"
local complete = require "p2pd.repl.complete"
local help = require "p2pd.repl.help"
local histories = require "p2pd.repl.history"
local pretty = require "p2pd.repl.pretty"
local task = require "p2pd.task"

local M = {}

local LONG = 0.5         -- seconds after which it is said how long a line took
local MOST_LOCALS = 200  -- as many as a function of Lua's can have
local LARGEST = 4 * 1024 * 1024 -- bytes of an unfinished input

local get_local = debug.getlocal

-- Texts ------------------------------------------------------------------------------------------------------------

local function colours_wanted()
  local none = os.getenv "NO_COLOR"
  return (not none or none == "") and os.getenv "TERM" ~= "dumb" and luv.guess_handle(1) == "tty"
end

local function duration(seconds)
  if seconds < 1e-3 then return ("%.0f µs"):format(seconds * 1e6) end
  if seconds < 1 then return ("%.1f ms"):format(seconds * 1e3) end
  return ("%.2f s"):format(seconds)
end

-- A traceback without its last line, which is the body of every task.
local function own_part(traceback)
  return (traceback:gsub("\n\t%[C%]: in %?$", ""))
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
  local body = task.spawn(f, ...):observe()
  session.running, session.stuck, session.interrupted = body, false, false
  core.interrupt.handle(session.on_interrupt, body)
  local started = luv.hrtime()
  local results = table.pack(pcall(body.wait, body))
  local seconds = (luv.hrtime() - started) / 1e9
  session.running = nil
  core.interrupt.handle(session.on_interrupt)
  local status = body:status()
  if status == "done" then return true, table.pack(table.unpack(results, 2, results.n)), seconds end
  if status == "failed" then
    session.trace = own_part(body:traceback())
    return false, results[2], seconds
  end
  if status == "cancelled" then
    if session.stuck then return false, "EDEADLOCK: nothing was left that could wake it", seconds end
    if not session.interrupted then session.end_line() end
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
  core.line.fresh()
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
  local others = #task.list() - 1
  local text = others > 0 and ("p2pd (%d)> "):format(others) or "p2pd> "
  if session.continued then text = ("%" .. #text .. "s"):format ".. " end
  if not session.coloured then return text end
  return "\1\27[1m\2" .. text .. "\1\27[0m\2"
end

local function remember(session, text)
  local kept, message = session.history:add(text)
  if kept then core.line.remember(text) end
  if message then session.complain("the history is not written: " .. message) end
end

-- Reads lines until they make a whole. Returns the text and its function; or false when there was none to run; or nil
-- at the end of the input.
local function read(session)
  local text
  while true do
    session.continued = text ~= nil
    local line, message, code = core.line.read(prompt(session))
    if not line then
      if code == "EOF" and not text then return nil end
      if code == "EINTR" and not text and session.cleared == 0 and not session.hinted_quit then
        session.hinted_quit = true
        session.say(session.paint("faint", "(Ctrl-D or :quit leaves)"))
      elseif code == "EOF" then
        session.complain "the unfinished input was dropped"
      elseif code ~= "EINTR" then
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

local function greet(session)
  session.say(("p2pd-lua %s  %s  %s"):format(core.version, _VERSION,
    session.paint("faint", ":help tells more, Ctrl-D leaves")))
end

-- The session ------------------------------------------------------------------------------------------------------

local function new_session()
  local coloured = colours_wanted()
  local paint = pretty.painter(coloured)
  local session = {
    env = setmetatable({}, { __index = _G, __newindex = _G }),
    coloured = coloured, paint = paint, safe = function(text) return pretty.safe(text, true) end,
    duration = duration, command_names = commands.names, help_names = help.names,
  }
  session.keep = keeper(session)
  function session.say(text) io.stdout:write(text, "\n") end
  function session.end_line() io.stdout:write "\n" end -- the terminal has put ^C there
  function session.complain(text) io.stderr:write(paint("error", text), "\n") end
  function session.style()
    return { width = core.line.width(), paint = paint, is_cancelled = task.is_cancelled }
  end
  function session.compile(text) return compile(session, text) end
  function session.evaluate(body) return evaluate(session, body) end
  -- Runs f for a command; what goes wrong is shown. Returns whether it went well, and the first result.
  function session.foreground(f, ...)
    local done, values = run(session, f, ...)
    if not done then show(session, false, values) end
    return done, done and values[1]
  end
  function session.on_interrupt(broke_in)
    if session.running then
      session.interrupted = true
      session.end_line()
      session.running:cancel()
    elseif not broke_in then
      session.cleared = core.line.clear()
    end
  end
  return session
end

-- Tells of what failed in the background; called from outside of any task.
local function report(session, kind, what)
  local trace = kind == "task" and what:traceback() or tostring(what)
  session.trace = own_part(trace)
  local place = kind == "task" and tostring(what):match "^task %d+" .. " failed" or "in a callback"
  session.complain(("%s: %s"):format(place, session.safe(first_line(trace))))
end

local function open_line(session)
  return core.line.open {
    complete = function(typed, word) return complete.candidates(session, typed, word) end,
    prompt = function() return prompt(session) end,
    report = function(kind, what) report(session, kind, what) end,
    stuck = function()
      if session.running then
        session.stuck = true
        session.running:cancel()
      end
    end,
  }
end

local function open_history(session)
  local message
  session.history, message = histories.open()
  if message then session.complain("the history is not kept: " .. message) end
  for _, entry in ipairs(session.history.entries) do core.line.remember(entry) end
end

local function preload(session)
  local p2pd = require "p2pd"
  if rawget(_G, "p2pd") == nil then rawset(_G, "p2pd", p2pd) end
  -- The names that a table has though they are not in it yet.
  function session.lazy(value) return value == p2pd and help.fields "p2pd" or {} end
end

--- Runs the script, if there is one, and then what is typed at the terminal, until the user leaves.
---@param script? function
---@param arguments string[] of the script
---@return integer status for the system
function M.run(script, arguments)
  local session = new_session()
  local opened, message = open_line(session)
  if not opened then
    io.stderr:write("p2pd-lua: ", message, "\n")
    return 1
  end
  core.interrupt.handle(session.on_interrupt)
  greet(session)
  open_history(session)
  preload(session)
  if script then
    local done, values = run(session, script, table.unpack(arguments, 1, #arguments))
    if not done then session.complain(session.safe(session.trace or error_text(session, values))) end
  end
  while not session.over do
    local text, body = read(session)
    if text == nil then break end
    if body then
      local seconds = evaluate(session, body)
      if seconds > LONG then session.say(session.paint("faint", ("(%s)"):format(duration(seconds)))) end
      hint_at_close(session, text)
    end
  end
  core.interrupt.leave()
  return 0
end

return M
