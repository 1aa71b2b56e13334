---@meta p2pd.strategy

--- One way to the peer, with its two ends: a table that a Lua file returns. `:help strategies` tells how to write
--- one.
---
--- It has `connect` (the side that wants the connection), or `respond` (the side that is asked, by a message whose
--- kind is `name`), or both. Each returns a pipe that `ctx` opened, or nil, message, code. `applies` is asked before
--- `connect`: nil and the reason when the strategy is of no use here. Unknown fields are refused.
---@class p2pd.Strategy
---@field name string letters, digits, `_`, `.`, `-`, `(`, `)`, at most 64; also the kind of its messages
---@field timeout? number seconds that `connect` or `respond` may take; as long as what is around it unless given
---@field applies? fun(ctx: p2pd.Context): boolean?, string?
---@field connect? fun(ctx: p2pd.Context): p2pd.Pipe?, string?, p2pd.Code?
---@field respond? fun(ctx: p2pd.Context, message: table): p2pd.Pipe?, string?, p2pd.Code?
---@field children? p2pd.Strategy[] what it is made of, for the report; it runs them by `ctx:try`
---@field rebuild? fun(children: p2pd.Strategy[]): p2pd.Strategy the same of other children, for `strategies = { … }`

--- What a strategy works with. All that it opens belongs to it: what `connect` or `respond` does not return is closed
--- when the strategy has returned, failed, run out of time or been cancelled. After that every call gives ECLOSED.
---@class p2pd.Context
---@field peer p2pd.Address `node_id` is proven in each pipe; the rest is what the peer says of itself
---@field own p2pd.Address this node's address
---@field role "connect"|"respond" which end of the strategy this is
local ctx = {}

--- An address of the peer that may be tried.
---@class p2pd.Candidate
---@field ip string link-local IPv6 with the zone of ours
---@field port integer
---@field scope "loopback"|"private"|"link-local"|"external"
---@field near? "same machine"|"same external address"|"on-link" what says that it can be reached
---@field lan boolean whether that says so for sure

--- The peer's addresses that are worth trying from here: the nearest scope first, and within one the best first (RFC
--- 8305, section 4; RFC 6724, section 5, rule 1). Private ones only when the peer is on this machine, behind the same
--- external address, or on-link; loopback only when this node itself listens on loopback alone. Asks nobody.
---@return p2pd.Candidate[] list
---@return string? reason why it is empty
function ctx:candidates() end

---@class p2pd.DialOptions
---@field ip string
---@field port integer 1 to 65535
---@field scope? string for the report: what kind of address it is
---@field timeout? number seconds, 10 unless given; never more than remain
---@field token? string 32 hexadecimal digits; only in `respond`, where the peer must be told it is us
---@field local_ip? string the address of ours to dial from
---@field relayed? boolean it is an address that a relay gave the peer: in `respond` such a one may be dialed, too

--- Connects to an address, and proves both keys. Whoever wants the connection is the TLS client; in `respond` this
--- side is the server, shows the token first, and has its pipe when the peer has committed to it (RFC 8446; `:help
--- pipes`). In `respond` only the addresses of `ctx:candidates` are dialed. Multicast, broadcast and unspecified ones
--- never are: EACCES. Other codes: ETIMEDOUT, ECONNREFUSED and others of the system's, EPEER, ETLS, ELOST (the peer
--- kept another pipe).
---@param options p2pd.DialOptions
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code
function ctx:dial(options) end

--- Makes the node expect one peer that dials it and shows a fresh token, which is to be told to the peer by
--- `ctx:request`. In `connect` only. Fails with ENOBUFS when 64 are expected already.
---@return p2pd.Arrival? arrival
---@return string? message
---@return p2pd.Code? code
function ctx:expect() end

--- A connection that the peer was asked for.
---@class p2pd.Arrival
---@field token string what the peer must show, 32 hexadecimal digits; hidden in reports
local arrival = {}

--- Waits for a connection that shows the token and proves the peer's key. May be called again for another one.
---@param timeout? number seconds; never more than remain
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code
function arrival:wait(timeout) end

--- Expects it no longer. Pipes that came of it stay.
function arrival:close() end

--- Sends the peer a sealed message, once, by every broker of the peer that is up. Fails with ENOTCONN (none is),
--- EMSGSIZE.
---@param fields table what JSON can carry, at most 8 levels deep, 8021 bytes in all; `kind` is the strategy's name
---@return integer? brokers how many took it
---@return string? message
---@return p2pd.Code? code
function ctx:send(fields) end

