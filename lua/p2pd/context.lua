-- context: what a strategy has to work with. All that it opens through its ctx belongs to the ctx, and is closed when
-- the strategy has returned (except the pipe that it returned), failed, run out of time or been cancelled.
local candidates = require "p2pd.candidates"
local report = require "p2pd.report"
local scope_module = require "p2pd.scope"
local task = require "p2pd.task"
local uv = require "luv"

local M = {}

---@class p2pd.Strategy
---@field name string also the kind of its messages
---@field timeout? number seconds that `connect` or `respond` may take
---@field applies? fun(ctx: p2pd.Context): boolean?, string? false or nil, and the reason, when it is of no use here
---@field connect? fun(ctx: p2pd.Context): any?, string?, string? a pipe that ctx opened; or nil, message, code
---@field respond? fun(ctx: p2pd.Context, message: table): any?, string?, string? the same, on the side that is asked
---@field children? p2pd.Strategy[] what it is made of; it runs them with ctx:try
---@field rebuild? fun(children: p2pd.Strategy[]): p2pd.Strategy the same made of other children

---@class p2pd.Means what a node provides: the one way from strategies to the world
---@field dial fun(options: table): any?, string?, string?
---@field expect fun(token: string): table?, string?, string?
---@field send fun(fields: table): boolean?, string?, string?
---@field request fun(fields: table, timeout?: number): table?, string?, string?
---@field reply fun(message: table, fields: table): boolean?, string?, string?
---@field prefixes fun(): table[]
---@field loopback_only fun(): boolean

---@class p2pd.Context
---@field peer table the peer's address, parsed
---@field own table this node's address, parsed
---@field role "connect"|"respond"
local context = {}
context.__index = context
context.__name = "p2pd.context"

local DIAL_TIMEOUT = 10 -- seconds, when nothing else bounds it
local TOKEN_SIZE = 16   -- bytes (core/pipe.h)

-- Each ctx has a scope behind it, which scripts do not see.
local scopes = setmetatable({}, { __mode = "k" })

local function scope_of(ctx, level)
  local scope = scopes[ctx]
  if not scope then error("call it with a colon on the ctx that the strategy was given", level + 1) end
  return scope
end

-- The same where something is opened or said: that is for strategies, not for the context that an attempt starts from.
local function working_scope(ctx, level)
  local scope = scope_of(ctx, level + 1)
  if not scope.strategy then error("this ctx waits for pipeline.run; a strategy gets one of its own", level + 1) end
  return scope
end

-- Checks ----------------------------------------------------------------------------------------------------------

local strategy_fields = {
  name = "string", timeout = "number", applies = "function", connect = "function", respond = "function",
  children = "table", rebuild = "function",
}

--- Whether the value is a strategy; else nil and what is wrong with it.
---@return boolean? ok, string? problem
function M.check(strategy)
  if type(strategy) ~= "table" then return nil, "a strategy is a table, not a " .. type(strategy) end
  local name = strategy.name
  if type(name) ~= "string" or #name > 64 or not name:find("^[%w_.()-]+$") then
    return nil, "a strategy needs a name of letters, digits, '_', '.' and '-'"
  end
  for key, value in pairs(strategy) do
    local expected = strategy_fields[key]
    if not expected then return nil, ("strategy %s has an unknown field, '%s'"):format(name, tostring(key)) end
    if type(value) ~= expected then
      return nil, ("strategy %s: its %s is a %s, not a %s"):format(name, key, type(value), expected)
    end
  end
  if strategy.timeout and not (strategy.timeout >= 0) then
    return nil, ("strategy %s: its timeout is not a number of seconds"):format(name)
  end
  if not strategy.connect and not strategy.respond then
    return nil, ("strategy %s has neither connect nor respond"):format(name)
  end
  for i, child in ipairs(strategy.children or {}) do
    local ok, problem = M.check(child)
    if not ok then return nil, ("strategy %s, child %d: %s"):format(name, i, problem) end
  end
  return true
end

local function check_options(options, known, level)
  if type(options) ~= "table" then error("a table of options is expected, not a " .. type(options), level + 1) end
  for key, value in pairs(options) do
    local expected = known[key]
    if not expected then error(("unknown option '%s'"):format(tostring(key)), level + 1) end
    if type(value) ~= expected then
      error(("option '%s' is a %s, not a %s"):format(key, type(value), expected), level + 1)
    end
  end
end

local function check_seconds(seconds, level)
  if seconds ~= nil and (type(seconds) ~= "number" or not (seconds >= 0)) then
    error("a time is a number of seconds, zero or more", level + 1)
  end
end

-- What signaling itself puts into each message.
local reserved_fields = { "id", "re", "from" }

local function check_fields(fields, level)
  if type(fields) ~= "table" then error("the fields of a message are a table, not a " .. type(fields), level + 1) end
  for _, name in ipairs(reserved_fields) do
    if fields[name] ~= nil then error(("the field '%s' of a message is not free to use"):format(name), level + 1) end
  end
end

