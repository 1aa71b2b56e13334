-- messages: what a ctx does to talk with the peer: sealed messages through its brokers.
local checks = require "p2pd.context.checks"
local scope_module = require "p2pd.scope"
local uv = require "luv"

local M = { methods = {} }
local methods = M.methods

local TALK_SIZE = 8 -- bytes
-- Seconds that a message takes one way: what is likely when none was seen yet, and what is believable.
local LEAST, USUAL, MOST = 0.001, 0.1, 2

-- What signaling itself puts into each message, or says of it.
local reserved_fields = { "id", "re", "from", "talk", "more", "age" }

-- What is missing at a peer that cannot answer (lua/p2pd/node.lua says so), in words.
local lacking = {
  strategy = "the peer has no strategy '%s'", respond = "the peer's strategy '%s' has no respond",
}

local function check_fields(fields, level)
  if type(fields) ~= "table" then error("the fields of a message are a table, not a " .. type(fields), level + 1) end
  for _, name in ipairs(reserved_fields) do
    if fields[name] ~= nil then error(("the field '%s' of a message is not free to use"):format(name), level + 1) end
  end
end

-- The means add fields of their own. A request's kind is the name of the strategy that is to answer it, unless the
-- strategy says otherwise.
local function copy_fields(fields, kind, talk, more)
  local copy = { kind = kind, talk = talk, more = more }
  for key, value in pairs(fields) do copy[key] = value end
  return copy
end

-- What this strategy and the peer say to each other is a conversation, with a name that both put into their messages:
-- it begins with the one that `respond` is called with, and in it are those with `more`.
local function join_conversation(scope)
  if scope.talk then return scope.talk end
  local name = scope.root.talk or checks.to_hex(uv.random(TALK_SIZE))
  local talk, message, code = scope.root.means.converse(name)
  if not talk then return nil, message, code end
  scope.conversation, scope.talk = scope:take(talk), name
  return name
end

--- For context.attempt: who answers hears from the beginning what the peer says next.
function M.listen(scope)
  if type(scope.root.talk) == "string" then join_conversation(scope) end
end

-- The fields as they go out, in the conversation; nil, message, code when there is none.
local function in_conversation(scope, fields)
  local talk, message, code = join_conversation(scope)
  if not talk then return nil, message, code end
  local more = scope.begun or scope.root.talk ~= nil or nil
  scope.begun = true
  return copy_fields(fields, scope.strategy.name, talk, more)
end

-- Leaves in the report that something was said or heard.
local function mark(scope, what)
  scope.root.report:signal(scope.node, what)
end

--- Sends the peer a sealed message, once.
---@param fields table strings, numbers, booleans and tables of them; kind is the strategy's name unless given
---@return boolean? sent, string? message, string? code
function methods:send(fields)
  local scope = checks.working_scope(self, 2)
  check_fields(fields, 2)
  if scope.closed then return scope_module.refuse_closed() end
  local said, message, code = in_conversation(scope, fields)
  if not said then return nil, message, code end
  mark(scope, "send")
  return scope.root.means.send(said)
end

--- Sends the peer a message, again after twice the signal time, until it replies.
---@param fields table
---@param timeout? number seconds; never more than remain
---@return table? reply, string? message, string? code
function methods:request(fields, timeout)
  local scope = checks.working_scope(self, 2)
  check_fields(fields, 2)
  checks.seconds(timeout, 2)
  if scope.closed then return scope_module.refuse_closed() end
  local said, message, code = in_conversation(scope, fields)
  if not said then return nil, message, code end
  mark(scope, "request")
  local reply
  reply, message, code = scope.root.means.request(said, checks.within(scope, timeout))
  if not reply then return nil, message, code end
  mark(scope, "reply")
  scope.root.signal_time = reply.age
  if reply.kind == "refused" and lacking[reply.lacks] then
    scope.lacks = lacking[reply.lacks]:format(said.kind)
    return nil, "ENOTSUP: " .. scope.lacks, "ENOTSUP"
  end
  return reply
end

--- Waits for the next message of the peer's in this strategy's conversation that is no reply: what it sent after the
--- request that `respond` was called with, or what `respond` sent.
---@param timeout? number seconds
---@return table? message, string? why, string? code
function methods:receive(timeout)
  local scope = checks.working_scope(self, 2)
  checks.seconds(timeout, 2)
  if scope.closed then return scope_module.refuse_closed() end
  local talk, message, code = join_conversation(scope)
  if not talk then return nil, message, code end
  local heard, why, what = scope.conversation:receive(checks.within(scope, timeout))
  if heard then mark(scope, "receive") end
  return heard, why, what
end

--- How many seconds a message to the peer takes, one way: as the last one did.
---@return number
function methods:signal_time()
  local scope = checks.scope_of(self, 2)
  local seconds = scope.root.signal_time
  return math.max(LEAST, math.min(seconds or USUAL, MOST))
end

--- Answers the message that `respond` was called with.
---@param message table
---@param fields table
---@return boolean? sent, string? message, string? code
function methods:reply(message, fields)
  local scope = checks.working_scope(self, 2)
  if type(message) ~= "table" then error("the message that is answered is a table, not a " .. type(message), 2) end
  check_fields(fields, 2)
  if scope.closed then return scope_module.refuse_closed() end
  scope.root.replied = true
  mark(scope, "answer")
  return scope.root.means.reply(message, copy_fields(fields))
end

--- What the two sides agree that the time is: seconds since 1970, by time servers where the node asks some.
---@return number
function methods:clock()
  return checks.scope_of(self, 2).root.means.clock()
end

return M
