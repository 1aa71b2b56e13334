---@meta p2pd.strategy

--- One way to the peer, with its two ends: a table that a Lua file returns. `:help strategies` tells how to write
--- one.
---
--- It has `connect` (the side that wants the connection), or `respond` (the side that is asked, by a message whose
--- kind is `name`), or both. Each returns a pipe that `ctx` opened, or nil, message, code. `applies` is asked before
--- `connect`: nil and the reason when the strategy is of no use here. Unknown fields are refused.
---@class p2pd.Strategy
---@field name string letters, digits, `_`, `.`, `:`, `-`, `+`, `(`, `)`, at most 64; also the kind of its messages
---@field timeout? number seconds that `connect` or `respond` may take; as long as what is around it unless given
---@field applies? fun(ctx: p2pd.Context): boolean?, string?
---@field connect? fun(ctx: p2pd.Context): p2pd.Pipe?, string?, p2pd.Code?
---@field respond? fun(ctx: p2pd.Context, message: table): p2pd.Pipe?, string?, p2pd.Code?
---@field children? p2pd.Strategy[] what it is made of, for the report; it runs them by `ctx:try`
---@field rebuild? fun(children: p2pd.Strategy[]): p2pd.Strategy the same of other children, for `strategies = { … }`
---@field budget? { syns?: integer, tries?: integer } bounds of all that is in it, as `p2pd.pipeline.budget` has them
---@field prefer? fun(ctx: p2pd.Context, strategy: p2pd.Strategy): boolean? what in it comes first, see `ctx:order`

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
---@field relayed? boolean it leads to a relay of the peer's: in `respond` such an address may be dialed, too, and the
---  pipe ends as relays want it

