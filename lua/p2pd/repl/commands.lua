-- commands: what begins with a colon at the prompt.
local live = require "p2pd.repl.live"
local near = require "p2pd.repl.near"
local task = require "p2pd.task"

local M = {}

local intro = [[
Every line is a task: what waits may be written as it is, and other tasks go on meanwhile. A line that is not finished
goes on in the next one. The value of an expression is shown, and kept in _ (the one before it in __).
A local of one line is kept for the next ones, as a copy and only here: functions of the same line keep the original,
other modules do not see it, and setting it to nil brings back the global of that name. Other assignments make globals.
A <close> variable is closed where its line ends: leave <close> out here.
Ctrl-C clears the line, or cancels what runs; tasks in the background (their number is in the prompt) go on.
Ctrl-D leaves. Tab completes. Faint text behind the cursor is what may come next: the parameters of what is called, the
rest of the only name that fits, or of the newest such line; Right or End takes it. Lines that begin with a space, or
hold a secret, are not kept in the history.
]]

local list -- of { name, argument, text, function(session, rest) }

local function help(session, name)
  local reference = require "p2pd.repl.help"
  if name ~= "" then
    name = name:gsub("^:", "")
    local text, message = reference.about(name, session.paint, session.style().width)
    if text then session.say(text) else session.complain(message) end
    return
  end
  local lines = { intro }
  for _, command in ipairs(list) do
    lines[#lines + 1] = ("  %-18s %s"):format(":" .. command[1] .. " " .. command[2], command[3])
  end
  local topics = reference.topics()
  if #topics > 0 then
    lines[#lines + 1] = "\nTopics, by :help TOPIC: " .. table.concat(topics, ", ")
  end
  session.say(table.concat(lines, "\n"))
end

local function quit(session)
  session.over = true
end

local function trace(session)
  session.say(session.trace and session.safe(session.trace) or "nothing has failed yet")
end

-- Tells of the last attempt to connect, by a function of its report that gives a text for the terminal.
local function of_last_attempt(session, text_of)
  local loaded = package.loaded["p2pd.node"]
  local report = type(loaded) == "table" and loaded.last_report
  if not report then
    session.say "nothing was connected yet"
    return
  end
  session.foreground(function() session.say(text_of(report)) end)
end

local function why(session)
  of_last_attempt(session, function(report)
    return session.safe(type(report) == "table" and report.text and report:text() or tostring(report))
  end)
end

local function timeline(session)
  of_last_attempt(session, function(report)
    return require("p2pd.timeline").text(report, { width = session.style().width, colours = session.coloured })
  end)
end

local function scores(session)
  session.say(session.safe(require("p2pd.pipeline.learning").text()))
end

local function tasks(session)
  local all = task.list()
  local own, lines = task.current(), {}
  for i = #all, 1, -1 do -- the oldest first
    if all[i] ~= own then
      local place = ""
      for frame in all[i]:traceback():gmatch "\n\t([^\n]+)" do
        if not frame:find("[C]", 1, true) then
          place = frame:gsub(": in .*$", "")
          break
        end
      end
      lines[#lines + 1] = ("  %-22s %s"):format(tostring(all[i]), place)
    end
  end
  session.say(session.safe(#lines > 0 and table.concat(lines, "\n") or "no task runs in the background"))
end

local function time(session, code)
  if code == "" then
    session.complain ":time needs an expression"
    return
  end
  local body, message = session.compile(code)
  if not body then
    session.complain(message)
    return
  end
  local seconds = session.evaluate(body)
  session.say(session.paint("faint", session.duration(seconds)))
end

local function hints(session, what)
  if what == "on" and not session.coloured then
    return session.complain "hints need a terminal with colours (NO_COLOR is set, or TERM is dumb)"
  end
  if what == "on" or what == "off" then
    session.hints = what == "on"
  elseif what == "" then
    session.say("hints are " .. (session.hints and "on" or "off"))
  else
    session.complain(":hints is 'on' or 'off', not '" .. session.safe(what) .. "'")
  end
end

list = {
  { "help", "[NAME]", "this text, or what is known of a function, a type, or a topic", help },
  { "quit", "", "leave, as Ctrl-D does; what runs in the background is cancelled", quit },
  { "trace", "", "where the last error was thrown", trace },
  { "why", "", "what the last connection attempt did, and why", why },
  { "timeline", "", "the same over time: what was tried as bars, packets as marks", timeline },
  { "scores", "", "what learn knows of each pair of networks: what was tried, how it went, what comes first", scores },
  { "tasks", "", "what runs in the background, and where it waits", tasks },
  { "time", "EXPR", "how long the expression takes", time },
  { "hints", "[on|off]", "whether what may come next is shown behind the cursor (init.lua: return { hints = false })",
    hints },
  { "pipes", "", "the open pipes: with whom, by which strategy, how much went through, for how long", live.pipes },
  { "lab", "[NAME]", "the labs that run, their routers, hosts and servers", live.labs },
  { "watch", "EXPR", "evaluate the expression every second, until a key is pressed", live.watch },
  { "reload", "[NAME]", "require a module anew, or load a strategy's file; alone: the pipelines of all nodes",
    require "p2pd.repl.reload" },
}

function M.names()
  local names = {}
  for i, command in ipairs(list) do names[i] = command[1] end
  return names
end

--- Runs ":name rest". An abbreviation that only one command begins with will do.
---@param session table
---@param name string
---@param rest string
function M.run(session, name, rest)
  local matching = {}
  for _, command in ipairs(list) do
    if command[1] == name then
      command[4](session, rest)
      return
    end
    if name ~= "" and command[1]:sub(1, #name) == name then matching[#matching + 1] = command end
  end
  if #matching == 1 then
    matching[1][4](session, rest)
    return
  end
  local guess = near.among(name, M.names())
  session.complain(("there is no command ':%s'%s"):format(name,
    guess and "; did you mean :" .. guess:gsub(" or ", " or :") .. "?" or "; :help lists them"))
end

return M
