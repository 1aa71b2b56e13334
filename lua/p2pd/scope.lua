-- scope: what a strategy that runs owns: its tasks, and all that it opened. Behind each ctx (lua/p2pd/context.lua) lies
-- one, which scripts do not see; scopes lie in each other as strategies do.
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
  return new {
    parent = self, root = self.root, strategy = strategy, node = self.root.report:enter(self.node, strategy),
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
  self.root.report:leave(self.node, result)
end

--- Ends its tasks and closes what it still holds.
function scope:close()
  if self.closed then return end
  self.closed = true
  if self.node then
    local code, sentence = cut_off(self)
    record(self, { code = code, message = code .. ": " .. sentence })
  end
  getmetatable(self.tasks).__close(self.tasks)
  for i = #self.opened, 1, -1 do
    -- One that cannot be closed must not keep the others open.
    local thing = self.opened[i]
    self.opened[i] = nil
    pcall(thing.close, thing)
  end
end

scope.__close = scope.close

-- Running a strategy ----------------------------------------------------------------------------------------------

local PASSED_OVER = {}

local function body(self, method, ...)
  local strategy = self.strategy
  if method == "connect" and strategy.applies then
    local applies, reason = strategy.applies(self.ctx)
    if not applies then return PASSED_OVER, reason end
  end
  local f = strategy[method]
  if not f then return PASSED_OVER, "it only answers" end
  return f(self.ctx, ...)
end

local function failed(self, code, sentence, traceback)
  local message = ("%s: %s"):format(code, sentence)
  record(self, { code = code, message = message, traceback = traceback })
  return nil, message, code
end

local function error_text(err)
  if type(err) == "table" and not (getmetatable(err) or {}).__tostring then
    return err.message and tostring(err.message) or "a table was thrown"
  end
  return tostring(err)
end

-- Makes "ECODE: sentence" and the code of what a strategy returned in place of a pipe.
local function failure_of(self, message, code)
  message = message ~= nil and tostring(message) or nil
  local prefix = message and message:match("^(E[A-Z0-9]+): ")
  code = type(code) == "string" and code:match("^E[A-Z0-9]+$") or prefix or "EUNREACHABLE"
  local sentence = message and message:gsub("^E[A-Z0-9]+: ", "") or self.strategy.name .. " found no way"
  return code, sentence
end

--- Runs the strategy's method as a task of its own, for at most `limit` seconds, and records what came of it.
function scope:run(limit, method, ...)
  local main = self.tasks:spawn(body, self, method, ...)
  self.main = main
  local fine, first, second, third = pcall(main.wait, main, limit)
  if not fine and task.is_cancelled(first) then error(first, 0) end
  if self.fault then
    local fault = self.fault
    return failed(self, "ESCRIPT", error_text(fault.err), fault.task:traceback())
  end
  if not fine then return failed(self, "ESCRIPT", error_text(first), main:traceback()) end
  local status = main:status()
  if status ~= "done" and status ~= "cancelled" then
    self.verdict = { code = "ETIMEDOUT", sentence = ("it took longer than %.3g s"):format(limit) }
    return failed(self, "ETIMEDOUT", self.verdict.sentence)
  end
  if rawequal(first, PASSED_OVER) then
    local reason = second ~= nil and tostring(second) or "it does not apply"
    record(self, { skipped = reason })
    return nil, "ESKIPPED: " .. reason, "ESKIPPED"
  end
  if not first then
    local code, sentence = failure_of(self, second, third)
    return failed(self, code, sentence)
  end
  if not self:release(first) then
    return failed(self, "ESCRIPT", ("%s returned a %s that is no open pipe of its ctx"):format(
      self.strategy.name, type(first)))
  end
  record(self, { ok = true })
  return first
end

return M
