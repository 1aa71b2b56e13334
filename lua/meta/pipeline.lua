---@meta p2pd.pipeline

--- Strategies made of strategies: which ways are tried, in which order, side by side or one after another, with what
--- patience. Each function gives a strategy like any other. In place of a strategy its name or its file can be given;
--- what cannot be loaded throws at the caller's line.
---@class p2pd.pipeline
local pipeline = {}

--- One after another, until one connects.
---@param list (p2pd.Strategy|string)[]
---@return p2pd.Strategy
function pipeline.seq(list) end

--- All at once. The first that connects ends the others.
---@param list (p2pd.Strategy|string)[]
---@return p2pd.Strategy
function pipeline.race(list) end

--- The first at once, each other one so many seconds after the one before it, or as soon as that one has failed. The
--- first that connects ends the others (as RFC 8305, section 5, has it for addresses). Use: `stagger(0.25) {
--- "direct", "reverse" }`. A function in place of the seconds is asked as each one starts, with its place in the list,
--- how long it has before the next one; 0 starts that at once.
---@param seconds number|fun(ctx: p2pd.Context, place: integer): number
---@return fun(list: (p2pd.Strategy|string)[]): p2pd.Strategy
function pipeline.stagger(seconds) end

--- The strategy, for at most so many seconds.
---@param seconds number
---@param strategy p2pd.Strategy|string
---@return p2pd.Strategy
function pipeline.timeout(seconds, strategy) end

--- The strategy, and again when it failed. What does not apply is not tried again.
---@param times integer tries in all
---@param strategy p2pd.Strategy|string
---@return p2pd.Strategy
function pipeline.retry(times, strategy) end

--- The strategy, if the predicate says true. Its second result is the reason why not, for the report.
---@param predicate fun(ctx: p2pd.Context): boolean?, string?
---@param strategy p2pd.Strategy|string
---@return p2pd.Strategy
function pipeline.when(predicate, strategy) end

--- What a node uses unless told otherwise: direct, reverse and punch, then a relay. Peers that are near or not behind a
--- router are dialed first, and the next way follows 0.25 seconds later; others are tried by all three at once. A relay
--- is asked for when these have failed, and 2.4 seconds after the start at the latest. `:help strategies`.
---@return p2pd.Strategy
function pipeline.default() end

--- A strategy by its name ("direct"), its module ("mine.strategy") or its file (with a `/`, or ending in `.lua`). A
--- file is Lua source that returns a strategy. Fails with EINVAL (unknown, or no strategy), ENOENT, EACCES.
---@param name string
---@return p2pd.Strategy? strategy
---@return string? message
---@return p2pd.Code? code
function pipeline.load(name) end

--- A pipeline with these rungs alone, in its own order. Those that are not in it (files, say) start 0.25 seconds
--- apart beside what is left of it. Fails with EINVAL when a name is not known.
---@param pipeline p2pd.Strategy
---@param names string[]
---@return p2pd.Strategy? pipeline
---@return string? message
---@return p2pd.Code? code
function pipeline.restrict(pipeline, names) end

--- The strategy in a pipeline that answers messages of this kind, or nil.
---@param pipeline p2pd.Strategy
---@param name string
---@return p2pd.Strategy?
function pipeline.responder(pipeline, name) end

--- Runs a pipeline for a context, which ends with it. `node:connect` does this; so do tests of a strategy.
---@param pipeline p2pd.Strategy
---@param ctx p2pd.Context
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code
function pipeline.run(pipeline, ctx) end

--- Lets a strategy answer a message, for a context of role "respond", which ends with it.
---@param strategy p2pd.Strategy
---@param ctx p2pd.Context
---@param message table
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code
function pipeline.respond(strategy, ctx, message) end
