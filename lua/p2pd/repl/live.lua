-- live: what runs beside the prompt, as its commands show it: pipes, labs, and an expression over time.
local task = require "p2pd.task"

local M = {}

local EVERY = 1  -- seconds between two looks
local SHORT = 12 -- letters of a node ID that tell it from others

local units = { "B", "KiB", "MiB", "GiB", "TiB" }

local function bytes(count)
  local place = 1
  while count >= 1024 and place < #units do count, place = count / 1024, place + 1 end
  return (place == 1 and "%d %s" or "%.1f %s"):format(count, units[place])
end

local function age(seconds)
  if seconds < 60 then return ("%.0f s"):format(seconds) end
  if seconds < 3600 then return ("%d min"):format(seconds // 60) end
  return ("%d h %02d min"):format(seconds // 3600, seconds % 3600 // 60)
end

--- The open pipes, the oldest first.
function M.pipes(session)
  local loaded = package.loaded["p2pd.pipe"]
  local lines = {}
  for _, each in ipairs(type(loaded) == "table" and loaded.list() or {}) do
    local peer = each.pipe.peer or "?"
    lines[#lines + 1] = ("  %-8s %-22s peer %s…  %s out, %s in  %s"):format(each.pipe.strategy or "?",
      each.pipe.remote or "?", peer:sub(1, SHORT), bytes(each.sent), bytes(each.received), age(each.age))
  end
  session.say(session.safe(#lines > 0 and table.concat(lines, "\n") or "no pipe is open"))
end

--- The labs that run, or one of them.
function M.labs(session, name)
  session.foreground(function()
    local lab = require "p2pd.lab"
    local names, message = { name }, nil
    if name == "" then names, message = lab.list() end
    if not names then return session.complain(session.safe(message)) end
    if #names == 0 then return session.say "no lab runs; p2pd.lab.up() or `p2pd-lua lab up` makes one" end
    for _, each in ipairs(names) do
      local found, there
      found, message = lab.attach(each)
      if found then there, message = found:status() end
      if there then
        session.say(session.safe((require("p2pd.lab.words").status(there):gsub("\n$", ""))))
      else
        session.complain(session.safe(message))
      end
    end
  end)
end

--- Evaluates the expression again and again, until a key is pressed.
function M.watch(session, code)
  if code == "" then return session.complain ":watch needs an expression" end
  local body, message = session.compile(code)
  if not body then return session.complain(message) end
  session.foreground(function()
    session.key(0) -- from here on it is not shown
    session.say(session.paint("faint", "(any key ends it)"))
    local started, looks = task.now(), 0
    repeat
      local values = table.pack(body(session.keep))
      session.say(("%s  %s"):format(session.paint("faint", os.date "%H:%M:%S"),
        session.list(values)))
      looks = math.max(looks + 1, math.ceil((task.now() - started) / EVERY))
    until session.key(math.max(0, started + looks * EVERY - task.now()))
  end)
end

return M
