-- attaching: the prompt inside another program, seen from here: lines are edited here and evaluated there.
local core = require "p2pd.core"
local frames = require "p2pd.repl.frames"
local luv = require "luv"
local meeting_place = require "p2pd.repl.meeting_place"
local pretty = require "p2pd.repl.pretty"
local repl = require "p2pd.repl"
local task = require "p2pd.task"

local M = {}

local COMPLETION = 0.5 -- seconds that the names may take
local PATIENCE = 5     -- seconds that the program may take to greet
local GIVE_UP = 3      -- times that Ctrl-C may stay unanswered
local HELD = 1 << 20   -- bytes that may come before the names do
local WORDS = 1000     -- bytes of what the program says of its end
local PROMPT = 100     -- bytes, with what makes it bold

local safe = pretty.safe

local link = {}
link.__index = link

local function send(self, kind, payload)
  if not self.over then self.stream:write(frames.encode(kind, payload)) end
end

-- What the program says -----------------------------------------------------------------------------------------------

local handlers = {}

local function finish(self, words, as_failure)
  if self.over then return end
  self.over, self.words, self.failed = true, words, as_failure
  if self.reader then self.reader:cancel() end
  if self.keys then handlers.k(self) end
  self.changed:signal()
end

function handlers:H(payload)
  if self.greeted then return finish(self, "EFORMAT: a second greeting", true) end
  local fields, message = frames.read_greeting(payload)
  if not fields then return finish(self, message, true) end
  self.greeted = fields
end

-- Of a prompt only its words are the program's.
local function ask(self, payload, goes_on)
  local words = safe(payload:sub(1, PROMPT):gsub("^\1[^\2]*\2(.*)\1[^\2]*\2$", "%1"))
  self.asked = { pretty.prompt(words, self.coloured), goes_on = goes_on }
  self.unanswered = 0
end

function handlers:P(payload) ask(self, payload, false) end
function handlers:p(payload) ask(self, payload, true) end

function handlers.O(_, payload)
  io.stdout:write(payload)
  io.stdout:flush()
end

function handlers.E(_, payload)
  io.stderr:write(payload)
end

function handlers:F()
  if not self.reader then core.line.fresh() end
end

function handlers:K()
  if self.keys or self.reader or not self.history then return end
  core.line.keys()
  self.keys = task.spawn(function()
    core.line.key()
    send(self, "K")
  end):observe()
end

function handlers:k()
  if self.keys then self.keys:cancel() end
  self.keys = nil
  core.line.no_keys()
end

