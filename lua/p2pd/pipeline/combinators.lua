-- combinators: each makes a strategy of strategies, which is one like any other. All that they use is ctx: a script's
-- own are made alike.
local candidates = require "p2pd.candidates"
local loading = require "p2pd.pipeline.loading"
local strategies = require "p2pd.strategy"
local task = require "p2pd.task"
local walking = require "p2pd.pipeline.walking"

local M = {}

local PATIENCE = 0.25 -- seconds that a way gets before the next is tried beside it (RFC 8305, section 8)

-- Checks ----------------------------------------------------------------------------------------------------------

local function to_strategy(value, level, name)
  if type(value) == "string" then
    local strategy, message = loading.load(value)
    if not strategy then error(message, level + 1) end
    return strategy
  end
  local strategy, problem = strategies.of(value, name)
  if not strategy then error(problem, level + 1) end
  return strategy
end

local function to_strategies(list, level)
  if type(list) ~= "table" or list.name then error("a list of strategies is expected, in braces", level + 1) end
  local count = 0
  for _ in pairs(list) do count = count + 1 end
  if count == 0 then error("a list of strategies is empty", level + 1) end
  if count ~= #list then error("a list of strategies has names or holes in it", level + 1) end
  local made = {}
  for i, value in ipairs(list) do made[i] = to_strategy(value, level + 1) end
  return made
end

local function check_seconds(seconds, level)
  if type(seconds) ~= "number" or not (seconds >= 0 and seconds < math.huge) then
    error("a time is a number of seconds, zero or more", level + 1)
  end
end

