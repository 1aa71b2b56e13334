---@meta p2pd.nat
-- `local nat = require "p2pd.nat"`. In the REPL, behind a router, with two STUN servers:
--
--   found = nat.check { ip = "192.168.1.5", servers = { { ip = "30.1.0.3", port = 3478 }, { ip = "30.1.0.4" } } }
--   found.nat, found.delta, found.confidence             -- "port-restricted", "equal", 0.98
--   nat.classify(found.observations)                     -- the same again, without a packet

--- Finds out what kind of NAT stands before an address, by asking STUN servers from many ports (RFC 5780, and series of
--- new ports). `:help nat` says what the words mean.
---@class p2pd.nat
local nat = {}

--- A STUN server by its address. Two at least, in different networks, can be told from one that lies.
---@class p2pd.NatServer
---@field ip string
---@field port? integer 3478 unless given

---@class p2pd.NatOptions
---@field ip string our address, which is looked at
---@field servers p2pd.NatServer[] the first four are asked
---@field transport? "udp"|"tcp" of `check`; udp unless given
---@field udp? p2pd.NatResult of `check` with tcp: what was found by UDP before, so that it is not asked again
---@field turn? fun(ip: string, port: integer, local_port: integer): boolean? has a relay connect to that external
--- endpoint (RFC 6062): true when it got in, false when not, nil when it could not be tried
---@field on_progress? fun(part: "mapping"|"filtering"|"delta", found: p2pd.NatResult) called when a part is done, with
--- what is known then
---@field means? table for tests: `socket` and `connect` in place of those of p2pd.stun

---@class p2pd.NatResult
---@field nat string open, udp-firewall, full-cone, restricted, port-restricted, symmetric or blocked
---@field delta string na, equal, preserving, independent, dependent or random
---@field value integer of independent and dependent: from one external port to the next; else 0
---@field range? integer[] the first and the last external port, as far as they show
---@field confidence number 0 to 1, that type, delta and value are right; at most 0.5 for TCP where it depends on who is
--- let in, as that is seen by UDP only, unless `turn` has shown that everybody is
---@field type_confidence number of the type alone
---@field delta_confidence number of delta and value alone
---@field translated boolean the external address is another one than ours
---@field external? string the external address
---@field mapping? string RFC 4787, 4.1: endpoint-independent, address-dependent, address-and-port-dependent
---@field filtering string RFC 4787, 5: the same words
---@field liar? string the address of a server that says what cannot be; nothing of it was believed
---@field observations? p2pd.NatObservations all that was seen

--- A request from one of our ports, in the order in which they went out.
---@class p2pd.NatSeen
---@field local_port integer
---@field server_ip string
---@field server_port integer
---@field external_ip? string as the server sees us; none when no answer came
---@field external_port? integer
---@field refused? boolean a refusal came instead
---@field tries? integer how many requests had no answer; 1 unless given

--- A request to be answered from elsewhere.
---@class p2pd.NatTest
---@field server_ip string
---@field server_port integer
---@field from_ip string whence the answer is to come
---@field from_port integer
---@field answered boolean
---@field tries? integer

---@class p2pd.NatObservations
---@field transport? "udp"|"tcp"
---@field ip string our address
---@field seen p2pd.NatSeen[] the first 256 count
---@field tests? p2pd.NatTest[] for TCP those that were made by UDP; the first 32 count
---@field udp_silent? boolean for TCP: nothing came back by UDP
---@field stranger? boolean for TCP: whether a relay's connection came in, when one was tried

--- Finds out what NAT there is, for one transport. Takes about 0.9 seconds, whatever the router keeps silent about, and
--- 1.4 when there is no answer at all. Fails as the system does when no packet can be sent (EADDRNOTAVAIL,
--- ENETUNREACH, …), and with ECONNREFUSED when no server speaks STUN; silence is no failure, but `blocked`.
---@param options p2pd.NatOptions
---@return p2pd.NatResult? found
---@return string? message
---@return p2pd.Code? code
function nat.check(options) end

--- Does it for both transports at one time. A transport for which it failed is missing.
---@param options p2pd.NatOptions without `transport` and `udp`
---@return { udp: p2pd.NatResult?, tcp: p2pd.NatResult? }? found
---@return string? message
---@return p2pd.Code? code
function nat.survey(options) end

--- Judges observations: the same ones give the same result. No packet is sent.
---@param observations p2pd.NatObservations
---@return p2pd.NatResult found
function nat.classify(observations) end

return nat
