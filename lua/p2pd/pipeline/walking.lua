-- walking: through a tree of strategies: who in it answers a message, and what is left of it when only some stay.
local loading = require "p2pd.pipeline.loading"
local strategies = require "p2pd.strategy"

local M = {}

local function refuse(message, ...)
  return nil, ("EINVAL: " .. message):format(...), "EINVAL"
end

--- The strategy that answers messages of this kind.
---@param pipeline p2pd.Strategy
---@param name string
---@return p2pd.Strategy? strategy, string? lacks what is missing when none does: "strategy" or "respond"
function M.responder(pipeline, name)
  local silent
  local found = strategies.find(pipeline, function(strategy)
    silent = silent or strategy.name == name
    return strategy.name == name and strategy.respond ~= nil
  end)
  return found, not found and (silent and "respond" or "strategy") or nil
end

-- What is left of the tree when only what has a wanted name stays; nil when nothing does.
local function prune(strategy, wanted)
  if wanted[strategy.name] then return strategy end
  local kept = {}
  for _, child in ipairs(strategy.children or {}) do kept[#kept + 1] = prune(child, wanted) end
  if #kept == 0 then return nil end
  if #kept == 1 and #strategy.children > 1 then return kept[1] end
  return strategy.rebuild(kept)
end

-- One that would have to be made anew for that, and cannot be.
local function rigid(strategy, wanted)
  if wanted[strategy.name] or not strategy.children then return nil end
  local inside = strategies.find(strategy, function(each) return wanted[each.name] end)
  if inside and not strategy.rebuild then return strategy end
  for _, child in ipairs(strategy.children) do
    local found = rigid(child, wanted)
    if found then return found end
  end
end

local function names_in(pipeline)
  local names, seen = {}, {}
  strategies.find(pipeline, function(each)
    if not seen[each.name] then names[#names + 1], seen[each.name] = each.name, true end
  end)
  return names
end

--- The names as a set, when each of them is in the tree.
---@param pipeline p2pd.Strategy
---@param names string[]
---@return table<string, true>? set, string? message, string? code
function M.set(pipeline, names)
  local set = {}
  for _, name in ipairs(names) do
    if not strategies.find(pipeline, function(each) return each.name == name end) then
      local guess = require("p2pd.repl.near").among(name, names_in(pipeline))
      return refuse("there is no '%s' among these strategies%s; there are %s", name,
        guess and ("; did you mean %s?"):format(guess) or "", table.concat(strategies.leaves(pipeline), ", "))
    end
    set[name] = true
  end
  return set
end

--- The tree with these alone, each of which has to be in it.
---@param pipeline p2pd.Strategy
---@param names string[]
---@return p2pd.Strategy? pipeline, string? message, string? code
function M.keep(pipeline, names)
  local wanted, message, code = M.set(pipeline, names)
  if not wanted then return nil, message, code end
  local stiff = rigid(pipeline, wanted)
  if stiff then return refuse("strategy %s cannot be restricted: it has no rebuild", stiff.name) end
  return prune(pipeline, wanted)
end

--- The pipeline with these strategies alone, in its own order, and those that are not in it (files, say). A name that
--- is not known is told, not passed over.
---@param pipeline p2pd.Strategy
---@param names string[]
---@return p2pd.Strategy[]? parts, string? message, string? code
function M.restrict(pipeline, names)
  if #names == 0 then return refuse "a list of strategies without any leaves nothing to try" end
  local inside, parts, seen = {}, {}, {}
  for _, name in ipairs(names) do
    if type(name) ~= "string" then error("the name of a strategy is a string, not a " .. type(name), 3) end
    local short = name:match "^p2pd%.strategies%.(.+)$" or name
    if not seen[short] then
      seen[short] = true
      if not loading.is_file(name) and strategies.find(pipeline, function(each) return each.name == short end) then
        inside[#inside + 1] = short
      else
        local strategy, message, code = loading.load(name)
        if not strategy then return nil, message, code end
        parts[#parts + 1] = strategy
      end
    end
  end
  if #inside == 0 then return parts end
  local kept, message, code = M.keep(pipeline, inside)
  if not kept then return nil, message, code end
  table.insert(parts, 1, kept)
  return parts
end

return M
