-- context: what a strategy has to work with. All that it opens through its ctx belongs to the ctx, and is closed when
-- the strategy has returned (except the pipe that it returned), failed, run out of time or been cancelled.
local checks = require "p2pd.context.checks"
local messages = require "p2pd.context.messages"
local opening = require "p2pd.context.opening"
local punching = require "p2pd.context.punching"
local relaying = require "p2pd.context.relaying"
local report = require "p2pd.report"
local scope_module = require "p2pd.scope"
local strategies = require "p2pd.strategy"
local task = require "p2pd.task"

local M = {}

---@class p2pd.Means what a node provides: the one way from strategies to the world
---@field dial fun(options: table): any?, string?, string?
---@field expect fun(token: string): table?, string?, string?
---@field send fun(fields: table): boolean?, string?, string?
---@field request fun(fields: table, timeout?: number): table?, string?, string?
---@field reply fun(message: table, fields: table): boolean?, string?, string?
---@field converse fun(name: string): table?, string?, string? with :receive([timeout]) and :close()
---@field clock? fun(): number seconds since 1970, corrected
---@field prefixes fun(): table[]
---@field loopback_only fun(): boolean
---@field facts? fun(family: integer, timeout?: number): table?, string?, string?
---@field hold? fun(family: integer, timeout?: number): table?, string?, string?
---@field sample? fun(family: integer, options: table): table?, string?, string?
---@field puncher? fun(options: table): table?, string?, string?
---@field relay? fun(options: table): table?, string?, string?
---@field adopt? fun(options: table): any?, string?, string? a pipe on a connection that a puncher or relay opened

---@class p2pd.Context
---@field peer table the peer's address, parsed
---@field own table this node's address, parsed
---@field role "connect"|"respond"
local context = {}
context.__index = context
context.__name = "p2pd.context"

for _, part in ipairs { opening, messages.methods, punching, relaying } do
  for name, method in pairs(part) do context[name] = method end
end

-- Strategies within strategies ------------------------------------------------------------------------------------

M.check = strategies.check

--- Runs another strategy as a part of this one, within its own timeout, and waits for its end. This is how strategies
--- are made of strategies. A pipe that it returns belongs to this ctx from then on.
---@param what p2pd.Strategy|fun(ctx: p2pd.Context): any?, string?, string?
---@return any? pipe, string? message, string? code "ESKIPPED" when it does not apply
function context:try(what)
  local parent = checks.working_scope(self, 2)
  local strategy, problem = strategies.of(what)
  if not strategy then error(problem, 2) end
  if parent.closed then return scope_module.refuse_closed() end
  local scope <close> = parent:child(strategy)
  local pipe, message, code = scope:run(strategy.timeout, "connect")
  if not pipe then return nil, message, code end
  if parent.closed then
    pipe:close()
    return scope_module.refuse_closed()
  end
  parent:keep(pipe)
  local winner = scope.winner and scope.winner[pipe] or scope.node
  parent.winner = parent.winner or {}
  parent.winner[pipe] = winner
  parent.verdict = { code = "ECANCELED", sentence = winner.name .. " connected first" }
  return pipe
end

