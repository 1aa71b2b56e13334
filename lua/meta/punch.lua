---@meta p2pd.punch
-- `local punch = require "p2pd.punch"`. In the REPL:
--
--   punch.tactic({ nat = "port-restricted" }, { nat = "symmetric", delta = "random" })    -- "birthday"
--   kind = { nat = "symmetric", delta = "independent", value = 7, samples = { { 4000, 2500 } }, count = 3 }
--   ports = punch.predict(kind)
--   ports.locals, ports.ports                            -- { 4001, 4002, 4003 }, { 2507, 2514, 2521 }

--- What is fired at whom and when, so that two routers open for each other: `:help punching`. Nothing here sends
--- anything: `ctx:facts`, `ctx:hold` and `ctx:sample` find out what is put in, and `ctx:puncher` fires what comes out.
--- All of it is TCP. What is wrong on our side throws; what a peer says and cannot be gives EINVAL.
---@class p2pd.punch
local punch = {}

--- What a router does with ports. `first` and `last` are its external ports, 1024 to 65535 unless given.
---@class p2pd.PunchKind
---@field nat? string a type as in `:help nat`; port-restricted unless given
---@field delta? string random unless given
---@field value? integer of independent and dependent: from one external port to the next
---@field first? integer
---@field last? integer

--- One of the two sides. It may hold more, such as `ip`: `ctx:facts` gives most of it.
---@class p2pd.PunchSide : p2pd.PunchKind
---@field ports? integer[] external ports: that of its hold, or those that are foreseen; 16 at most
---@field locals? integer[] of our own side: the local ports of these
---@field exact? boolean the ports are those that its SYNs are known to have

---@alias p2pd.PunchTactic
---| "meet" both ports are known: one SYN each, from port to port
---| "window" one is known, the others follow each other: a run of SYNs against some at ports that were foreseen
---| "cross" both follow each other: a run each, at one port of the other's
---| "call" one is known and lets in whom it has sent to: it listens, the other one connects
---| "birthday" one is known, the other one is random: many sockets against many ports
---| "none" nothing can be done

--- What each side has to find out for a tactic.
---@class p2pd.PunchNeeds
---@field own_hold boolean a hold (`ctx:hold`)
---@field own_samples integer how many samples (`ctx:sample`)
---@field own_ports integer how many ports are to be foreseen from them
---@field peer_hold boolean
---@field peer_samples integer
---@field peer_ports integer

--- Which tactic fits two routers. It follows from types and deltas alone, so both sides come to the same one. Fails
--- with EINVAL when what the peer says cannot be.
---@param own p2pd.PunchSide
---@param peer p2pd.PunchSide
---@return p2pd.PunchTactic? tactic
---@return p2pd.PunchNeeds|string needs_or_message
---@return string? reason_or_code of "none" a sentence
function punch.tactic(own, peer) end

---@class p2pd.PunchPlanOptions
---@field own p2pd.PunchSide
---@field peer p2pd.PunchSide
---@field role "connect"|"respond" as `ctx.role`
---@field try? integer 1 unless given; further tries do things otherwise
---@field budget? { sockets: integer?, sprays: integer? } of a birthday at most: 256 and 1024 unless given
---@field ttl? integer of SYNs that are to open our router and to get no further; 2 unless given
---@field rtt_ms? number a round trip between the two; 100 unless given
---@field seed? integer of the ports that are tried at random

--- What one side fires, and until when to wait.
---@class p2pd.PunchPlan
---@field tactic p2pd.PunchTactic
---@field shots p2pd.Shot[] for `puncher:fire`
---@field listen integer[] local ports for `puncher:listen`
---@field revive { times: integer, gap_ms: integer } how often a SYN that is refused is sent again, how long after
---@field wait_ms integer after the start: what has not come by then does not come any more

