-- pipeline: strategies made of strategies. Which ways to a peer are tried, in which order, side by side or one after
-- another, with what patience.
local combinators = require "p2pd.pipeline.combinators"
local context = require "p2pd.context"
local loading = require "p2pd.pipeline.loading"
local strategies = require "p2pd.strategy"
local walking = require "p2pd.pipeline.walking"

local M = {}

for name, combinator in pairs(combinators) do M[name] = combinator end

-- p2pd.pipeline.learning's, which is loaded when it is needed first.
for _, name in ipairs { "learn", "scores" } do
  M[name] = function(...) return require "p2pd.pipeline.learning"[name](...) end
end

local STAGGER = 0.25 -- seconds that a way gets before the next is tried beside it (RFC 8305, section 8)

local function to_strategy(value, level)
  local strategy, problem = strategies.of(value)
  if not strategy then error(problem, level + 1) end
  return strategy
end

-- What was loaded, and how it is loaded again: by name, with which ways alone, and from which files.
local origins = setmetatable({}, { __mode = "k" })

-- The strategy as what was loaded so. A user's file may return what was loaded by another name before, as the default
-- pipeline: that becomes a copy, so that each is loaded again as it was loaded.
local function with_origin(strategy, origin)
  local known = origins[strategy]
  if known and (known.name ~= origin.name or known.names or origin.names) then
    if #origin.files == 0 then return strategy end
    local copy = {}
    for key, value in pairs(strategy) do copy[key] = value end
    strategy = copy
  end
  origins[strategy] = origin
  return strategy
end

-- Finding them --------------------------------------------------------------------------------------------------------

M.list, M.text, M.folder = loading.list, loading.text, loading.folder
M.responder = walking.responder

--- A strategy by its name, its module or its file: see p2pd.pipeline.load.
---@param name string
---@return p2pd.Strategy? strategy, string? message, string? code
function M.load(name)
  if type(name) ~= "string" then error("the name of a strategy is a string, not a " .. type(name), 2) end
  local files, strategy, message, code = loading.noting(loading.load, name)
  if not strategy then return nil, message, code end
  return with_origin(strategy, { name = name, files = files })
end

--- Where a pipeline came from: the name that was loaded, those to which it was restricted, and the user's files.
---@param strategy p2pd.Strategy
---@return { name: string, names: string[]?, files: p2pd.Source[] }?
function M.origin(strategy)
  return origins[strategy]
end

--- Loads anew what was loaded by a name, from its file as it is now.
---@param strategy p2pd.Strategy
---@return p2pd.Strategy? strategy, string? message, string? code
function M.again(strategy)
  local origin = origins[strategy]
  if not origin then return nil, "ENOENT: it was not loaded by a name", "ENOENT" end
  loading.forget(origin.files)
  local new, message, code = M.load(origin.name)
  if not new or not origin.names then return new, message, code end
  return M.restrict(new, origin.names)
end

--- Loads it anew whenever one of its files changes: see p2pd.pipeline.watching.
---@param strategy p2pd.Strategy
---@param on_news fun(news: p2pd.PipelineNews)
---@return p2pd.PipelineWatch? watch, string? message, string? code
function M.watch(strategy, on_news)
  if type(on_news) ~= "function" then error("a function is expected that gets the news", 2) end
  return require("p2pd.pipeline.watching").open(to_strategy(strategy, 2), on_news)
end

--- What a node uses unless told otherwise: lua/p2pd/strategies/default.lua, which can be copied and changed.
---@return p2pd.Strategy
function M.default()
  return assert(M.load "default")
end

--- The pipeline with these strategies alone, in its own order. One that is not in it (a file, say) starts beside those
--- that are. A name that is not known is told, not passed over.
---@param pipeline p2pd.Strategy|function
---@param names string[]
---@return p2pd.Strategy? pipeline, string? message, string? code
function M.restrict(pipeline, names)
  local strategy = to_strategy(pipeline, 2)
  if type(names) ~= "table" then error("a list of names of strategies is expected, not a " .. type(names), 2) end
  local files, parts, message, code = loading.noting(walking.restrict, strategy, names)
  if not parts then return nil, message, code end
  local made, origin = #parts == 1 and parts[1] or M.stagger(STAGGER)(parts), origins[strategy]
  if not origin then return made end
  table.move(origin.files, 1, #origin.files, #files + 1, files)
  return with_origin(made, { name = origin.name, names = names, files = files })
end

-- Running ---------------------------------------------------------------------------------------------------------

--- Runs the pipeline for the context, which ends with it: what it opened is closed, except the pipe that is returned.
---@param pipeline p2pd.Strategy|function
---@param ctx p2pd.Context
---@return any? pipe, string? message, string? code
function M.run(pipeline, ctx)
  local strategy = to_strategy(pipeline, 2)
  local pipe, message, code = context.attempt(ctx, strategy, "connect")
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
  local own = to_strategy(strategy, 2)
  if not own.respond then error(("strategy %s does not respond"):format(own.name), 2) end
  local pipe, why, code = context.attempt(ctx, own, "respond", message)
  if pipe then return pipe end
  return nil, why, code
end

return M