--- Runs another strategy as a part of this one, within its own timeout, and waits for its end. This is how strategies
--- are made of strategies. A pipe that it returns belongs to this ctx from then on.
---@param strategy p2pd.Strategy
---@return any? pipe, string? message, string? code "ESKIPPED" when it does not apply
function context:try(strategy)
  local parent = working_scope(self, 2)
  local ok, problem = M.check(strategy)
  if not ok then error(problem, 2) end
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

-- The timeout for the means: never more than remains, nil when nothing limits it.
local function within(scope, timeout)
  local limit = math.min(timeout or math.huge, scope.ctx:remaining())
  return limit < math.huge and limit or nil
end

-- Opening ---------------------------------------------------------------------------------------------------------

--- The addresses of the peer that are worth trying from here, the best first; see p2pd.candidates.
---@return { ip: string, port: integer, scope: string, near?: string }[] list, string? reason why there is none
function context:candidates()
  local scope = scope_of(self, 2)
  local means = scope.root.means
  local list, refused = candidates.list {
    peer = self.peer, own = self.own, role = self.role,
    prefixes = means.prefixes(), loopback_only = means.loopback_only(),
  }
  if #list > 0 then return list end
  if not refused[1] then return list, "the peer's address has no interface" end
  return list, ("%s: %s"):format(refused[1].ip, refused[1].reason)
end

local dial_options = {
  ip = "string", port = "number", scope = "string", timeout = "number", token = "string", local_ip = "string",
}

local never_dialed = { unspecified = true, multicast = true, broadcast = true }

-- A side that was asked by a message dials nothing but the sender's own addresses, whatever its script says.
local function refusal_to_dial(scope, ip)
  local kind = candidates.kind(ip)
  if not kind then return "EINVAL", "it is not an IP address" end
  if never_dialed[kind] then return "EACCES", ("a %s address is never dialed"):format(kind) end
  if scope.ctx.role ~= "respond" then return nil end
  for _, candidate in ipairs((scope.ctx:candidates())) do
    if candidate.ip == ip then return nil end
  end
  return "EACCES", "it is not among the peer's addresses that may be dialed for it"
end

