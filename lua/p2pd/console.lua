-- console: the prompt inside a program that runs, for who attaches to its Unix socket: `p2pd-lua attach PATH`. What is
-- typed there is evaluated here; each who attaches has locals of its own.
local core = require "p2pd.core"
local frames = require "p2pd.repl.frames"
local luv = require "luv"
local meeting_place = require "p2pd.repl.meeting_place"
local pretty = require "p2pd.repl.pretty"
local sessions = require "p2pd.repl.session"
local task = require "p2pd.task"

local M = {}

local MOST = 8                     -- that may be attached at once
local PATIENCE = 5000              -- milliseconds until the other side has said what it is
local PART = 64 * 1024             -- bytes of output in one frame
local QUEUED = 1024 * 1024         -- bytes of output that wait for a slow reader; with more the line waits, too
local TYPED_AHEAD = 1000           -- frames that wait for their turn
local TYPED_BYTES = 1024 * 1024    -- and how much is in them
local HINTED = 4096                -- bytes of a text that a hint is given for
local NAMES = 1000                 -- of a completion
local LOOK_EVERY = 1000000         -- instructions of a busy line between two looks at what was typed
local TASKS_EVERY = 100            -- milliseconds between two looks at the tasks that lines began

-- One who is attached -------------------------------------------------------------------------------------------------

local attached = {}
attached.__index = attached

-- One write is under way at a time, so that many small ones cost no more than their bytes.
function attached:flush()
  if self.writing or self.waiting == 0 then return end
  local bytes = table.concat(self.parts)
  self.parts, self.waiting, self.writing = {}, 0, #bytes
  local sent = self.stream:write(bytes, function()
    self.writing = nil
    self:flush()
    self.changed:signal()
  end)
  if not sent then self.writing = nil end
end