local function to_names(names, level)
  if type(names) == "string" then names = { names } end
  if type(names) ~= "table" or #names == 0 then
    error("names of strategies are expected: one, or a list of some", level + 1)
  end
  for _, name in ipairs(names) do
    if type(name) ~= "string" then error("the name of a strategy is a string, not a " .. type(name), level + 1) end
  end
  return table.move(names, 1, #names, 1, {})
end

-- What a strategy returns when none of those that it is made of connected: the last failure tells.
local function none(message, code)
  return nil, message or "ESKIPPED: nothing in it applies", code or "ESKIPPED"
end

-- Of several ------------------------------------------------------------------------------------------------------

--- One after another, until one connects.
---@param list (p2pd.Strategy|string|function)[]
---@return p2pd.Strategy
function M.seq(list)
  local children = to_strategies(list, 2)
  return {
    name = "seq", children = children, rebuild = M.seq,
    connect = function(ctx)
      local message, code
      for _, child in ipairs(ctx:order(children)) do
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
local function side_by_side(ctx, list, delay_after)
  local children = ctx:order(list)
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
---@param list (p2pd.Strategy|string|function)[]
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
---@return fun(list: (p2pd.Strategy|string|function)[]): p2pd.Strategy
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

-- Of one ----------------------------------------------------------------------------------------------------------

-- A strategy around one other; `make` makes it around another one.
local function around(fields, child, make)
  fields.children = { child }
  fields.rebuild = function(children) return make(children[1]) end
  fields.connect = fields.connect or function(ctx) return ctx:try(child) end
  return fields
end

--- The strategy, for at most so many seconds.
---@param seconds number
---@param strategy p2pd.Strategy|string|function
---@return p2pd.Strategy
function M.timeout(seconds, strategy)
  check_seconds(seconds, 2)
  return around({ name = ("timeout(%g)"):format(seconds), timeout = seconds }, to_strategy(strategy, 2),
    function(child) return M.timeout(seconds, child) end)
end

--- The strategy, again when it failed: `times` tries in all. What does not apply is not tried again.
---@param times integer
---@param strategy p2pd.Strategy|string|function
---@return p2pd.Strategy
function M.retry(times, strategy)
  if math.type(times) ~= "integer" or times < 1 then error("a number of tries is a whole number from 1 on", 2) end
  local child = to_strategy(strategy, 2)
  local function connect(ctx)
    local message, code
    for _ = 1, times do
      local pipe, why, what = ctx:try(child)
      if pipe then return pipe end
      if what == "ESKIPPED" then return none(message, code) end
      message, code = why, what
    end
    return none(message, code)
  end
  return around({ name = ("retry(%d)"):format(times), connect = connect }, child,
    function(other) return M.retry(times, other) end)
end

--- The strategy, if the predicate says true; its second result is the reason why not.
---@param predicate fun(ctx: p2pd.Context): boolean?, string?
---@param strategy p2pd.Strategy|string|function
---@return p2pd.Strategy
function M.when(predicate, strategy)
  if type(predicate) ~= "function" then error("a predicate is a function, not a " .. type(predicate), 2) end
  return around({ name = "when", applies = predicate }, to_strategy(strategy, 2),
    function(child) return M.when(predicate, child) end)
end

--- The strategy, and a second run of it beside the first when that has not ended after so many seconds. The first pipe
--- ends the other run; a first run that fails sooner has no second one.
---@param seconds number
---@param strategy p2pd.Strategy|string|function
---@return p2pd.Strategy
function M.hedge(seconds, strategy)
  check_seconds(seconds, 2)
  local child = to_strategy(strategy, 2)
  local function connect(ctx)
    local ended, message, code = task.channel(2), nil, nil
    local function start()
      ctx:spawn(function() ended:send { ctx:try(child) } end)
    end
    start()
    local result, running = ended:recv(seconds), 1
    if not result then
      start()
      result, running = ended:recv(), 2
    end
    for left = running - 1, 0, -1 do
      if result[1] then return result[1] end
      if result[3] ~= "ESKIPPED" then message, code = result[2], result[3] end
      if left > 0 then result = ended:recv() end
    end
    return none(message, code)
  end
  return around({ name = ("hedge(%g)"):format(seconds), connect = connect }, child,
    function(other) return M.hedge(seconds, other) end)
end

local function budget_words(limits)
  local words = {}
  for _, key in ipairs { "syns", "seconds", "tries" } do
    if limits[key] then words[#words + 1] = ("%g%s"):format(limits[key], key:sub(1, 2) == "se" and "s" or key) end
  end
  return ("budget(%s)"):format(table.concat(words, "."))
end

local function check_limits(limits, level)
  if type(limits) ~= "table" then error("a budget is a table, not a " .. type(limits), level + 1) end
  local known = { syns = true, seconds = true, tries = true }
  if not next(limits) then error("a budget has syns, seconds or tries", level + 1) end
  for key, value in pairs(limits) do
    if not known[key] then error(("a budget has syns, seconds or tries, not '%s'"):format(tostring(key)), level + 1) end
    if key == "seconds" then
      check_seconds(value, level + 1)
    elseif math.type(value) ~= "integer" or value < 0 then
      error(("a budget's %s are a whole number from 0 on"):format(key), level + 1)
    end
  end
end

--- The strategy, within bounds of all that is in it together: SYNs of its bursts, seconds, and tries (how often one
--- that is not made of others begins). Each run of it has them anew.
---@param limits { syns: integer?, seconds: number?, tries: integer? }
---@return fun(strategy: p2pd.Strategy|string|function): p2pd.Strategy
function M.budget(limits)
  check_limits(limits, 2)
  local own = { syns = limits.syns, seconds = limits.seconds, tries = limits.tries }
  local function make(strategy)
    return around({
      name = budget_words(own), timeout = own.seconds, budget = { syns = own.syns, tries = own.tries },
    }, to_strategy(strategy, 2), make)
  end
  return make
end

--- The strategy under another name, in reports and where names choose. A function gets it as its own.
---@param name string
---@param strategy p2pd.Strategy|string|function
---@return p2pd.Strategy
function M.named(name, strategy)
  local child = to_strategy(strategy, 2, name)
  if type(strategy) ~= "function" then
    child = around({ name = name }, child, function(other) return M.named(name, other) end)
  end
  local own = to_strategy(child, 2)
  return own
end

-- Which, and in which order ---------------------------------------------------------------------------------------

--- The strategy with these alone of all that are in it; a name that is not in it throws.
---@param names string|string[]
---@param strategy p2pd.Strategy|string|function
---@return p2pd.Strategy
function M.only(names, strategy)
  names = to_names(names, 2)
  local kept, message = walking.keep(to_strategy(strategy, 2), names)
  if not kept then error(message, 2) end
  return kept
end

--- The strategy, but of whatever is tried in it these come first, however deep they lie: by their names, or by what a
--- function says of each when it is the turn of its list.
---@param wanted string|string[]|fun(ctx: p2pd.Context, strategy: p2pd.Strategy): boolean?
---@param strategy p2pd.Strategy|string|function
---@return p2pd.Strategy
function M.prefer(wanted, strategy)
  local child, test = to_strategy(strategy, 2), wanted
  if type(wanted) ~= "function" then
    local names = to_names(wanted, 2)
    local set, message = walking.set(child, names)
    if not set then error(message, 2) end
    test = function(_, each) return set[each.name] end
  end
  -- Among others there need not be those that were named.
  return around({ name = "prefer", prefer = test }, child, function(other) return M.prefer(test, other) end)
end

--- Seconds that a way gets before the next one, as the default pipeline has it: for `stagger`. One who is near, or not
--- behind a router, is dialed first, and gets a while; others are tried by all ways at once. A full cone lets in who
--- knows a port that it has mapped: it may be worth dialing, but is not waited for.
---@param ctx p2pd.Context
---@param place integer of the one that has started: dialing is the first, being dialed the second
---@return number seconds
function M.patience(ctx, place)
  for _, candidate in ipairs((ctx:candidates())) do
    if candidate.lan then return PATIENCE end
  end
  if not candidates.behind_routers(ctx.peer) then return PATIENCE end
  return (place == 1 or candidates.behind_routers(ctx.own)) and 0 or PATIENCE
end

return M
