-- pipeline: strategies made of strategies. Which ways to a peer are tried, in which order, side by side or one after
-- another, with what patience. Each function here makes a strategy like any other; a script's own compose alike, since
-- all that these use is ctx:try and ctx:spawn.
local candidates = require "p2pd.candidates"
local context = require "p2pd.context"
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {}

local BUILT_IN = "p2pd.strategies."
local STAGGER = 0.25 -- seconds that a way gets before the next is tried beside it (RFC 8305, section 8)
local RELAY_AFTER = 2.4 -- seconds that the other ways get before a relay is used, which takes a while to get ready

-- Loading ---------------------------------------------------------------------------------------------------------

local function refuse(message, ...)
  return nil, ("EINVAL: " .. message):format(...), "EINVAL"
end

local function built_in_names()
  local names = {}
  for _, path in ipairs(core.source.list()) do
    names[#names + 1] = path:match("^lua/p2pd/strategies/([%w_]+)%.lua$")
  end
  table.sort(names)
  return names
end

local function is_file(name)
  return name:find("/", 1, true) ~= nil or name:find("%.lua$") ~= nil
end

local function load_file(path)
  local file, problem, number = io.open(path, "rb")
  if not file then
    local code = number == 13 and "EACCES" or "ENOENT"
    return nil, ("%s: cannot read the strategy %s"):format(code, problem), code
  end
  local text = file:read("a")
  file:close()
  if not text then return nil, ("EIO: cannot read the strategy %s"):format(path), "EIO" end
  local chunk
  chunk, problem = load((text:gsub("^#[^\n]*", "")), "@" .. path, "t")
  if not chunk then
    return refuse("%s%s", problem:find(path, 1, true) and "" or path .. ": ", problem)
  end
  local ok, strategy = pcall(chunk)
  if not ok and task.is_cancelled(strategy) then error(strategy, 0) end
  if not ok then return refuse("%s", tostring(strategy)) end
  ok, problem = context.check(strategy)
  if not ok then return refuse("%s: %s", path, problem) end
  return strategy
end

--- A strategy by its name ("direct"), its module ("p2pd.strategies.direct", "mine.strategy") or its file ("./mine.lua",
--- Lua text that returns a strategy).
---@param name string
---@return p2pd.Strategy? strategy, string? message, string? code
function M.load(name)
  if type(name) ~= "string" then error("the name of a strategy is a string, not a " .. type(name), 2) end
  if is_file(name) then return load_file(name) end
  local module = name:find(".", 1, true) and name or BUILT_IN .. name
  local short = module:match("^p2pd%.strategies%.(.+)$")
  if short then
    local names = built_in_names()
    local known = false
    for _, other in ipairs(names) do known = known or other == short end
    if not known then
      return refuse("there is no strategy '%s'; there are %s, and files such as ./mine.lua", name,
        table.concat(names, ", "))
    end
  end
  local ok, strategy = pcall(require, module)
  if not ok then return refuse("strategy %s: %s", name, tostring(strategy)) end
  local problem
  ok, problem = context.check(strategy)
  if not ok then return refuse("%s: %s", name, problem) end
  return strategy
end

-- Checks ----------------------------------------------------------------------------------------------------------

local function to_strategy(value, level)
  if type(value) == "string" then
    local strategy, message = M.load(value)
    if not strategy then error(message, level + 1) end
    return strategy
  end
  local ok, problem = context.check(value)
  if not ok then error(problem, level + 1) end
  return value
end

local function to_strategies(list, level)
  if type(list) ~= "table" or list.name then error("a list of strategies is expected, in braces", level + 1) end
  local count = 0
  for _ in pairs(list) do count = count + 1 end
  if count == 0 then error("a list of strategies is empty", level + 1) end
  if count ~= #list then error("a list of strategies has names or holes in it", level + 1) end
  local strategies = {}
  for i, value in ipairs(list) do strategies[i] = to_strategy(value, level + 1) end
  return strategies
end

local function check_seconds(seconds, level)
  if type(seconds) ~= "number" or not (seconds >= 0 and seconds < math.huge) then
    error("a time is a number of seconds, zero or more", level + 1)
  end
end

-- What a strategy returns when none of those that it is made of connected: the last failure tells.
local function none(message, code)
  return nil, message or "ESKIPPED: nothing in it applies", code or "ESKIPPED"
end

-- Making strategies -----------------------------------------------------------------------------------------------

--- One after another, until one connects.
---@param list (p2pd.Strategy|string)[]
---@return p2pd.Strategy
function M.seq(list)
  local children = to_strategies(list, 2)
  return {
    name = "seq", children = children, rebuild = M.seq,
    connect = function(ctx)
      local message, code
      for _, child in ipairs(children) do
        local pipe, why, what = ctx:try(child)
        if pipe then return pipe end
        if what ~= "ESKIPPED" then message, code = why, what end
      end
      return none(message, code)
    end,
  }
end

-- Starts the children side by side, each so many seconds after the one before or as soon as that has failed; the first
-- that connects ends the others.
local function side_by_side(ctx, children, delay_after)
  local ended, started, over, due, next_at = task.channel(#children), 0, 0, true, nil
  local message, code
  local function start()
    local delay = delay_after(started + 1)
    started, due, next_at = started + 1, delay == 0, ctx:now() + delay
    local place, child = started, children[started]
    ctx:spawn(function() ended:send({ place, ctx:try(child) }) end)
  end
  while over < #children do
    while due and started < #children do start() end
    local result = ended:recv(started < #children and math.max(0, next_at - ctx:now()) or nil)
    if result then
      local place, pipe, why, what = result[1], result[2], result[3], result[4]
      if pipe then return pipe end
      over, due = over + 1, due or place == started
      if what ~= "ESKIPPED" then message, code = why, what end
    else
      due = true
    end
  end
  return none(message, code)
end

--- All at once; the first that connects ends the others.
---@param list (p2pd.Strategy|string)[]
---@return p2pd.Strategy
function M.race(list)
  local children = to_strategies(list, 2)
  return {
    name = "race", children = children, rebuild = M.race,
    connect = function(ctx) return side_by_side(ctx, children, function() return 0 end) end,
  }
end

--- The first at once, each other one so many seconds after the one before it or as soon as that has failed; the first
--- that connects ends the others. In place of the seconds a function may say them, of ctx and the place of the one that
--- has started.
---@param seconds number|fun(ctx: p2pd.Context, place: integer): number
---@return fun(list: (p2pd.Strategy|string)[]): p2pd.Strategy
function M.stagger(seconds)
  if type(seconds) ~= "function" then check_seconds(seconds, 2) end
  local function make(list)
    local children = to_strategies(list, 2)
    return {
      name = type(seconds) == "number" and ("stagger(%g)"):format(seconds) or "stagger",
      children = children, rebuild = make,
      connect = function(ctx)
        return side_by_side(ctx, children, function(place)
          local delay = seconds
          if type(seconds) == "function" then delay = seconds(ctx, place) end
          check_seconds(delay, 1)
          return delay
        end)
      end,
    }
  end
  return make
end

-- A strategy around one other.
local function around(fields, child)
  fields.children = { child }
  fields.connect = fields.connect or function(ctx) return ctx:try(child) end
  return fields
end

--- The strategy, for at most so many seconds.
---@param seconds number
---@param strategy p2pd.Strategy|string
---@return p2pd.Strategy
function M.timeout(seconds, strategy)
  check_seconds(seconds, 2)
  return around({
    name = ("timeout(%g)"):format(seconds), timeout = seconds,
    rebuild = function(children) return M.timeout(seconds, children[1]) end,
  }, to_strategy(strategy, 2))
end

--- The strategy, again when it failed: `times` tries in all. What does not apply is not tried again.
---@param times integer
---@param strategy p2pd.Strategy|string
---@return p2pd.Strategy
function M.retry(times, strategy)
  if math.type(times) ~= "integer" or times < 1 then error("a number of tries is a whole number from 1 on", 2) end
  local child = to_strategy(strategy, 2)
  return around({
    name = ("retry(%d)"):format(times),
    rebuild = function(children) return M.retry(times, children[1]) end,
    connect = function(ctx)
      local message, code
      for _ = 1, times do
        local pipe, why, what = ctx:try(child)
        if pipe then return pipe end
        if what == "ESKIPPED" then return none(message, code) end
        message, code = why, what
      end
      return none(message, code)
    end,
  }, child)
end

--- The strategy, if the predicate says true; its second result is the reason why not.
---@param predicate fun(ctx: p2pd.Context): boolean?, string?
---@param strategy p2pd.Strategy|string
---@return p2pd.Strategy
function M.when(predicate, strategy)
  if type(predicate) ~= "function" then error("a predicate is a function, not a " .. type(predicate), 2) end
  return around({
    name = "when", applies = predicate,
    rebuild = function(children) return M.when(predicate, children[1]) end,
  }, to_strategy(strategy, 2))
end

-- The default pipeline --------------------------------------------------------------------------------------------

-- One who is near, or not behind a router, is dialed first, and gets a while; others are tried by all ways at once. A
-- full cone lets in who knows a port that it has mapped: it may be worth dialing, but is not waited for.
local function patience(ctx, place)
  for _, candidate in ipairs((ctx:candidates())) do
    if candidate.lan then return STAGGER end
  end
  if not candidates.behind_routers(ctx.peer) then return STAGGER end
  return (place == 1 or candidates.behind_routers(ctx.own)) and 0 or STAGGER
end

local default

--- What a node uses unless told otherwise: the ways that need nobody else, the quickest first; and when these have
--- failed, or after some time, a relay beside them.
---@return p2pd.Strategy
function M.default()
  default = default or M.stagger(RELAY_AFTER) { M.stagger(patience) { "direct", "reverse", "punch" }, "relay" }
  return default
end

-- Walking -------------------------------------------------------------------------------------------------------

local function find(strategy, test)
  if test(strategy) then return strategy end
  for _, child in ipairs(strategy.children or {}) do
    local found = find(child, test)
    if found then return found end
  end
end

--- The strategy that answers messages of this kind.
---@param pipeline p2pd.Strategy
---@param name string
---@return p2pd.Strategy?
function M.responder(pipeline, name)
  return find(pipeline, function(strategy) return strategy.name == name and strategy.respond ~= nil end)
end

-- What is left of the tree when only the wanted rungs stay; nil when none does.
local function prune(strategy, wanted)
  if not strategy.children then return wanted[strategy.name] and strategy or nil end
  local kept = {}
  for _, child in ipairs(strategy.children) do kept[#kept + 1] = prune(child, wanted) end
  if #kept == 0 then return nil end
  if #kept == 1 and #strategy.children > 1 then return kept[1] end
  return strategy.rebuild(kept)
end

local function cannot_prune(strategy)
  return strategy.children ~= nil and strategy.rebuild == nil
end

--- The pipeline with these strategies alone, in its own order. One that is not in it (a file, say) starts beside those
--- that are. A name that is not known is told, not passed over.
---@param pipeline p2pd.Strategy
---@param names string[]
---@return p2pd.Strategy? pipeline, string? message, string? code
function M.restrict(pipeline, names)
  local ok, problem = context.check(pipeline)
  if not ok then error(problem, 2) end
  if type(names) ~= "table" then error("a list of names of strategies is expected, not a " .. type(names), 2) end
  if #names == 0 then return refuse("a list of strategies without any leaves nothing to try") end
  local wanted, others, seen = {}, {}, {}
  for _, name in ipairs(names) do
    if type(name) ~= "string" then error("the name of a strategy is a string, not a " .. type(name), 2) end
    local short = name:match("^p2pd%.strategies%.(.+)$") or name
    if not seen[short] then
      seen[short] = true
      if not is_file(name) and find(pipeline, function(s) return not s.children and s.name == short end) then
        wanted[short] = true
      else
        local strategy, message, code = M.load(name)
        if not strategy then return nil, message, code end
        others[#others + 1] = strategy
      end
    end
  end
  local rigid = next(wanted) and find(pipeline, cannot_prune)
  if rigid then return refuse("strategy %s cannot be restricted: it has no rebuild", rigid.name) end
  local kept = next(wanted) and prune(pipeline, wanted)
  if kept and #others == 0 then return kept end
  if kept then table.insert(others, 1, kept) end
  return #others == 1 and others[1] or M.stagger(STAGGER)(others)
end

-- Running ---------------------------------------------------------------------------------------------------------

--- Runs the pipeline for the context, which ends with it: what it opened is closed, except the pipe that is returned.
---@param pipeline p2pd.Strategy
---@param ctx p2pd.Context
---@return any? pipe, string? message, string? code
function M.run(pipeline, ctx)
  local ok, problem = context.check(pipeline)
  if not ok then error(problem, 2) end
  local pipe, message, code = context.attempt(ctx, pipeline, "connect")
  if pipe then return pipe end
  return nil, message, code
end

--- Lets a strategy answer a message. The peer is told at once when it cannot, so that it need not wait: a reply with
--- kind = "refused", code and message.
---@param strategy p2pd.Strategy
---@param ctx p2pd.Context of role "respond"
---@param message table
---@return any? pipe, string? message, string? code
function M.respond(strategy, ctx, message)
  local ok, problem = context.check(strategy)
  if not ok then error(problem, 2) end
  if not strategy.respond then error(("strategy %s does not respond"):format(strategy.name), 2) end
  local pipe, why, code = context.attempt(ctx, strategy, "respond", message)
  if pipe then return pipe end
  return nil, why, code
end

return M