function attached:write(bytes)
  if self.ended then return end
  self.parts[#self.parts + 1] = bytes
  self.waiting = self.waiting + #bytes
  self:flush()
end

local function is_full(self)
  return self.waiting + (self.writing or 0) > QUEUED and not self.ended
end

function attached:send(kind, payload)
  self:write(frames.encode(kind, payload))
end

-- Output. The line that runs waits for a slow reader, if it may wait where it is; what others write is left out then.
function attached:show(kind, text)
  if self.ended then return end
  if is_full(self) and task.current() == self.session.running then
    local ok, problem = pcall(function()
      while is_full(self) do self.changed:wait() end
    end)
    if not ok and task.is_cancelled(problem) then error(problem, 0) end
  end
  if is_full(self) then
    self.left_out = (self.left_out or 0) + #text
    return
  end
  if self.left_out then
    self:send("E", ("(%d bytes were left out: they came faster than they could be shown)\n"):format(self.left_out))
    self.left_out = nil
  end
  for from = 1, #text, PART do self:send(kind, text:sub(from, from + PART - 1)) end
end

-- What the lines write is for who typed them, not for the program's own streams.
local function own_print(self)
  return function(...)
    local texts = table.pack(...)
    for i = 1, texts.n do texts[i] = tostring(texts[i]) end
    self:show("O", table.concat(texts, "\t", 1, texts.n) .. "\n")
  end
end

local function own_stream(self, kind, file)
  local stream = {}
  function stream.write(_, ...)
    for _, part in ipairs { ... } do
      local kind_of = type(part)
      if kind_of ~= "string" and kind_of ~= "number" then error("a string is expected, not a " .. kind_of, 2) end
    end
    self:show(kind, table.concat { ... })
    return stream
  end
  function stream.flush() return stream end
  function stream.setvbuf() return true end
  return setmetatable(stream, {
    __index = function(_, key)
      local method = file[key]
      return type(method) == "function" and function(_, ...) return method(file, ...) end or method
    end,
    __name = "console", __tostring = function() return "file (console)" end,
  })
end

local function own_io(self)
  local out, err = own_stream(self, "O", io.stdout), own_stream(self, "E", io.stderr)
  return setmetatable({
    stdout = out, stderr = err, write = function(...) return out:write(...) end,
    read = function() return nil, "ENOTSUP: standard input is the program's own" end,
  }, { __index = io })
end

-- Each task that a line begins: what it fails of is told here, and is no failure of the program's.
local function watch_tasks(self)
  for each in pairs(self.tasks) do
    local status = each:status()
    if status == "failed" then self.session:report("task", each) end
    if status == "failed" or status == "done" or status == "cancelled" then self.tasks[each] = nil end
  end
  if not next(self.tasks) then self.timer:stop() end
end

local function adopt_task(self, begun)
  if not next(self.tasks) and not self.ended then
    self.timer:start(TASKS_EVERY, TASKS_EVERY, function() watch_tasks(self) end)
    self.timer:unref()
  end
  self.tasks[begun:observe()] = true
end

local function count(tasks)
  local n = 0
  for each in pairs(tasks) do
    local status = each:status()
    if status == "parked" or status == "ready" or status == "running" then n = n + 1 end
  end
  return n
end

-- What came while a busy line kept the loop from turning.
local function glance(self)
  local bytes = core.console.read(self.stream:fileno(), 0)
  if bytes ~= "" then self:take(bytes) end
  local running = self.session.running
  if running and self.session.interrupted then core.console.break_in(running) end
end

local function place_of(self)
  local place = { coloured = self.coloured }
  function place.width() return self.columns end
  function place.say(text) self:show("O", text .. "\n") end
  function place.complain(text) self:show("E", text .. "\n") end
  function place.fresh() self:send "F" end
  function place.end_line() end
  function place.remember() end -- the other side does
  function place.others() return count(self.tasks) end
  function place.foreground(body)
    if body or not self.wants_key then return end
    self.wants_key, self.pressed = false, false
    self:send "k"
  end
  function place.key(seconds)
    if not self.wants_key then
      self.wants_key, self.pressed = true, false
      self:send "K"
    end
    local deadline = task.now() + seconds
    while not self.pressed and not self.ended and task.now() < deadline do
      self.changed:wait(math.max(0, deadline - task.now()))
    end
    return self.pressed or self.ended
  end
  function place.read(prompt, goes_on)
    while is_full(self) do self.changed:wait() end
    self:send(goes_on and "p" or "P", prompt)
    while #self.typed == 0 do
      if self.ended then return nil, "EOF: the other side has gone", "EOF" end
      self.changed:wait()
    end
    local kind, text = table.unpack(table.remove(self.typed, 1))
    self.typed_bytes = self.typed_bytes - #text
    if kind == "L" then return text end
    if kind == "Z" then return nil, "EOF: the input ends", "EOF" end
    self.session.cleared = math.tointeger(tonumber(text)) or 0
    return nil, "the line was cleared", sessions.CLEARED
  end
  -- The hook stays with the line's own coroutine.
  function place.enter(f, ...)
    task.tell_of_spawns(self.begun)
    debug.sethook(function() glance(self) end, "", LOOK_EVERY)
    return f(...)
  end
  return place
end

-- What it says ----

local handlers = {}

function handlers:L(payload)
  local columns, text = payload:match "^(%d%d?%d?%d?)\n(.*)$"
  if not columns then return self:refuse "EFORMAT: a line without its columns" end
  self.columns = math.max(1, tonumber(columns))
  self:queue("L", text)
end

function handlers:Z() self:queue "Z" end

function handlers:I(payload)
  if not self.session:interrupt() then self:queue("I", payload) end
end

function handlers:K()
  self.pressed = self.wants_key
end

-- What is asked while a line is typed is answered to who reads the answers.
local function answer(self, kind, payload)
  if is_full(self) then return self:refuse "EMSGSIZE: more was asked than is read" end
  self:send(kind, payload)
end

function handlers:C(payload)
  local ok, number, typed, word = pcall(string.unpack, ">I4s4s4", payload)
  if not ok or typed:sub(-#word) ~= word and word ~= "" then return self:refuse "EFORMAT: a broken completion" end
  local found, names = pcall(self.session.candidates, self.session, typed, word)
  local list = {}
  for i, name in ipairs(found and names or {}) do
    if i > NAMES then break end
    list[i] = name .. "\n"
  end
  answer(self, "C", (">I4"):pack(number) .. table.concat(list):sub(1, frames.LARGEST - 4))
end

function handlers:T(typed)
  local ok, text, takeable
  if #typed <= HINTED then ok, text, takeable = pcall(self.session.hint, self.session, typed) end
  answer(self, "T", self.session.hints and (takeable and "1" or "0") .. (ok and text or "") or "")
end

function attached:queue(kind, payload)
  payload = payload or ""
  if #self.typed >= TYPED_AHEAD or self.typed_bytes + #payload > TYPED_BYTES then
    return self:refuse "EMSGSIZE: more was typed than is read"
  end
  self.typed_bytes = self.typed_bytes + #payload
  self.typed[#self.typed + 1] = { kind, payload }
end

function handlers:H(payload)
  if self.session then return self:refuse "EFORMAT: a second greeting" end
  local fields, message = frames.read_greeting(payload)
  if not fields then return self:refuse(message) end
  self.timer:stop()
  self.columns = math.max(1, math.min(9999, math.tointeger(tonumber(fields.width)) or 80))
  self.coloured = fields.colours == "1"
  self.session = sessions.new(place_of(self), self.names)
  self:write(frames.greeting { pid = ("%d"):format(luv.os_getpid()), program = core.version or "?" })
  self.task = task.spawn(function()
    local words = "the program has ended"
    local _ <close> = setmetatable({}, { __close = function() self:close(words) end })
    self.session:loop()
    words = ""
  end):observe()
end

function attached:refuse(message)
  self:close(message)
end

-- Takes in bytes; nil at the end.
function attached:take(bytes)
  self.reader:feed(bytes or "")
  for kind, payload in self.reader.pop, self.reader do
    local handler = handlers[kind]
    if not handler then return self:refuse "EFORMAT: only a program sends that" end
    handler(self, payload)
    if self.ended then return end
  end
  if self.reader.wrong then return self:refuse(self.reader.wrong) end
  if not bytes then self:close() end
  self.changed:signal()
end

-- Ends it; what is said of the end is the last that it hears.
function attached:close(words)
  if self.ended then return end
  if words then self:send("X", words) end
  self.ended = true
  self.console.attached[self] = nil
  if self.session then self.session:interrupt() end
  self.changed:signal()
  self.timer:close()
  -- What waits goes out first, but is not waited for when it does not.
  local stream, timer = self.stream, luv.new_timer()
  if self.waiting > 0 then stream:write(table.concat(self.parts)) end
  self.parts, self.waiting = {}, 0
  local function finish()
    if timer:is_closing() then return end
    timer:close()
    stream:close()
  end
  stream:read_stop()
  timer:start(PATIENCE, 0, finish)
  timer:unref()
  if not stream:shutdown(finish) then finish() end
end

-- The console ---------------------------------------------------------------------------------------------------------

local console = {}
M.methods = console
console.__index = console
console.__name = "p2pd.console"

local function greet(self, stream)
  local own, message = meeting_place.is_own(stream)
  if not own then
    stream:close()
    self.on_notice(("somebody was turned away from the console: %s"):format(message))
    return
  end
  local new = setmetatable({
    console = self, stream = stream, reader = frames.reader(), typed = {}, typed_bytes = 0,
    changed = task.condition(), parts = {}, waiting = 0, timer = luv.new_timer(),
    tasks = setmetatable({}, { __mode = "k" }), columns = 80, ended = false,
  }, attached)
  new.begun = setmetatable({}, {
    __len = function() return 0 end, __newindex = function(_, _, entry) adopt_task(new, entry.task) end,
  })
  new.names = { print = own_print(new), io = own_io(new), p2pd = require "p2pd" }
  for name, value in pairs(self.names) do new.names[name] = value end
  local others = 0
  for _ in pairs(self.attached) do others = others + 1 end
  self.attached[new] = true
  if others >= MOST then return new:refuse(("EBUSY: %d are attached already"):format(MOST)) end
  new.timer:start(PATIENCE, 0, function() new:refuse "ETIMEDOUT: it was not said who is there" end)
  new.timer:unref()
  stream:read_start(function(failure, bytes) new:take(not failure and bytes or nil) end)
end

--- Opens a console of this program.
---@param options p2pd.ConsoleOptions
---@return p2pd.Console? console, string? message, string? code
function M.open(options)
  if type(options) ~= "table" then error("the options are a table, not a " .. type(options), 2) end
  local types = { path = "string", names = "table", on_notice = "function" }
  for key, value in pairs(options) do
    if not types[key] then error(("unknown option '%s'"):format(tostring(key)), 2) end
    if type(value) ~= types[key] then
      error(("option '%s' is a %s, not a %s"):format(key, types[key], type(value)), 2)
    end
  end
  if not options.path then error("the path of a socket is needed", 2) end
  for name in pairs(options.names or {}) do
    if not pretty.is_name(name) then error(("'%s' cannot be a name"):format(tostring(name)), 2) end
  end
  local place, message, code = meeting_place.make(options.path)
  if not place then return nil, message, code end
  local self = setmetatable({
    path = options.path, place = place, attached = {}, names = options.names or {},
    on_notice = options.on_notice or function(text) io.stderr:write("p2pd-lua: ", text, "\n") end,
    server = luv.new_pipe(false),
  }, console)
  assert(self.server:open(place.descriptor))
  assert(self.server:listen(MOST, function(failure)
    if failure or self.closed then return end
    local stream = luv.new_pipe(false)
    if self.server:accept(stream) then greet(self, stream) else stream:close() end
  end))
  self.server:unref()
  return self
end

--- Ends it: those who are attached are told, and the socket is removed.
function console:close()
  if self.closed then return true end
  self.closed = true
  self.place:close()
  self.server:close()
  for each in pairs(self.attached) do each:close "the program has ended" end
  return true
end

console.__close = console.close

function console:__tostring()
  return ("console (%s%s)"):format(self.path, self.closed and ", closed" or "")
end

return M