--- Sends the peer a message and waits for its reply; sends again after twice the time that messages take, and
--- whenever another broker of the peer comes up. Fails with ETIMEDOUT, ENOTCONN (no broker of the peer's), EMSGSIZE.
---@param fields table
---@param timeout? number seconds; never more than remain
---@return table? reply
---@return string? message
---@return p2pd.Code? code
function ctx:request(fields, timeout) end

--- Answers the message that `respond` was given. A repetition of that message gets the same answer by itself.
---@param message table
---@param fields table
---@return integer? brokers
---@return string? message
---@return p2pd.Code? code
function ctx:reply(message, fields) end

--- Waits for what the peer says next in the conversation of this strategy. A conversation begins with the request that
--- `respond` is called with; in it both sides send and request as they like. Each message has `age`, the seconds that it
--- was under way by the clocks of both. Fails with ETIMEDOUT, ENOBUFS.
---@param timeout? number seconds; never more than remain
---@return table? message
---@return string? why
---@return p2pd.Code? code
function ctx:receive(timeout) end

--- How long a message to the peer takes, one way: half of what the last reply took, or the age of the request.
---@return number seconds from 0.001 to 2
function ctx:signal_time() end

--- What our router does to TCP, as `p2pd.nat` found it, and as peers are told.
---@class p2pd.Facts
---@field ip string the external address
---@field nat string as in an address
---@field delta string
---@field value integer of independent and dependent deltas
---@field first? integer external ports: the lowest seen to be used
---@field last? integer
---@field local_ip string
---@field translated boolean
---@field confidence number 0 to 1

--- What our router does; waits while it is still being examined, 2 s at most.
---@param family 4|6
---@return p2pd.Facts? facts
---@return string? message
---@return p2pd.Code? code
function ctx:facts(family) end

--- A local TCP port whose external port is known, and stays what it is.
---@class p2pd.Hold
---@field local_ip string
---@field local_port integer
---@field external_ip string
---@field external_port integer

--- Takes a port from those that the node keeps ready, or makes one: two round trips to a STUN server. It is for routers
--- that map endpoint-independently (RFC 4787, 4.1). Fails with ENOTSUP (no STUN server), ETIMEDOUT.
---@param family 4|6
---@return p2pd.Hold? hold
---@return string? message
---@return p2pd.Code? code
function ctx:hold(family) end

--- Looks at the external ports of new local ports in a row, just now: `{ local_port, external_port }`, in the order of
--- their SYNs; the external port is 0 where no answer came. Two round trips.
---@param family 4|6
---@param options? { count?: integer, local_port?: integer } 2 of them unless given, from any port unless given
---@return table[]? samples
---@return string? message
---@return p2pd.Code? code
function ctx:sample(family, options) end

---@class p2pd.PuncherOptions
---@field ip string where the peer is; in `respond` one of its own addresses
---@field local_ip? string
---@field syns? integer how many SYNs at most, 64 unless given. 2048 a minute may go to one address that proves nothing

--- Opens TCP connections to a peer that does the same at that moment, from a thread of its own: a busy script does not
--- disturb it. `p2pd.PunchPlan` tells what to fire. Fails with EACCES (not an address of the peer's), EAGAIN (too much
--- was sent there).
---@param options p2pd.PuncherOptions
---@return p2pd.Puncher? puncher
---@return string? message
---@return p2pd.Code? code
function ctx:puncher(options) end

---@class p2pd.Puncher
local puncher = {}

--- Listens on a local port, for the peer's address alone.
---@param port integer
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function puncher:listen(port) end

--- A SYN of a burst.
---@class p2pd.Shot
---@field at_ms number after the start
---@field local_port integer 0: any
---@field remote_port integer
---@field ttl? integer so that it opens our router and does not come as far as the peer's
---@field listens? boolean listen on its local port, too

--- Sends a burst. One that is refused is sent again, so often, so long after.
---@param shots p2pd.Shot[]
---@param options? { at?: number, revive?: integer, revive_gap_ms?: number } `at`: a time of `ctx:now()`
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function puncher:fire(shots, options) end

--- Waits for a connection on which the peer has proven its key.
---@param timeout? number seconds; never more than remain
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code
function puncher:pipe(timeout) end

--- What was sent, and what came back: sent, refused, unreachable, open, and the first events.
---@return table
function puncher:seen() end

--- Ends it; the pipes that came of it stay.
function puncher:close() end

---@class p2pd.RelayOptions
---@field permit? string[] addresses that may come
---@field family? 4|6
---@field timeout? number seconds, 5 unless given

--- An address at a TURN server of the settings, the first that gives one (RFC 8656; RFC 6062). Fails with ENOTSUP when
--- the settings name none.
---@param options? p2pd.RelayOptions
---@return p2pd.Relay? relay
---@return string? message
---@return p2pd.Code? code
function ctx:relay(options) end

---@class p2pd.Relay
---@field ip string the address at which the peer is to come
---@field port integer
---@field server string
local relay = {}

--- Lets these addresses come, too.
---@param ... string
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function relay:permit(...) end

--- Waits until the peer has come, and has proven its key. The relay then lives as long as the pipe.
---@param timeout? number seconds, 10 unless given
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code
function relay:pipe(timeout) end

--- Goes from our relay to another address: for networks that let out nothing but TURN.
---@param ip string
---@param port integer
---@param timeout? number seconds, 10 unless given
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code
function relay:dial(ip, port, timeout) end

--- Gives it back.
function relay:close() end

--- Runs another strategy as a part of this one, within its own timeout, and waits for its end. A pipe that it returns
--- belongs to this `ctx`. This is how strategies are made of strategies.
---@param strategy p2pd.Strategy
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code "ESKIPPED" when it does not apply; "ESCRIPT" when it threw
function ctx:try(strategy) end

--- Starts a task that ends with the strategy. An error in it fails the strategy.
---@param f function
---@param ... any its arguments
---@return p2pd.Task
function ctx:spawn(f, ...) end

--- As `p2pd.sleep`.
---@param seconds number zero or more
function ctx:sleep(seconds) end

--- As `p2pd.now`.
---@return number seconds
function ctx:now() end

--- Seconds until this strategy, or one around it, runs out of time; `math.huge` when nothing limits it.
---@return number
function ctx:remaining() end

--- Leaves something for the report: what was predicted, what was seen. Never a secret.
---@param key string
---@param value any
function ctx:note(key, value) end
