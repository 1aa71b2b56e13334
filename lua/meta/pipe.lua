---@meta p2pd.pipe

--- One encrypted connection between two nodes that have proven their keys to each other. Bytes go both ways, in
--- order, without boundaries. As a `<close>` variable it is closed with its scope. See `:help pipes`.
---@class p2pd.Pipe
---@field peer string the peer's node ID, proven
---@field strategy string by which way it came: "direct", "reverse", …
---@field remote string the other end's address: "192.0.2.7:4242" or "[2001:db8::7]:4242"
---@field local_address string this end's address
local pipe = {}

--- Sends all of the data. Waits while more than 256 KiB wait for the network, until less than 64 KiB do. That it
--- returned does not say that the peer has it. Fails with ECLOSED, EPIPE (after `shutdown`), ECONNRESET; or
--- ETIMEDOUT, and then a part of the data may be on its way.
---@param data string
---@param timeout? number seconds; without one as long as it takes
---@return true? sent
---@return string? message
---@return p2pd.Code? code
function pipe:send(data, timeout) end

--- Waits for bytes and returns what there is. Fails with ECLOSED, ECONNRESET, ETIMEDOUT, EBUSY (another task
--- receives).
---@param timeout? number seconds; without one as long as it takes
---@param most? integer bytes to return at most; 262144 unless given, and never more
---@return string? data nil at the end, and when it failed
---@return string? message
---@return p2pd.Code? code "EOF" when the peer has said goodbye
function pipe:recv(timeout, most) end

--- Gives the lines that arrive, without their ends ("\n" or "\r\n"): `for line in pipe:lines() do … end`. The last
--- one may lack its end. A pipe that breaks throws, and so does a longer line. What it has taken and not given yet
--- stays with the pipe: another `lines` goes on with it, and `recv` gives it out first.
---@param longest? integer bytes; 1048576 unless given
---@return fun(): string?
function pipe:lines(longest) end

--- Sends all that comes from a file descriptor, without a script in between: `pipe:send_from(0)` sends standard input.
--- Returns at its end; the pipe stays open. Fails like `send`, or as reading fails.
---@param fd integer a descriptor of this process; it stays open, and as it is
---@return integer? bytes how many
---@return string? message
---@return p2pd.Code? code
function pipe:send_from(fd) end

--- Writes all that arrives to a file descriptor: `pipe:recv_to(1)`. Returns when the peer has said goodbye. Fails like
--- `recv`, or as writing fails: EPIPE when nobody reads there any more.
---@param fd integer a descriptor of this process; it stays open, and as it is
---@return integer? bytes how many
---@return string? message
---@return p2pd.Code? code
function pipe:recv_to(fd) end

--- Ends this direction and waits until all has left: the peer reads what is left, then gets "EOF". Receiving goes on.
---@param timeout? number seconds; without one as long as it takes
---@return true? done
---@return string? message
---@return p2pd.Code? code
function pipe:shutdown(timeout) end

--- Closes the pipe, at once: tasks that wait for it get ECLOSED. What was sent is still delivered in the background,
--- for at most 10 seconds.
function pipe:close() end

--- Closes the pipe without delivering anything more. For a peer that goes on sending when nobody listens any more.
function pipe:abort() end

--- Turns the peer away and closes the pipe: for one that came out of `accept` and was not used yet. The peer's `recv`
--- gets the code.
---@param code? "EDENIED"|"EBUSY" "EDENIED" unless given
---@return true? told nil when it was closed, or used before
---@return string? message
---@return p2pd.Code? why
function pipe:refuse(code) end
