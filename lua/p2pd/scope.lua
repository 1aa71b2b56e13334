-- scope: what a strategy that runs owns: its tasks, and all that it opened. Behind each ctx (lua/p2pd/context.lua) lies
-- one, which scripts do not see; scopes lie in each other as strategies do.
local strategies = require "p2pd.strategy"
local task = require "p2pd.task"

local M = {}

local scope = {}
scope.__index = scope

local function new(fields)
  fields.tasks, fields.opened, fields.closed = task.group(), {}, false
  fields.root = fields.root or fields
  local self = setmetatable(fields, scope)
  self.ctx = self.root.make_ctx(self)
  return self
end

--- The scope of a whole attempt; `make_ctx(scope)` makes its ctx, and that of each scope within.
---@param fields { make_ctx: function, means: table, report: table, deadline: number }
function M.new(fields)
  return new(fields)
end

--- The scope of a strategy within this one.
function scope:child(strategy)
  local budget = strategy.budget
  return new {
    parent = self, root = self.root, strategy = strategy, node = self.root.report:enter(self.node, strategy),
    began = task.now(), budget = budget and { syns = budget.syns, tries = budget.tries },
    deadline = math.min(self.deadline, strategy.timeout and task.now() + strategy.timeout or math.huge),
  }
end

--- Makes something that has `close` the scope's own.
function scope:keep(thing)
  self.opened[#self.opened + 1] = thing
  return thing
end

--- Lets go of it again; false when it was not the scope's.
function scope:release(thing)
  for i, opened in ipairs(self.opened) do
    if rawequal(opened, thing) then
      table.remove(self.opened, i)
      return true
    end
  end
  return false
end

function M.refuse_closed()
  return nil, "ECLOSED: the strategy of this ctx has ended", "ECLOSED"
end

--- Keeps what the means opened; when the scope ended meanwhile, nobody else would close it.
function scope:take(thing, message, code)
  if not thing then return nil, message, code end
  if self.closed then
    thing:close()
    return M.refuse_closed()
  end
  return self:keep(thing)
end

-- Budgets ---------------------------------------------------------------------------------------------------------

--- What the budgets around leave of a thing ("syns", "tries"): the least.
---@return number
function scope:left(thing)
  local around, left = self, math.huge
  while around do
    left = math.min(left, around.budget and around.budget[thing] or math.huge)
    around = around.parent
  end
  return left
end

--- Takes so much of it, of all budgets around; gives back when that is less than nothing.
function scope:spend(thing, count)
  local around = self
  while around do
    local budget = around.budget
    if budget and budget[thing] then budget[thing] = budget[thing] - count end
    around = around.parent
  end
end

-- Mistakes --------------------------------------------------------------------------------------------------------

local running = { ready = true, running = true, parked = true }

-- The user's function that does the work of this scope, if it is a user's.
local function users(self)
  local f = self.strategy and (self.method == "respond" and self.strategy.respond or self.strategy.connect)
  return f and not strategies.is_own(f) and f or nil
end

-- The line of that function's file at which a task is, or has failed; the function's first line when none is known.
local function place_in(self, worker)
  local f = users(self)
  if not f then return nil end
  local file = debug.getinfo(f, "S").short_src
  local trace = "\n" .. worker:traceback()
  for line in trace:gmatch "\n%s*([^\n]+)" do
    if line:sub(1, #file + 1) == file .. ":" then
      local number = line:match("^:(%d+):", #file + 1)
      if number then return ("%s:%s"):format(file, number) end
    end
  end
  return strategies.place(f)
end

--- Looks after the running task, which works for this scope, when its function is a user's: that it waits now and then,
--- and which tasks it leaves to nobody.
function scope:watch(f)
  if strategies.is_own(f) then return end
  require("p2pd.busy").watch()
  self.strays = self.strays or {}
  task.tell_of_spawns(self.strays)
end

-- Tasks that a strategy began by itself, and did not end, are not ended here: somebody may need them. It is told.
local function tell_of_strays(self)
  for _, stray in ipairs(self.strays or {}) do
    if running[stray.task:status()] and not strategies.is_own(stray.f) then
      self.root.report:note(self.node, "left",
        ("the task that begins at %s lives on; those of ctx:spawn end with the strategy"):format(
          strategies.place(stray.f)))
    end
  end
end

-- Why the task that worked in this scope was cancelled: the nearest verdict around it.
local function cut_off(self)
  local around = self
  while around do
    if around.verdict then return around.verdict.code, around.verdict.sentence end
    around = around.parent
  end
  return "ECANCELED", "the attempt was cancelled"
end

local function record(self, result)
  if self.recorded then return end
  self.recorded = true
  self.root.report:leave(self.node, result, self.began)
end

local function late(self, sentence)
  local place = self.main and not self.strategy.children and place_in(self, self.main)
  return place and ("%s, at %s"):format(sentence, place) or sentence
end

--- Ends its tasks and closes what it still holds.
function scope:close()
  if self.closed then return end
  self.closed = true
  if self.node then
    local code, sentence = cut_off(self)
    if code == "ETIMEDOUT" and not self.recorded then sentence = late(self, sentence) end
    record(self, { code = code, message = code .. ": " .. sentence })
  end
  getmetatable(self.tasks).__close(self.tasks)
  for i = #self.opened, 1, -1 do
    -- One that cannot be closed must not keep the others open.
    local thing = self.opened[i]
    self.opened[i] = nil
    pcall(thing.close, thing)
  end
  tell_of_strays(self)
end

scope.__close = scope.close

-- Running a strategy ----------------------------------------------------------------------------------------------

local PASSED_OVER = {}

local function body(self, method, ...)
  local strategy = self.strategy
  local f = strategy[method]
  self:watch(f or strategy.applies or body)
  if method == "connect" and strategy.applies then
    local applies, reason = strategy.applies(self.ctx)
    if not applies then return PASSED_OVER, reason end
  end
  if not f then return PASSED_OVER, "it only answers" end
  if method == "connect" and not strategy.children then
    if self:left "tries" <= 0 then return PASSED_OVER, "its budget of tries is spent" end
    self:spend("tries", 1)
  end
  return f(self.ctx, ...)
end

local function failed(self, code, sentence)
  local message = ("%s: %s"):format(code, sentence)
  record(self, { code = code, message = message })
  return nil, message, code
end

local function mistaken(self, sentence, traceback)
  local message = "ESCRIPT: " .. sentence
  record(self, { code = "ESCRIPT", message = message, mistake = sentence, traceback = traceback })
  return nil, message, "ESCRIPT"
end

-- What was thrown in a task of this scope, with its place.
local function error_text(self, err, worker)
  local text = tostring(err)
  if type(err) == "table" and not (getmetatable(err) or {}).__tostring then
    text = err.message and tostring(err.message) or "a table was thrown"
  end
  local place = not text:find "^[^%s:]+:%d+: " and place_in(self, worker)
  return place and ("%s: %s"):format(place, text) or text
end

-- Makes "ECODE: sentence" and the code of what a strategy returned in place of a pipe.
local function failure_of(self, message, code)
  message = message ~= nil and tostring(message) or nil
  local prefix = message and message:match("^(E[A-Z0-9]+): ")
  code = type(code) == "string" and code:match("^E[A-Z0-9]+$") or prefix or "EUNREACHABLE"
  local sentence = message and message:gsub("^E[A-Z0-9]+: ", "") or self.strategy.name .. " found no way"
  return code, sentence
end

-- What a strategy returned in place of a pipe.
local function junk(self, value)
  local place = users(self) and strategies.place(users(self)) .. ": " or ""
  local what = type(value)
  if what == "table" or what == "userdata" then what = what .. " that is no open pipe of its ctx" end
  return ("%s%s returned a %s%s"):format(place, self.strategy.name, what,
    what == type(value) and ", not a pipe that its ctx opened" or "")
end

--- Runs the strategy's method as a task of its own, for at most `limit` seconds, and records what came of it.
function scope:run(limit, method, ...)
  self.method = method
  local main = self.tasks:spawn(body, self, method, ...)
  self.main = main
  local fine, first, second, third = pcall(main.wait, main, limit)
  if not fine and task.is_cancelled(first) then error(first, 0) end
  if self.fault then
    local fault = self.fault
    return mistaken(self, error_text(self, fault.err, fault.task), fault.task:traceback())
  end
  if not fine then return mistaken(self, error_text(self, first, main), main:traceback()) end
  local status = main:status()
  if status ~= "done" and status ~= "cancelled" then
    self.verdict = { code = "ETIMEDOUT", sentence = ("it took longer than %.3g s"):format(limit) }
    return failed(self, "ETIMEDOUT", late(self, self.verdict.sentence))
  end
  if rawequal(first, PASSED_OVER) then
    local reason = second ~= nil and tostring(second) or "it does not apply"
    record(self, { skipped = reason })
    return nil, "ESKIPPED: " .. reason, "ESKIPPED"
  end
  if not first then
    local code, sentence = failure_of(self, second, third)
    if self.lacks and code == "ENOTSUP" then -- the peer, the other end
      record(self, { skipped = self.lacks })
      return nil, "ESKIPPED: " .. self.lacks, "ESKIPPED"
    end
    return failed(self, code, sentence)
  end
  if not self:release(first) then
    return mistaken(self, junk(self, first))
  end
  record(self, { ok = true })
  return first
end

return M
