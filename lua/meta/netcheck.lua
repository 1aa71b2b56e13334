---@meta p2pd.netcheck
-- `local netcheck, reach = require "p2pd.netcheck", require "p2pd.reach"`. In the REPL:
--
--   result = netcheck.run()
--   result.interfaces[1].ipv4.udp.nat                    -- "port-restricted"
--   for _, hint in ipairs(result.hints) do print(hint.text) end
--   reach.ways({ nat = "symmetric", delta = "random" }, { nat = "restricted" })  -- { "punch", "relay" }

--- Looks at what stands between this machine and the world: what `p2pd-lua netcheck` shows.
---@class p2pd.netcheck
local netcheck = {}

---@class p2pd.NetcheckOptions
---@field settings? p2pd.Settings|string whose servers are asked; those of the user unless given
---@field key? string file of the node's key, with which brokers are joined; the user's own unless given
---@field bind? string look at this address alone
---@field timeout? number seconds that a server gets to answer; 2 unless given
---@field on_progress? fun(progress: p2pd.NetcheckProgress) called when a part begins or ends

---@class p2pd.NetcheckProgress
---@field done integer parts that have ended
---@field total integer
---@field waiting string[] what is waited for: "broker 30.1.0.1", "NAT of 192.168.1.5"

--- What was found. What failed has `ok = false`, a `message` and a `code`. Times are in milliseconds here.
---@class p2pd.Netcheck
---@field ok boolean whether there is a network: an interface is up, and something outside answers
---@field code? p2pd.Code ENETDOWN: no interface is up; ENETUNREACH: nothing outside answers
---@field message? string
---@field interfaces p2pd.NetcheckInterface[] those that lead out come first
---@field brokers p2pd.NetcheckServer[] in the order of the settings, and so the next two
---@field stun p2pd.NetcheckServer[]
---@field turn p2pd.NetcheckServer[]
---@field clock p2pd.NetcheckClock
---@field key? { ok: boolean, message: string, code: p2pd.Code } when the key cannot be used
---@field hints p2pd.NetcheckHint[] what would help, the most important first
---@field strategies string[] the ways to peers that this version has
---@field settings string the file in which servers are, or would be, named
---@field ms integer how long it took

---@class p2pd.NetcheckInterface
---@field name string as "eth0"
---@field index integer
---@field mtu integer
---@field ipv4? p2pd.NetcheckSide
---@field ipv6? p2pd.NetcheckSide
---@field link_local? string its IPv6 link-local address
---@field portmap? p2pd.NetcheckPortmap nil when it has no router, or needs none

--- One address of an interface.
---@class p2pd.NetcheckSide
---@field ok? boolean whether it is known what is in front of it
---@field code? p2pd.Code
---@field message? string
---@field untested? boolean nothing was tried: it leads nowhere, or is one of too many
---@field internal string the address
---@field prefix integer bits of the network
---@field scope p2pd.NicScope
---@field gateway? string the router
---@field default boolean whether the best default route leads out by it
---@field external? string as others see it
---@field udp? p2pd.NatResult without observations
---@field tcp? p2pd.NatResult
---@field hops? string[] IPv4: routers that stand behind the first, as far as they show themselves to ping
---@field front? { kind: "carrier"|"router", address: string? } another NAT in front of the router
---@field pinhole? p2pd.NetcheckPortmap IPv6: whether the router opens its firewall when it is asked

---@class p2pd.NetcheckPortmap
---@field ok boolean whether the router maps ports
---@field code? p2pd.Code
---@field message? string
---@field gateway string the router
---@field method? "nat-pmp"|"upnp"|"pinhole" the first that it speaks
---@field external? string the address that the router says it has
---@field router? string its name, as it says
---@field usable? boolean false: another router is in front of it, so a mapped port leads nowhere
---@field nat_pmp? { external: string?, ms: number }
---@field upnp? { external: string?, router: string?, ms: number }

