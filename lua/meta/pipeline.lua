---@meta p2pd.pipeline

--- Strategies made of strategies: which ways are tried, in which order, side by side or one after another, with what
--- patience. Each combinator gives a strategy like any other. In place of a strategy its name or its file can be given,
--- or a function of `ctx` alone: what cannot be loaded throws at the caller's line.
---@class p2pd.pipeline
local pipeline = {}

--- What may stand for a strategy: itself, its name or file, or its `connect` alone. A function is called "mine.lua:12"
--- in reports, after its place; see `named`.
---@alias p2pd.Stands p2pd.Strategy|string|fun(ctx: p2pd.Context): p2pd.Pipe?, string?, p2pd.Code?

--- One after another, until one connects.
---@param list p2pd.Stands[]
---@return p2pd.Strategy
function pipeline.seq(list) end

--- All at once. The first that connects ends the others.
---@param list p2pd.Stands[]
---@return p2pd.Strategy
function pipeline.race(list) end

--- The first at once, each other one so many seconds after the one before it, or as soon as that one has failed. The
--- first that connects ends the others (as RFC 8305, section 5, has it for addresses). Use: `stagger(0.25) {
--- "direct", "reverse" }`. A function in place of the seconds is asked as each one starts, with its place in the list,
--- how long it has before the next one; 0 starts that at once.
---@param seconds number|fun(ctx: p2pd.Context, place: integer): number
---@return fun(list: p2pd.Stands[]): p2pd.Strategy
function pipeline.stagger(seconds) end

--- How long a way gets before the next one in the default pipeline, for `stagger`: a while where the peer is near or
--- not behind a router, no time where it is.
---@param ctx p2pd.Context
---@param place integer of the one that has started: dialing is the first, being dialed the second
---@return number seconds
function pipeline.patience(ctx, place) end

--- The strategy, for at most so many seconds.
---@param seconds number
---@param strategy p2pd.Stands
---@return p2pd.Strategy
function pipeline.timeout(seconds, strategy) end

--- The strategy, and again when it failed. What does not apply is not tried again.
---@param times integer tries in all
---@param strategy p2pd.Stands
---@return p2pd.Strategy
function pipeline.retry(times, strategy) end

--- The strategy, if the predicate says true. Its second result is the reason why not, for the report.
---@param predicate fun(ctx: p2pd.Context): boolean?, string?
---@param strategy p2pd.Stands
---@return p2pd.Strategy
function pipeline.when(predicate, strategy) end

--- The strategy, and a second run of it beside the first when that has not ended after so many seconds. The first pipe
--- ends the other run. A first run that fails sooner has no second one. A rung that ran twice is reported once.
---@param seconds number
---@param strategy p2pd.Stands
---@return p2pd.Strategy
function pipeline.hedge(seconds, strategy) end

--- The strategy, within bounds of all that is in it together. Each run of it has them anew, and the least of several
--- counts. Use: `budget { tries = 5, syns = 300 } (retry(9, "punch"))`. What comes after the last try is passed over;
--- a puncher beyond the last SYN fails with EBUDGET. `ctx:budget()` tells what is left.
---@param limits { syns?: integer, seconds?: number, tries?: integer } SYNs of bursts; how often rungs begin
---@return fun(strategy: p2pd.Stands): p2pd.Strategy
function pipeline.budget(limits) end

--- The strategy under another name: for reports, `only`, `prefer` and lists of names. A function gets it as its own;
--- what is a strategy already keeps its messages' kind, and becomes a part of the one that has the name.
---@param name string
---@param strategy p2pd.Stands
---@return p2pd.Strategy
function pipeline.named(name, strategy) end

--- The strategy with these alone of all that are in it, and what is around them. A name that is not in it throws.
---@param names string|string[]
---@param strategy p2pd.Stands
---@return p2pd.Strategy
function pipeline.only(names, strategy) end

--- The strategy, but in each list within it those that are wanted, or have such in them, come first. Of two prefers the
--- outer one has the last word. A combinator of your own obeys by `ctx:order`.
---@param wanted string|string[]|fun(ctx: p2pd.Context, strategy: p2pd.Strategy): boolean? names, each of them in it;
---  or a function that is asked of each when it is the turn of its list
---@param strategy p2pd.Stands
---@return p2pd.Strategy
function pipeline.prefer(wanted, strategy) end

--- The one first that did best before on this pair of networks: ours (its addresses), and the peer's (its node ID and
--- external addresses). One that could be better, drawn by chance that the pair and the number of attempts fix, starts
--- beside it; the others when it has had what it usually takes (at most a second), or has failed. Where nothing has
--- connected yet they start as the default pipeline's do. Nothing is left out: what failed before has its turn in each
--- attempt, and failures are forgotten after 32. A relayed connection counts a second more than it took, and only what
--- is called `relay` is known to be one. What is known lies in `~/.cache/p2pd-lua/ways.json`, or below
--- `$XDG_CACHE_HOME`: of the last 64 pairs, for 30 days. Use: `learn { "direct", "reverse", "punch", "relay" }`, which
--- is the example `learning`.
---@param list p2pd.Stands[]
---@return p2pd.Strategy
function pipeline.learn(list) end