local function from_hex(text)
  return (text:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function to_hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

--- Connects to an address and proves both keys. Whoever wants the connection is the TLS client; the side that was
--- asked is the server and shows the token that the other one expects.
---@param options { ip: string, port: integer, scope?: string, timeout?: number, token?: string, local_ip?: string }
---@return any? pipe, string? message, string? code
function context:dial(options)
  local scope = working_scope(self, 2)
  check_options(options, dial_options, 2)
  local ip, port, token = options.ip, options.port, options.token
  if not ip then error("option 'ip' is missing", 2) end
  if math.type(port) ~= "integer" or port < 1 or port > 65535 then
    error("option 'port' is a whole number from 1 to 65535", 2)
  end
  check_seconds(options.timeout, 2)
  if token and (#token ~= 2 * TOKEN_SIZE or token:find("%X")) then
    error("option 'token' is 32 hexadecimal digits", 2)
  end
  if token and self.role == "connect" then error("a token is for the side that was asked", 2) end
  if scope.closed then return scope_module.refuse_closed() end
  local to = (ip:find(":", 1, true) and "[%s]:%d" or "%s:%d"):format(ip, port)
  local code, sentence = refusal_to_dial(scope, ip)
  if code then return nil, ("%s: cannot dial %s: %s"):format(code, to, sentence), code end
  local timeout = math.min(options.timeout or DIAL_TIMEOUT, self:remaining())
  if timeout <= 0 then return nil, ("ETIMEDOUT: no time is left to dial %s"):format(to), "ETIMEDOUT" end
  if token then
    scope.root.report:hide(token)
    token = from_hex(token)
  end
  local ended = scope.root.report:dial(scope.node, to, options.scope)
  local pipe, message
  pipe, message, code = scope.root.means.dial {
    ip = ip, port = port, timeout = timeout, local_ip = options.local_ip, token = token,
    role = self.role == "connect" and "client" or "server",
  }
  ended(pipe ~= nil, code)
  return scope:take(pipe, message, code)
end

---@class p2pd.Arrival
---@field token string what the peer must show, 32 hexadecimal digits
local arrival = {}
arrival.__index = arrival
arrival.__name = "p2pd.arrival"

--- Waits for the next connection that shows the token and proves the peer's key.
---@param timeout? number seconds
---@return any? pipe, string? message, string? code
function arrival:wait(timeout)
  check_seconds(timeout, 2)
  local scope, expected = self.scope, self.expected
  if not expected then return nil, "ECLOSED: it is no longer expected", "ECLOSED" end
  return scope:take(expected:wait(within(scope, timeout)))
end

--- Stops expecting it; pipes that came of it stay.
function arrival:close()
  local expected = self.expected
  self.expected = nil
  if expected then
    self.scope:release(self)
    expected:close()
  end
end

arrival.__close = arrival.close

function arrival:__tostring()
  return self.expected and "arrival (expected)" or "arrival (closed)"
end

--- Makes the node expect a connection from the peer that shows a fresh token; tell it to the peer.
---@return p2pd.Arrival? arrival, string? message, string? code
function context:expect()
  local scope = working_scope(self, 2)
  if self.role ~= "connect" then error("only the side that wants the connection expects an arrival", 2) end
  if scope.closed then return scope_module.refuse_closed() end
  local token = uv.random(TOKEN_SIZE)
  local hex = to_hex(token)
  scope.root.report:hide(hex)
  local expected, message, code = scope.root.means.expect(token)
  if not expected then return nil, message, code end
  return scope:take(setmetatable({ token = hex, expected = expected, scope = scope }, arrival))
end

-- Messages --------------------------------------------------------------------------------------------------------

-- The means add fields of their own. A request's kind is the name of the strategy that is to answer it, unless the
-- strategy says otherwise.
local function copy_fields(fields, kind)
  local copy = { kind = kind }
  for key, value in pairs(fields) do copy[key] = value end
  return copy
end

--- Sends the peer a sealed message, once.
---@param fields table strings, numbers, booleans and tables of them; kind is the strategy's name unless given
---@return boolean? sent, string? message, string? code
function context:send(fields)
  local scope = working_scope(self, 2)
  check_fields(fields, 2)
  if scope.closed then return scope_module.refuse_closed() end
  return scope.root.means.send(copy_fields(fields, scope.strategy.name))
end

--- Sends the peer a message, again after twice the signal time, until it replies.
---@param fields table
---@param timeout? number seconds; never more than remain
---@return table? reply, string? message, string? code
function context:request(fields, timeout)
  local scope = working_scope(self, 2)
  check_fields(fields, 2)
  check_seconds(timeout, 2)
  if scope.closed then return scope_module.refuse_closed() end
  return scope.root.means.request(copy_fields(fields, scope.strategy.name), within(scope, timeout))
end

--- Answers the message that `respond` was called with.
---@param message table
---@param fields table
---@return boolean? sent, string? message, string? code
function context:reply(message, fields)
  local scope = working_scope(self, 2)
  if type(message) ~= "table" then error("the message that is answered is a table, not a " .. type(message), 2) end
  check_fields(fields, 2)
  if scope.closed then return scope_module.refuse_closed() end
  scope.root.replied = true
  return scope.root.means.reply(message, copy_fields(fields))
end

-- Tasks and time --------------------------------------------------------------------------------------------------

local function spawned(scope, f, ...)
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
  local scope = working_scope(self, 2)
  if type(f) ~= "function" then error("a function is expected, not a " .. type(f), 2) end
  if scope.closed then error("the strategy of this ctx has ended", 2) end
  return scope.tasks:spawn(spawned, scope, f, ...)
end

---@param seconds number
function context:sleep(seconds)
  scope_of(self, 2)
  if seconds == nil then error("a time is a number of seconds, zero or more", 2) end
  check_seconds(seconds, 2)
  task.sleep(seconds)
end

--- The clock of all times here, in seconds; what it counts from means nothing.
---@return number
function context:now()
  scope_of(self, 2)
  return task.now()
end

--- Seconds until this strategy, or one around it, runs out of time; math.huge when nothing limits it.
---@return number
function context:remaining()
  return math.max(0, scope_of(self, 2).deadline - task.now())
end

--- Leaves something for the report: what the strategy predicted, what it saw. Never a secret.
---@param key string
---@param value any
function context:note(key, value)
  local scope = scope_of(self, 2)
  if type(key) ~= "string" then error("a note's key is a string, not a " .. type(key), 2) end
  if scope.node then scope.root.report:note(scope.node, key, value) end
end

function context:__tostring()
  local scope = scopes[self]
  return ("ctx (%s%s)"):format(self.role, scope and scope.strategy and ", " .. scope.strategy.name or "")
end

-- The outside -----------------------------------------------------------------------------------------------------

local new_options = {
  peer = "table", own = "table", role = "string", attempt = "string", means = "table", report = "table",
  deadline = "number",
}

local means_functions = { "dial", "expect", "send", "request", "reply", "prefixes", "loopback_only" }

--- A context for one attempt: pipeline.run or pipeline.respond takes it, once.
---@param options { peer: table, own: table, role: string, attempt?: string, means: p2pd.Means, report?: p2pd.Report,
---                 deadline?: number } deadline is a time of task.now()
---@return p2pd.Context
function M.new(options)
  check_options(options, new_options, 2)
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
    attempt:hide(to_hex(options.attempt))
  end
  return scope_module.new({
    means = options.means, report = attempt, deadline = options.deadline or math.huge,
    make_ctx = function(scope)
      local ctx = setmetatable({ peer = options.peer, own = options.own, role = options.role }, context)
      scopes[ctx] = scope
      return ctx
    end,
  }).ctx
end

--- The report of the attempt that the context serves.
function M.report(ctx)
  return scope_of(ctx, 2).root.report
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
  local root = scope_of(ctx, 3)
  if root.parent or root.closed or root.used then error("a context serves one attempt", 3) end
  root.used = true
  root.report:plan(strategy)
  local attempt <close> = setmetatable({ root = root }, attempt_type)
  local pipe, message, code, late
  do
    local scope <close> = root:child(strategy)
    pipe, message, code = scope:run(within(root, strategy.timeout), method, ...)
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
