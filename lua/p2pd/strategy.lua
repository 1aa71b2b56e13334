-- strategy: what a strategy is: a table with two ends, or a function of ctx alone; and what is wrong with what is none.
local M = {}

local strategy_fields = {
  name = "string", timeout = "number", applies = "function", connect = "function", respond = "function",
  children = "table", rebuild = "function", budget = "table", prefer = "function",
}
local budget_fields = { syns = true, tries = true }

local OWN = debug.getinfo(1, "S").source:match "^(.*)strategy%.lua$" -- where this library's files lie

-- Functions ---------------------------------------------------------------------------------------------------------

--- Whether the function is this library's own, not a user's.
---@param f function
function M.is_own(f)
  local source = debug.getinfo(f, "S").source
  return source:sub(1, #OWN) == OWN or source:sub(1, 1) == "="
end

--- Where a function begins: "mine.lua:12".
---@param f function
function M.place(f)
  local info = debug.getinfo(f, "S")
  return ("%s:%d"):format(info.short_src, info.linedefined)
end

-- What a function is called in reports: its file's name, and its line there.
local function name_of(f)
  local info = debug.getinfo(f, "S")
  local file = info.source:match "^@.-([^/]+)$"
  local name = file and ("%s:%d"):format(file, info.linedefined) or "function"
  return (name:gsub("[^%w_.:()-]", "_"):sub(-64))
end

-- A function stands for the same strategy wherever it is met: reports know it by that.
local made = setmetatable({}, { __mode = "k" })

local function from_function(f, name)
  if name then return { name = name, connect = f } end
  made[f] = made[f] or { name = name_of(f), connect = f }
  return made[f]
end

-- Checks --------------------------------------------------------------------------------------------------------------

local function near(name, known)
  local names = {}
  for key in pairs(known) do names[#names + 1] = key end
  local guess = require("p2pd.repl.near").among(tostring(name), names)
  return guess and ("; did you mean %s?"):format(guess) or ""
end

local function article(kind)
  return kind == "nil" and kind or "a " .. kind
end

local function check_budget(budget)
  for key, value in pairs(budget) do
    if not budget_fields[key] then return ("has an unknown field, '%s'%s"):format(key, near(key, budget_fields)) end
    if math.type(value) ~= "integer" or value < 0 then
      return ("has as %s no whole number from 0 on"):format(key)
    end
  end
end

local function check_field(strategy, key, value)
  local name, expected = strategy.name, strategy_fields[key]
  if not expected then
    return ("strategy %s has an unknown field, '%s'%s"):format(name, tostring(key), near(key, strategy_fields))
  elseif type(value) ~= expected then
    return ("strategy %s: its %s is %s, not a %s"):format(name, key, article(type(value)), expected)
  elseif key == "timeout" and not (value >= 0) then
    return ("strategy %s: its timeout is not a number of seconds"):format(name)
  elseif key == "budget" then
    local problem = check_budget(value)
    return problem and ("strategy %s: its budget %s"):format(name, problem)
  end
end

--- Whether a text can be the name of a strategy, which is also the kind of its messages.
function M.is_name(name)
  return type(name) == "string" and #name <= 64 and name:find "^[%w_.:()+-]+$" ~= nil
end

--- Whether the value is a strategy's table; else nil, what is wrong with it, and the field in question. Functions among
--- its children become strategies.
---@return boolean? ok, string? problem, string? field
function M.check(strategy)
  if type(strategy) == "function" then return true end
  if type(strategy) ~= "table" then
    return nil, ("a strategy is a table, not %s"):format(type(strategy) == "nil" and "a nil" or article(type(strategy)))
  end
  local name = strategy.name
  if not M.is_name(name) then
    return nil, "a strategy needs a name of letters, digits, '_', '.' and '-'", "name"
  end
  for key, value in pairs(strategy) do
    local problem = check_field(strategy, key, value)
    if problem then return nil, problem, key end
  end
  if not strategy.connect and not strategy.respond then
    return nil, ("strategy %s has neither connect nor respond"):format(name), "name"
  end
  for i, child in ipairs(strategy.children or {}) do
    local ok, problem = M.check(child)
    if not ok then return nil, ("strategy %s, child %d: %s"):format(name, i, problem), "children" end
    if type(child) == "function" then strategy.children[i] = from_function(child) end
  end
  return true
end

--- The strategy that a value stands for: itself, or what is made of a function; nil and what is wrong with it.
---@param name? string of the one that a function becomes
---@return p2pd.Strategy? strategy, string? problem, string? field
function M.of(value, name)
  local ok, problem, field = M.check(value)
  if not ok then return nil, problem, field end
  return type(value) == "function" and from_function(value, name) or value
end

-- Trees ---------------------------------------------------------------------------------------------------------------

--- The first of a tree of strategies that the test says true of, from the top.
---@param test fun(strategy: p2pd.Strategy): any
---@return p2pd.Strategy?
function M.find(strategy, test)
  if test(strategy) then return strategy end
  for _, child in ipairs(strategy.children or {}) do
    local found = M.find(child, test)
    if found then return found end
  end
end

--- The names of the strategies in a tree which are not made of others, in their order.
---@return string[]
function M.leaves(strategy)
  local names = {}
  M.find(strategy, function(each)
    if not each.children then names[#names + 1] = each.name end
  end)
  return names
end

--- A tree of strategies in one line: "stagger(2.4){direct, punch}".
---@return string
function M.outline(strategy)
  if not strategy.children then return strategy.name end
  local parts = {}
  for i, child in ipairs(strategy.children) do parts[i] = M.outline(child) end
  return ("%s{%s}"):format(strategy.name, table.concat(parts, ", "))
end

return M