--- The burst of our side. Fails with EUNREACHABLE (nothing can be done, or a port is missing that we need), EINVAL
--- (what the peer says cannot be, or it names no port).
---@param options p2pd.PunchPlanOptions
---@return p2pd.PunchPlan? plan
---@return string? message
---@return p2pd.Code? code
function punch.plan(options) end

--- A local port, and the external one that it has or will have.
---@class p2pd.PunchPort
---@field local_port integer
---@field external_port integer 0 where it is not known

--- Samples can be written `{ local_port, external_port }`, too; the external one is 0 where no answer came.
---@class p2pd.PunchPredictOptions : p2pd.PunchKind
---@field samples p2pd.PunchPort[] what was just seen, in the order in which the SYNs left; 64 at most
---@field count? integer how many ports are wanted, 64 at most; 1 unless given
---@field taken? integer[] local ports that cannot be had

--- The external ports that new local ports will get next. `locals` and `ports` of the list are the local and the
--- external ones alone. There may be fewer than were wanted, but at least one. Fails with EUNREACHABLE and the reason.
---@param options p2pd.PunchPredictOptions
---@return p2pd.PunchPort[]? ports
---@return string? message
---@return p2pd.Code? code
function punch.predict(options) end

---@class p2pd.PunchWantedOptions : p2pd.PunchKind
---@field samples p2pd.PunchPort[]
---@field taken? integer[]
---@field port integer the external port

--- Which local port gets this external port, where the one follows from the other. Fails with EUNREACHABLE.
---@param options p2pd.PunchWantedOptions
---@return p2pd.PunchPort? port
---@return string? message
---@return p2pd.Code? code
function punch.wanted(options) end

---@class p2pd.PunchBetweenOptions : p2pd.PunchKind
---@field list p2pd.PunchPort[] one burst in the order in which its SYNs left: samples, and shots between them

--- Fills in the external ports of shots that lie between two samples, as far as there is no doubt.
---@param options p2pd.PunchBetweenOptions
---@return p2pd.PunchPort[] list with `locals` and `ports`
---@return integer unknown how many are still not known
function punch.between(options) end

--- What a puncher has done and seen: what `puncher:seen()` tells. Numbers count from its opening on; it can be asked
--- after its end, too. What the system itself repeats, a second after a SYN without an answer, is not counted.
---@class p2pd.PunchSeen
---@field sent integer SYNs
---@field revived integer of these, how many were sent anew because the one before was refused
---@field withheld integer how many would have been, but for the limit of SYNs
---@field refused integer answered by RST, or by the ICMP error that says the same
---@field unreachable integer ended by another ICMP error; a listener has taken over their ports then
---@field open integer connections: `connected` and `accepted` ones
---@field connected integer
---@field accepted integer by listeners
---@field self integer connections to ourselves, closed: the other one is behind the same address and port
---@field stranger integer connections from other addresses than the peer's, closed
---@field crowded integer connections beyond the 32 that may wait, closed
---@field alive integer shots that may yet connect, sent or not
---@field listening integer listeners
---@field failed table<p2pd.Code, integer> what ended shots, and how many
---@field first_ms table<p2pd.PunchWhat, number> when each thing happened first, in milliseconds like those of events
---@field begun number when the first burst was to begin, a time of `p2pd.now()`: milliseconds count from here
---@field events p2pd.PunchEvent[] in their order: the first 256 SYNs, 64 connections and 192 other events
---@field unlisted integer events beyond these

---@alias p2pd.PunchWhat
---| "sent" a SYN
---| "refused" it was answered by RST, or by the ICMP error that says the same
---| "icmp" another ICMP error came for it, as that its TTL had run out
---| "failed" the system did not send it, or gave up
---| "connected" a connection, by a SYN of ours
---| "accepted" a connection, by a listener of ours
---| "self" a connection to ourselves
---| "stranger" a connection from another address
---| "crowded" a connection too many

---@class p2pd.PunchEvent
---@field ms number
---@field what p2pd.PunchWhat
---@field local_port integer
---@field remote_port integer
---@field code? p2pd.Code of what was refused, ended or failed

return punch