---@class p2pd.NetcheckServer
---@field host string
---@field port integer
---@field ok boolean
---@field code? p2pd.Code
---@field message? string
---@field skipped? boolean it has addresses only of a family that this machine has not
---@field ip? string the address that answered
---@field rtt_ms? number a round trip; of brokers and relays a third of the time that follows, with TLS a quarter
---@field connect_ms? number of brokers the time to join, of TURN servers that to be given a relay
---@field tls? boolean of brokers
---@field transport? "udp"|"tcp"|"tls" of STUN servers tcp where they were silent by UDP
---@field external? string of STUN servers: where they see us
---@field checked? "relay" of TURN servers, what was tried: whether it gives a TCP relay (RFC 6062)
---@field relay? string of TURN servers: the address that peers would connect to

---@class p2pd.NetcheckClock
---@field ok boolean
---@field code? p2pd.Code
---@field message? string
---@field offset_ms? number by which this machine is ahead
---@field error_ms? number by which that may be wrong
---@field agreeing? integer how many servers agree
---@field servers table[] `{ host =, port =, ok =, rtt_ms =, offset_ms =, agrees =, message =, code = }`

---@class p2pd.NetcheckHint
---@field about string a word for programs: "no-portmap", "carrier", "clock"
---@field text string a sentence with cause and cure

--- Looks at everything once, side by side: in some 2 seconds, whatever is silent, and 5 at most. Fails as
--- `p2pd.settings` does, and with EADDRNOTAVAIL when no interface has the address `bind`.
---@param options? p2pd.NetcheckOptions
---@return p2pd.Netcheck? result
---@return string? message
---@return p2pd.Code? code
function netcheck.run(options) end

--- The same again and again, until the task is cancelled: whenever interfaces, addresses or routes change, and when the
--- external address does, which is looked at every ten seconds. Fails when changes cannot be heard of.
---@param options p2pd.NetcheckOptions
---@param on_check fun(result: p2pd.Netcheck, before: p2pd.Netcheck?) called after each look
---@return nil
---@return string message
---@return p2pd.Code code
function netcheck.watch(options, on_check) end

--- A result as JSON in one line. What is not there is null.
---@param result p2pd.Netcheck
---@return string
function netcheck.json(result) end

--- By which means two computers can meet, by what is known of their routers: the table of `:help nat`.
---@class p2pd.reach
---@field means p2pd.ReachMeans[] all of them, from the quickest to the slowest
---@field kinds p2pd.Side[] the kinds of peers: the seven types, symmetric ones with foreseeable and with random ports
local reach = {}

--- What is known of one of the two: of TCP, as connections are TCP's. A p2pd.NatResult will do.
---@class p2pd.Side
---@field nat string its type: open, udp-firewall, full-cone, restricted, port-restricted, symmetric or blocked
---@field delta? string how it chooses ports; as good as random unless given
---@field mapped_port? integer a port of the router that leads to it
---@field port? integer the one that it listens on
---@field external? string its address as others see it: who has the same is behind the same router
---@field carrier? boolean that address is shared with strangers

---@alias p2pd.ReachMeans
---| "direct" the one who wants the connection dials
---| "reverse" the other one is asked to dial
---| "punch" both dial at the same moment
---| "punch by many tries" and one of them has to guess the other's port
---| "relay" both connect to a server

---@alias p2pd.ReachClass
---| "reachable" open, or with a mapped port
---| "cone" full-cone and restricted
---| "strict" udp-firewall and port-restricted
---| "foreseeable" symmetric, with ports that can be foreseen
---| "random" symmetric, with others
---| "blocked"

--- What a side is to others. Throws when its `nat` is no type.
---@param side p2pd.Side
---@return p2pd.ReachClass
function reach.class(side) end

--- The means by which the first, who calls, and the second can meet, from the quickest to the slowest. A relay is
--- always the last of them.
---@param us p2pd.Side
---@param them p2pd.Side
---@return p2pd.ReachMeans[]
function reach.ways(us, them) end

--- The quickest of them.
---@param us p2pd.Side
---@param them p2pd.Side
---@return p2pd.ReachMeans
function reach.best(us, them) end

return netcheck