function handlers:C(payload)
  if #payload < 4 or (">I4"):unpack(payload) ~= self.number then return end
  self.names = {}
  for name in payload:sub(5):gmatch "([^\n]+)\n" do
    if name:find "^[%w_]+$" then self.names[#self.names + 1] = name end
  end
end

-- One hint is asked for at a time, and waited for by nobody: it is shown if the line is still the same when it comes.
local function ask_hint(self, typed)
  if self.hinting then
    self.hint_next = typed
    return
  end
  self.hinting = typed
  send(self, "T", typed)
end

function handlers:T(payload)
  local typed, next_one = self.hinting, self.hint_next
  if not typed then return end
  self.hinting, self.hint_next = nil, nil
  if next_one then return ask_hint(self, next_one) end
  if payload == "" then return end -- they are off there
  local takeable, text = payload:match "^([01])(.+)$"
  if text and safe(text) ~= text then text = nil end
  repl.show_hint(typed, text, takeable == "1")
end

function handlers:X(payload)
  finish(self, payload:sub(1, WORDS), payload:find "^E%u+: " ~= nil)
end

-- The next frame; those that came while names were waited for are first.
local function next_frame(self)
  self.held_place = self.held_place + 1
  local held = self.held[self.held_place]
  if held then return held[1], held[2] end
  self.held, self.held_place = {}, 0
  return self.frames:pop()
end

local function handle_all(self)
  for kind, payload in next_frame, self do
    if self.over then return end
    local handler = handlers[kind]
    if not handler then return finish(self, "EFORMAT: only who attaches sends that", true) end
    handler(self, payload)
  end
  if self.frames.wrong then return finish(self, self.frames.wrong, true) end
  self.changed:signal()
end

local function on_read(self, failure, bytes)
  self.frames:feed(bytes or "")
  handle_all(self)
  if failure or not bytes then finish(self, "the program has gone", true) end
end

-- The terminal --------------------------------------------------------------------------------------------------------

-- readline asks, and waits for the answer: so does this. What else comes meanwhile is shown after it.
local function candidates(self, typed, word)
  if self.over or self.stream:get_write_queue_size() > 0 then return {} end
  self.number, self.names = (self.number or 0) + 1, nil
  send(self, "C", (">I4s4s4"):pack(self.number, typed, word))
  local deadline, size = task.now() + COMPLETION, 0
  while not self.names and task.now() < deadline and size < HELD do
    local bytes = core.console.read(self.stream:fileno(), math.max(0.001, deadline - task.now()))
    if not bytes then break end
    size = size + #bytes
    self.frames:feed(bytes)
    for kind, payload in self.frames.pop, self.frames do
      if kind == "C" then handlers.C(self, payload) else self.held[#self.held + 1] = { kind, payload } end
    end
  end
  if #self.held > 0 or self.frames.wrong then
    local timer = luv.new_timer()
    timer:start(0, 0, function()
      timer:close()
      handle_all(self)
    end)
  end
  local names = {}
  for _, name in ipairs(self.names or {}) do
    if name:sub(1, #word) == word then names[#names + 1] = name end
  end
  return names
end

local function on_interrupt(self)
  local cleared = core.line.clear()
  if cleared then
    self.cleared = cleared
    return
  end
  io.stdout:write(self.keys and "^C\n" or "\n") -- the terminal puts ^C there, unless it waits for a key
  self.unanswered = self.unanswered + 1
  if self.unanswered > GIVE_UP then return finish(self, "the program does not answer: detached from it", true) end
  send(self, "I")
end

local function remember(self)
  if not self.text then return end
  local kept, message = self.history:add(self.text)
  if kept then core.line.remember(self.text) end
  if message then io.stderr:write("the history is not written: ", message, "\n") end
  self.text = nil
end

-- Reads the line that the program asked for. False when the user leaves.
local function answer(self, asked)
  if not asked.goes_on then remember(self) end
  self.reader = task.spawn(core.line.read, asked[1]):observe()
  local line, message, code = self.reader:wait()
  self.reader = nil
  if self.over then return true end
  if line then
    self.text = self.text and self.text .. "\n" .. line or line
    send(self, "L", ("%d\n%s"):format(math.min(9999, core.line.width()), line))
    return true
  end
  self.text = nil
  if code == "EOF" and not asked.goes_on then return false end
  if code ~= "EOF" and code ~= "EINTR" then io.stderr:write(message, "\n") end
  send(self, code == "EOF" and "Z" or "I", tostring(code == "EINTR" and self.cleared or 1))
  return true
end

local function open_terminal(self)
  local opened, message, code = core.line.open {
    complete = function(typed, word) return candidates(self, typed, word) end,
    hint = self.coloured and function(typed) ask_hint(self, typed) end or nil,
    report = function(_, what) io.stderr:write("p2pd-lua attach: ", tostring(what), "\n") end,
  }
  if not opened then return nil, message, code end
  core.interrupt.handle(function() on_interrupt(self) end)
  self.history, message = repl.open_history()
  if message then io.stderr:write("the history is not kept: ", message, "\n") end
  return true
end

local function await(self, condition, seconds)
  local deadline = seconds and task.now() + seconds
  while not self.over and not condition() do
    if deadline and task.now() >= deadline then return false end
    self.changed:wait(deadline and math.max(0, deadline - task.now()))
  end
  return not self.over
end

local function failed(words)
  words = safe(words)
  if not words:find "^E%u+: " then words = "ECLOSED: " .. words end
  return nil, words, words:match "^E%u+"
end

--- The prompt of the program that has its console there, until the user or the program leaves.
---@param path string
---@return boolean? ok, string? message, string? code
function M.run(path)
  local stream, message, code = meeting_place.connect(path)
  if not stream then return nil, message, code end
  local self = setmetatable({
    stream = stream, frames = frames.reader(), held = {}, held_place = 0, changed = task.condition(),
    unanswered = 0, over = false, coloured = repl.colours_wanted(),
  }, link)
  local _ <close> = setmetatable({}, { __close = function()
    self.over = true
    if self.keys then self.keys:cancel() end
    stream:close()
  end })
  stream:read_start(function(failure, bytes) on_read(self, failure, bytes) end)
  stream:write(frames.greeting { width = 80, colours = self.coloured and 1 or 0 })
  if not await(self, function() return self.greeted end, PATIENCE) then
    return failed(self.words or "ETIMEDOUT: the program does not greet")
  end
  local opened
  opened, message, code = open_terminal(self)
  if not opened then return nil, message, code end
  io.stdout:write(("attached to process %s (p2pd-lua %s); Ctrl-D detaches\n"):format(safe(self.greeted.pid or "?"),
    safe(self.greeted.program or "?")))
  while await(self, function() return self.asked end) do
    local asked = self.asked
    self.asked = nil
    if not answer(self, asked) then
      self.words = "detached; the program goes on"
      break
    end
  end
  remember(self)
  core.line.fresh()
  core.interrupt.leave()
  if self.failed then return failed(self.words) end
  if self.words ~= "" then io.stdout:write(safe(self.words), "\n") end
  return true
end

return M
