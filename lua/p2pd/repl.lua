-- repl: the prompt. Every line is a task of its own; what other tasks print appears above the line that is typed.
local core = require "p2pd.core"
local luv = require "luv"
local hints = require "p2pd.repl.hints"
local histories = require "p2pd.repl.history"
local sessions = require "p2pd.repl.session"

local M = {}

--- Whether this program's terminal is to show colours.
---@return boolean
function M.colours_wanted()
  local none = os.getenv "NO_COLOR"
  return (not none or none == "") and os.getenv "TERM" ~= "dumb" and luv.guess_handle(1) == "tty"
end

--- What was entered before is found again by arrow up. Always gives a history; where it cannot be kept, also a message.
---@return table history, string? message
function M.open_history()
  local history, message = histories.open()
  for _, entry in ipairs(history.entries) do core.line.remember(entry) end
  return history, message
end

--- Shows a hint behind what is typed; without one, what the history has.
---@param typed string
---@param text? string
---@param takeable? boolean
function M.show_hint(typed, text, takeable)
  if not text then text, takeable = hints.of_history(typed, core.line.recall) end
  if text then core.line.hint(typed, text, takeable) end
end

-- Where the lines of a session of this program's own are typed.
local function new_place()
  local place = { coloured = M.colours_wanted(), width = core.line.width, fresh = core.line.fresh }
  function place.read(prompt) return core.line.read(prompt) end
  function place.say(text) io.stdout:write(text, "\n") end
  function place.complain(text) io.stderr:write(text, "\n") end
  -- The terminal has put ^C there, unless it waits for a key.
  function place.end_line() io.stdout:write(place.keying and "^C\n" or "\n") end
  function place.key(seconds)
    place.keying = true
    return core.line.key(seconds)
  end
  function place.foreground(body)
    core.interrupt.handle(place.on_interrupt, body)
    if not body and place.keying then
      place.keying = false
      core.line.no_keys()
    end
  end
  function place.remember(text)
    local kept, message = place.history:add(text)
    if kept then core.line.remember(text) end
    return message
  end
  return place
end

local function on_interrupt(session, broke_in)
  if session.running then session.place.end_line() end
  if not session:interrupt() and not broke_in then session.cleared = core.line.clear() end
end

local function greet(session)
  session.say(("p2pd-lua %s  %s  %s"):format(core.version, _VERSION,
    session.paint("faint", ":help tells more, Ctrl-D leaves")))
end

--- Runs the script, if there is one, and then what is typed at the terminal, until the user leaves.
---@param script? function
---@param arguments string[] of the script
---@return integer status for the system
function M.run(script, arguments)
  local place = new_place()
  local session = sessions.new(place)
  function place.on_interrupt(broke_in) on_interrupt(session, broke_in) end
  local opened, message = core.line.open {
    complete = function(typed, word) return session:candidates(typed, word) end,
    hint = function(typed)
      if session.hints then M.show_hint(typed, session:hint(typed)) end
    end,
    prompt = function() return session:prompt() end,
    report = function(kind, what) session:report(kind, what) end,
    stuck = function() session:end_stuck() end,
  }
  if not opened then
    io.stderr:write("p2pd-lua: ", message, "\n")
    return 1
  end
  place.foreground()
  greet(session)
  place.history, message = M.open_history()
  if message then session.complain("the history is not kept: " .. message) end
  session:init()
  if script then session:run_script(script, table.unpack(arguments, 1, #arguments)) end
  session:loop()
  core.interrupt.leave()
  return 0
end

return M