--- Connects to an address, and proves both keys. Whoever wants the connection is the TLS client; in `respond` this
--- side is the server, shows the token first, and has its pipe when the peer has committed to it (RFC 8446; `:help
--- pipes`). In `respond` only the addresses of `ctx:candidates` are dialed, and with `relayed` those that the peer may
--- have from a relay: not private ones of other networks, no port below 1024. Multicast, broadcast and unspecified ones
--- never are: EACCES. Other codes: EAGAIN (in `respond`, dialed in vain too often), ETIMEDOUT, ECONNREFUSED and others
--- of the system's, EPEER, ETLS, ELOST (the peer kept another pipe).
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
--- whenever another broker of the peer comes up. Fails with ETIMEDOUT, ENOTCONN (no broker of the peer's), EMSGSIZE,
--- and with ENOTSUP when the peer has nothing that answers: a strategy that fails with that is passed over.
---@param fields table
---@param timeout? number seconds; never more than remain
---@return table? reply
---@return string? message
---@return p2pd.Code? code
function ctx:request(fields, timeout) end

--- Answers the message that `respond` was given, or one of the peer's from `receive`. A repetition of that message gets
--- the same answer by itself.
---@param message table
---@param fields table
---@return integer? brokers
---@return string? message
---@return p2pd.Code? code
function ctx:reply(message, fields) end

--- Waits for what the peer says next in the conversation of this strategy. A conversation begins with the request that
--- `respond` is called with; in it both sides send and request as they like, and `reply` to each other's requests.
--- What comes waits here, 8 messages at most, from the first `receive`, `send` or `request` of this side on. Each
--- message has `age`, the seconds that it was under way by the clocks of both. Fails with ETIMEDOUT, ENOBUFS (128
--- conversations are held already), EEXIST.
---@param timeout? number seconds; never more than remain
---@return table? message
---@return string? why
---@return p2pd.Code? code
function ctx:receive(timeout) end

--- How long a message to the peer takes, one way: half of what the last reply took, or the age of the request.
---@return number seconds from 0.001 to 2
function ctx:signal_time() end

--- What the two sides can agree on as the time.
---@return number seconds since 1970, corrected by time servers where the node asks some
function ctx:clock() end

--- What our router does to TCP, as `p2pd.nat` found it, and as peers are told.
---@class p2pd.Facts
---@field ip string the external address
---@field nat string a type as in `:help nat`
---@field delta string
---@field value integer of independent and dependent deltas
---@field first integer the lowest external port, as far as it shows
---@field last integer
---@field local_ip string our address
---@field translated boolean whether the external one is another one
---@field confidence number 0 to 1; 0: it was not examined, and is what is to be assumed then

--- What our router does, of the interface that leads out; waits while it is still being examined, 2 s at most. Fails
--- with ENETUNREACH when no interface has an address of that family that leads out.
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
---@field translated boolean
---@field close fun(self: p2pd.Hold) gives the port back; so does the end of the strategy

--- Takes a port from those that the node keeps ready, or makes one: two round trips to a STUN server. It is for routers
--- that map endpoint-independently (RFC 4787, 4.1). Fails with ENOTSUP (no STUN server), ETIMEDOUT, ENETUNREACH, EAGAIN
--- (a router that keeps ports gives none its own number just now), EPROTO (what servers see can be nobody's address).
---@param family 4|6
---@return p2pd.Hold? hold
---@return string? message
---@return p2pd.Code? code
function ctx:hold(family) end

--- What was seen of new local ports, in the order of their SYNs; the external port is 0 where no answer came.
---@class p2pd.Samples
---@field [integer] { local_port: integer, external_port: integer, external_ip: string?, server_ip: string }
---@field close fun(self: p2pd.Samples) ends its connections, and lets others look; so does the end of the strategy

--- Looks which external ports new local ports in a row get, just now: connects from each to a STUN server. Two round
--- trips. `p2pd.punch.predict` takes what is returned. Until it is closed, for 10 seconds at most, our router is not
--- examined, and for 0.4 seconds nobody else of this node looks from any port: each would break the other's prediction.
--- Fails with ENOTSUP (no STUN server), ETIMEDOUT, ENETUNREACH.
---@param family 4|6
---@param options? { count?: integer, local_port?: integer } 2 unless given, 16 at most; any port unless given
---@return p2pd.Samples? samples
---@return string? message
---@return p2pd.Code? code
function ctx:sample(family, options) end

---@class p2pd.PuncherOptions
---@field ip string where the peer is: one of its own addresses; in `connect` another one of the Internet's, too
---@field local_ip? string the address of ours to use
---@field syns? integer how many SYNs at most, 64 unless given. 2048 a minute may go to one address that proves nothing
---@field name? string what the report and its timeline call the burst; the address unless given

--- Opens TCP connections to a peer that does the same at that moment, from a thread of its own: a busy script does not
--- disturb it. `p2pd.punch.plan` tells what to fire. Of bursts of more than 200 SYNs a node sends one at a time: others
--- wait. Fails with EACCES (not an address of the peer's), EINVAL (no address), EAGAIN (too much was sent there),
--- ENETUNREACH and others of the system's, EBUDGET (the budget around is spent).
---@param options p2pd.PuncherOptions
---@return p2pd.Puncher? puncher
---@return string? message
---@return p2pd.Code? code
function ctx:puncher(options) end

---@class p2pd.Puncher
local puncher = {}

--- Listens on a local port, for the peer's address alone. Fails with EADDRINUSE, EMFILE and others of the system's.
---@param port integer 0: any
---@return integer? port
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

--- Sends a burst. A SYN that is refused is sent again, `revive` times, `revive_gap_ms` after the one before at the
--- soonest. Fails with ENOBUFS (more than `syns` allow), EMFILE (the system allows no more open files).
---@param shots p2pd.Shot[]
---@param options? { at?: number, revive?: integer, revive_gap_ms?: number } `at`: a time of `ctx:now()`
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function puncher:fire(shots, options) end

--- Waits for a connection on which the peer has proven its key; a stranger's does not hold up the peer's. Fails with
--- ETIMEDOUT, ECANCELED (nothing is under way any more), EPEER, ETLS, ELOST, and as what was sent was answered.
---@param timeout? number seconds; never more than remain
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code
function puncher:pipe(timeout) end

--- What was sent, and what came back.
---@return p2pd.PunchSeen
function puncher:seen() end

--- Ends it; the pipes that came of it stay.
function puncher:close() end

---@class p2pd.RelayOptions
---@field permit? string[] the addresses that may come, 32 at most; those that cannot come to this relay are passed over
---@field family? 4|6 of the relay's address; 4 unless given
---@field timeout? number seconds, 5 unless given

--- An address at a TURN server of the settings, the first that gives one (RFC 8656; RFC 6062): three round trips. Fails
--- with ENOTSUP when the settings name none, and otherwise as `turn.allocate` does.
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

--- Whether the server has ended it, or cannot be reached any more.
---@return boolean
function relay:is_lost() end

--- Gives it back.
function relay:close() end

--- Runs another strategy as a part of this one, within its own timeout, and waits for its end. A pipe that it returns
--- belongs to this `ctx`. This is how strategies are made of strategies.
---@param what p2pd.Strategy|fun(ctx: p2pd.Context): p2pd.Pipe?, string?, p2pd.Code?
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code "ESKIPPED" when it does not apply; "ESCRIPT" when it threw
function ctx:try(what) end

--- The strategies in the order in which they are to be tried: those that a `prefer` around this one wants come first.
---@param list p2pd.Strategy[]
---@return p2pd.Strategy[] ordered
function ctx:order(list) end

--- What is left of the budgets around this strategy, the least of each; `math.huge` of what nothing limits.
---@return { syns: number, tries: number, seconds: number }
function ctx:budget() end

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