--- The strategies in the order that is wanted of them here: first those that a `prefer` around this strategy names.
---@param list p2pd.Strategy[]
---@return p2pd.Strategy[] ordered
function context:order(list)
  local around = checks.scope_of(self, 2)
  if type(list) ~= "table" then error("a list of strategies is expected, not a " .. type(list), 2) end
  while around do
    local prefer = around.strategy and around.strategy.prefer
    if prefer then
      local first, later = {}, {}
      for _, strategy in ipairs(list) do
        local wanted = strategies.find(strategy, function(each) return prefer(self, each) end)
        table.insert(wanted and first or later, strategy)
      end
      list = table.move(later, 1, #later, #first + 1, first)
    end
    around = around.parent
  end
  return list
end

-- Tasks and time --------------------------------------------------------------------------------------------------

local function spawned(scope, f, ...)
  scope:watch(f)
  local results = table.pack(pcall(f, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  local err = results[2]
  if not task.is_cancelled(err) and scope.main and not scope.fault then
    scope.fault = { err = err, task = task.current() }
    scope.main:cancel()
  end
  error(err, 0)
end

--- Starts a task that ends with the strategy: it is cancelled when the strategy returns. An error in it fails the
--- strategy.
---@param f function
---@return table task with :wait() and :cancel()
function context:spawn(f, ...)
  local scope = checks.working_scope(self, 2)
  if type(f) ~= "function" then error("a function is expected, not a " .. type(f), 2) end
  if scope.closed then error("the strategy of this ctx has ended", 2) end
  return scope.tasks:spawn(spawned, scope, f, ...)
end

---@param seconds number
function context:sleep(seconds)
  checks.scope_of(self, 2)
  if seconds == nil then error("a time is a number of seconds, zero or more", 2) end
  checks.seconds(seconds, 2)
  task.sleep(seconds)
end

--- The clock of all times here, in seconds; what it counts from means nothing.
---@return number
function context:now()
  checks.scope_of(self, 2)
  return task.now()
end

--- Seconds until this strategy, or one around it, runs out of time; math.huge when nothing limits it.
---@return number
function context:remaining()
  return math.max(0, checks.scope_of(self, 2).deadline - task.now())
end

--- What is left of the budgets around this strategy, the least of each: SYNs of punchers, tries, seconds. What nothing
--- limits is math.huge.
---@return { syns: number, tries: number, seconds: number }
function context:budget()
  local scope = checks.scope_of(self, 2)
  return { syns = scope:left "syns", tries = scope:left "tries", seconds = self:remaining() }
end

--- Leaves something for the report: what the strategy predicted, what it saw. Never a secret.
---@param key string
---@param value any
function context:note(key, value)
  local scope = checks.scope_of(self, 2)
  if type(key) ~= "string" then error("a note's key is a string, not a " .. type(key), 2) end
  if scope.node then scope.root.report:note(scope.node, key, value) end
end

function context:__tostring()
  local scope = checks.peek(self)
  return ("ctx (%s%s)"):format(self.role, scope and scope.strategy and ", " .. scope.strategy.name or "")
end

-- The outside -----------------------------------------------------------------------------------------------------

local new_options = {
  peer = "table", own = "table", role = "string", attempt = "string", means = "table", report = "table",
  deadline = "number",
}

-- Those that only some strategies need may be missing.
local means_functions = { "dial", "expect", "send", "request", "reply", "converse", "prefixes", "loopback_only" }

--- A context for one attempt: pipeline.run or pipeline.respond takes it, once.
---@param options { peer: table, own: table, role: string, attempt?: string, means: p2pd.Means, report?: p2pd.Report,
---                 deadline?: number } deadline is a time of task.now()
---@return p2pd.Context
function M.new(options)
  checks.options(options, new_options, 2)
  for _, key in ipairs { "peer", "own", "role", "means" } do
    if options[key] == nil then error(("option '%s' is missing"):format(key), 2) end
  end
  if options.role ~= "connect" and options.role ~= "respond" then
    error("option 'role' is \"connect\" or \"respond\"", 2)
  end
  for _, name in ipairs(means_functions) do
    if type(options.means[name]) ~= "function" then error(("means.%s is missing"):format(name), 2) end
  end
  local attempt = options.report or report.new()
  if options.attempt then
    attempt:hide(options.attempt)
    attempt:hide(checks.to_hex(options.attempt))
  end
  return scope_module.new({
    means = options.means, report = attempt, deadline = options.deadline or math.huge,
    make_ctx = function(scope)
      local ctx = setmetatable({ peer = options.peer, own = options.own, role = options.role }, context)
      checks.bind(ctx, scope)
      return ctx
    end,
  }).ctx
end

--- The report of the attempt that the context serves.
function M.report(ctx)
  return checks.scope_of(ctx, 2).root.report
end

local attempt_type = {}

-- However the attempt is left, nothing stays open and the report is whole.
function attempt_type.__close(attempt)
  local root = attempt.root
  root:close()
  root.report:finish(attempt.winner, attempt.code or "ECANCELED",
    attempt.message or "ECANCELED: the attempt was cancelled")
end

-- Tells the asking side that there will be no connection. What went wrong inside of a script is not for strangers.
local function tell_refusal(root, message, why, code)
  local sentence = code == "ESCRIPT" and "the strategy failed" or why:gsub("^E[A-Z0-9]+: ", "")
  root.means.reply(message, { kind = "refused", code = code, message = sentence })
end

--- Runs the strategy's `method` for the whole of the context, which ends with it.
---@return any? pipe, string? message, string? code
function M.attempt(ctx, strategy, method, ...)
  local root = checks.scope_of(ctx, 3)
  if root.parent or root.closed or root.used then error("a context serves one attempt", 3) end
  root.used = true
  if method == "respond" then root.talk, root.signal_time = (...).talk, (...).age end
  root.report:plan(strategy)
  local attempt <close> = setmetatable({ root = root }, attempt_type)
  local pipe, message, code, late
  do
    local scope <close> = root:child(strategy)
    if method == "respond" then messages.listen(scope) end
    pipe, message, code = scope:run(checks.within(root, strategy.timeout), method, ...)
    late = scope.verdict and scope.verdict.code == "ETIMEDOUT"
    if pipe then
      root:keep(pipe)
      attempt.winner = scope.winner and scope.winner[pipe] or scope.node
    end
  end
  if pipe then
    root:release(pipe)
    return pipe
  end
  -- Only now have all rungs ended.
  if method == "connect" then message, code = root.report:failure(late and "ETIMEDOUT" or nil) end
  attempt.message, attempt.code = message, code
  if method == "respond" and not root.replied then tell_refusal(root, ..., message, code) end
  return nil, message, code
end

return M