--- How a way went on a pair of networks.
---@class p2pd.WayScores
---@field name string of one that is made of others: with what is in it, "retry(2){punch}"
---@field tries integer how often it was begun
---@field connected integer how often the pipe was its
---@field failed integer how often it failed by itself; the others were cut off when another one had connected
---@field recent_ms integer[] the last outcomes that count, the latest last; below zero: failed, or was slower
---@field usual_ms? integer the median of those that connected
---@field chance number that it connects, as far as is known
---@field counts_ms? integer what it is taken to need, with its chance: the least is tried first

--- What `learn` knows of a pair of networks.
---@class p2pd.Scores
---@field own string our external and internal addresses
---@field node string the peer's node ID
---@field peer string its external addresses
---@field attempts integer
---@field at integer the time of the last one, as os.time has it
---@field ways p2pd.WayScores[]
---@field first? string what would be tried first; nil while nothing has connected
---@field beside? string what would be tried at once, too, to see whether it is better
---@field why string

--- What `learn` knows, the latest pair of networks first. `:scores` prints it.
---@return p2pd.Scores[]
function pipeline.scores() end

--- What a node uses unless told otherwise: direct, reverse and punch, then a relay. Peers that are near or not behind a
--- router are dialed first, and the next way follows 0.25 seconds later; others are tried by all three at once. A relay
--- is asked for when these have failed, and 2.4 seconds after the start at the latest. `p2pd-lua strategies
--- default` prints it.
---@return p2pd.Strategy
function pipeline.default() end

--- A strategy by its name, its module ("mine.strategy") or its file (with a `/`, or ending in `.lua`). A name is that
--- of one that is built in, or of a file in `pipeline.folder()`, or of an example. A file is Lua source that returns a
--- strategy, or a function, which is named after the file. Fails with EINVAL (unknown, or no strategy: with the file
--- and the line), ENOENT, EACCES (in that folder: others may write it).
---@param name string
---@return p2pd.Strategy? strategy
---@return string? message
---@return p2pd.Code? code
function pipeline.load(name) end

--- A file of a user's that a pipeline was made of.
---@class p2pd.Source
---@field name string as it was given: "./mine.lua", or a name
---@field path string from the root on
---@field stamp string what the file was like before it was read
---@field module? string of one that was required

--- Where a pipeline came from: the name by which it was loaded, those to which it was restricted, and the user's files
--- that strategies in it were loaded from, by whatever name; nil when it was made otherwise.
---@param strategy p2pd.Strategy
---@return { name: string, names: string[]?, files: p2pd.Source[] }? origin
function pipeline.origin(strategy) end

--- Loads anew what was loaded by a name, from its file as it is now: `node:use(pipeline.again(old))`. The old one stays
--- as it is. Fails like `load`, or with ENOENT when it has no origin.
---@param strategy p2pd.Strategy
---@return p2pd.Strategy? strategy
---@return string? message
---@return p2pd.Code? code
function pipeline.again(strategy) end

--- What is told when files of a pipeline have changed.
---@class p2pd.PipelineNews
---@field text string a sentence for a person: "mine.lua was loaded again: race{direct, mine}"
---@field files string[] those that have changed, by the names under which they were loaded
---@field pipeline? p2pd.Strategy the new one; nil where it could not be loaded
---@field message? string why not
---@field code? p2pd.Code

--- Loads a pipeline anew whenever a file changes that a strategy in it was loaded from: written, replaced, removed and
--- made again, touched, or a link to it set elsewhere. Several changes within 0.1 seconds are one. The old pipeline
--- stays as it is. While a new one cannot be loaded, it looks on for changes. What a file requires by itself is not
--- watched. `node:watch` does this for a node's pipeline. Fails like `again`, with ENOENT when no file of yours is in
--- it, or with ENOSPC, EMFILE or EACCES when a folder cannot be watched.
---@param strategy p2pd.Strategy
---@param on_news fun(news: p2pd.PipelineNews) must not wait
---@return p2pd.PipelineWatch? watch
---@return string? message
---@return p2pd.Code? code
function pipeline.watch(strategy, on_news) end

--- A pipeline's files, watched. It keeps the program alive until it is closed.
---@class p2pd.PipelineWatch
---@field strategy p2pd.Strategy the pipeline, as it was loaded last
local watch = {}

--- Ends it.
function watch:close() end

--- A strategy that has a name.
---@class p2pd.Named
---@field name string
---@field from "built in"|"own"|"example"
---@field path string
---@field hidden? string whence the other one comes that has its name, so that it is not to be had

--- All strategies that have names.
---@return p2pd.Named[]
function pipeline.list() end

--- The text of a strategy that has a name, to be copied and changed. Fails with EINVAL.
---@param name string
---@return string? text
---@return string? message
---@return p2pd.Code? code
function pipeline.text(name) end

--- Where your own strategies lie: `~/.config/p2pd-lua/strategies`, or below `$XDG_CONFIG_HOME`. Nobody else may be
--- able to write there.
---@return string path
function pipeline.folder() end

--- A pipeline with these rungs alone, in its own order. Those that are not in it (files, say) start 0.25 seconds
--- apart beside what is left of it. Fails with EINVAL when a name is not known.
---@param pipeline p2pd.Strategy
---@param names string[]
---@return p2pd.Strategy? pipeline
---@return string? message
---@return p2pd.Code? code
function pipeline.restrict(pipeline, names) end

--- The strategy in a pipeline that answers messages of this kind, or nil and what is missing.
---@param pipeline p2pd.Strategy
---@param name string
---@return p2pd.Strategy? strategy
---@return "strategy"|"respond"|nil lacks
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
