---@meta p2pd
-- `local p2pd = require "p2pd"`; in the REPL it is there already.

--- The library: tasks, nodes, and the parts that go with them. Times and durations are numbers in seconds. What can
--- fail at run time returns nil, "ECODE: sentence", "ECODE" (`:help errors`); a wrong argument throws at the caller's
--- line.
---@class p2pd
---@field address p2pd.address the text that a node hands out so that others can reach it
---@field clock p2pd.clock what time it is, by servers on the network
---@field lab p2pd.lab networks with every kind of NAT, on this machine
---@field nat p2pd.nat what the routers do
---@field netcheck p2pd.netcheck what is wrong with this network
---@field nic p2pd.nic this machine's interfaces and routes
---@field pipeline p2pd.pipeline strategies, and how to combine them
---@field portmap p2pd.portmap ports of the router that lead to this machine
---@field punch p2pd.punch what is fired when, so that two routers open for each other
---@field reach p2pd.reach by which means two nodes can meet
---@field settings p2pd.settings which servers a node uses
---@field stun p2pd.stun from where packets seem to come
---@field timeline p2pd.timeline what an attempt did over time, as text or as a picture
---@field turn p2pd.turn relays
local p2pd = {}

--- What went wrong, as one word. The first fifteen are ours; the others are the system's, by libuv's names.
---@alias p2pd.Code
---| "ECLOSED" it was closed
---| "EDEADLOCK" nothing is left that could wake it
---| "EFORMAT" the bytes do not follow the format
---| "EPEER" the peer is another one than was asked for
---| "ETLS" the secure handshake failed
---| "EDENIED" it was refused by allow()
---| "EFOREIGN" it is sealed to another key
---| "EFORGED" its signature does not hold
---| "ESTALE" its time is outside of what is accepted
---| "EREPLAYED" it was seen before
---| "EUNREACHABLE" no way to the peer was found
---| "ELOST" the peer kept another connection
---| "ESCRIPT" a strategy threw an error
---| "ESKIPPED" the strategy does not apply
---| "EBUDGET" the budget around a strategy is spent
---| "EOF" the stream has ended as it should
---| "ECANCELED" the task was cancelled
---| "ETIMEDOUT" the time was over
---| "ENOTSUP" this version cannot do that
---| string any other of the system's

--- Starts a task: a function that runs beside others, in turn with them, until it waits. It begins when the caller
--- next waits, or ends. A failure that nobody learns of by `task:wait` is printed with the task's traceback, and the
--- program then ends with status 1.
---@param f function
---@param ... any its arguments
---@return p2pd.Task
function p2pd.spawn(f, ...) end

--- Waits. Zero lets the others have their turn. Throws "not in a task" outside of one, as everything does that waits.
---@param seconds number zero or more
function p2pd.sleep(seconds) end

--- Runs functions side by side, each in a task. The first that returns something true wins: the others are cancelled
--- and waited for, then the winner's values are returned. When none does, the values of the one that ended last are
--- returned, and are its failure. An error that one of them throws cancels the others and is thrown here.
---@param functions (fun(): ...)[] at least one
---@return any ...
function p2pd.race(functions) end

--- Runs a function for at most so many seconds. When they are over it is cancelled and waited for.
---@param seconds number zero or more
---@param f function
---@param ... any its arguments
---@return any ... what `f` returns, or nil, "ETIMEDOUT: …", "ETIMEDOUT"
function p2pd.timeout(seconds, f, ...) end

--- A queue between tasks.
---@param capacity? integer how many values it holds before `send` waits; 1 unless given
---@return p2pd.Channel
function p2pd.channel(capacity) end

--- A scope for tasks: `local tasks <close> = p2pd.group()`. Whatever leaves the scope cancels those of its tasks that
--- still run, and waits for their end.
---@return p2pd.Group
function p2pd.group() end

--- Runs a function as a task, and the loop until it has ended. For programs whose main program is not `p2pd-lua`:
--- stock Lua, busted. In a task it throws; call the function instead.
---@param f function
---@param ... any its arguments
---@return any ... what `f` returns; nil, message, "EDEADLOCK" when all tasks wait and nothing can wake one
function p2pd.run(f, ...) end

--- The time in seconds, of a clock that never goes back. Only differences mean something.
---@return number
function p2pd.now() end

--- Whether an error that a pcall caught is a task's cancellation. It should be thrown on, not handled.
---@param err any
---@return boolean
function p2pd.is_cancelled(err) end

--- Starts a node: opens its key (made at first use), listens, learns its addresses, and joins its brokers. Takes
--- until the first broker is joined, at most some seconds; without brokers a node works too, reached by its address
--- alone. Fails with EBUSY (another process listens with this key), EPERM or EFORMAT (the key file), EADDRINUSE (the
--- given port), EADDRNOTAVAIL (no such interface), EINVAL or EACCES (the settings).
---@param options? p2pd.NodeOptions
---@return p2pd.Node? node
---@return string? message
---@return p2pd.Code? code
function p2pd.node(options) end

return p2pd
