---@meta p2pd.turn
-- `local turn = require "p2pd.turn"`. In the REPL:
--
--   server = { host = "30.1.0.3", port = 3478, user = "lab", password = "lab" }
--   relay = turn.allocate { server = server, permit = { "30.3.1.10" } }
--   relay.ip, relay.port                                 -- where a peer connects to
--   socket, ip, port = relay:wait(10)                    -- when it has

--- Relays at TURN servers (RFC 8656) that pass TCP connections on (RFC 6062): a peer connects to an address of the
--- server's, and each connection comes here by one of our own to the server. That is spoken to by TCP, or by TLS, which
--- gets out of networks that let little else out. Such a connection ends as a whole: relays know no half-closed ones,
--- and may throw away what was not delivered when one side ends it.
---@class p2pd.turn
local turn = {}

---@class p2pd.TurnAllocateOptions
---@field server p2pd.TurnServer its transport "udp" counts as "tcp" here: datagrams are not relayed
---@field permit? string[] the addresses that may connect, 32 at most; more can be let in later. Those that cannot come
---  to this relay (of the other family; private ones, where the server is not) are passed over
---@field ip? string the address to connect from
---@field family? 4|6 of the relay's address; 4 unless given
---@field timeout? number seconds; 5 unless given

--- Asks a server for a relay: that takes three round trips, and two more by TLS. It ends when it is closed, or is lost
--- with the connection to the server; until then it is renewed. Fails with EACCES (user and password), EPERM (the user
--- may not, or may not connect to whom it permits), ENOTSUP (the server relays no TCP), EAFNOSUPPORT (it has no address
--- of that family), EBUSY (the user has too many), ENOBUFS (the server has no more), EADDRNOTAVAIL (peers cannot reach
--- what it gives), ELOOP (it sends us on to another one, which is followed once, and only to where it may lead), EPROTO
--- (it speaks no TURN), EFORGED (it does not know the password), ETLS, ECONNREFUSED, ECONNRESET, ETIMEDOUT and their
--- like.
---@param options p2pd.TurnAllocateOptions
---@return p2pd.TurnAllocation? allocation
---@return string? message
---@return p2pd.Code? code
---@return integer? error the server's error code, when it answered with one
function turn.allocate(options) end

---@class p2pd.TurnRaceOptions
---@field servers p2pd.TurnServer[] asked in this order
---@field permit? string[]
---@field ip? string
---@field family? 4|6
---@field timeout? number seconds for each; 5 unless given

--- Asks several servers: one more whenever one fails or takes longer than 0.25 s. The first relay counts, the others
--- are given back. Fails as the first of them does that had an answer, or any, and with ENOTSUP when there is none.
---@param options p2pd.TurnRaceOptions
---@return p2pd.TurnAllocation? allocation
---@return string? message
---@return p2pd.Code? code
---@return integer? error
function turn.race(options) end

--- Whether a stranger gets through to an external address and port of ours by TCP: has a relay connect there. False
--- when it did not within the time, or was refused. Fails as `allocate` does where nothing can be said.
---@param server p2pd.TurnServer
---@param ip string
---@param port integer
---@param timeout? number seconds for the connection; 3 unless given
---@return boolean? through
---@return string? message
---@return p2pd.Code? code
function turn.probe(server, ip, port, timeout) end

---@class p2pd.TurnAllocation
---@field ip string where peers connect to
---@field port integer
---@field server string "host:port", as it was given
---@field server_ip string the one that it is at, after a redirection
---@field server_port integer
---@field external_ip string from where the server sees us
---@field external_port integer
---@field lifetime integer seconds, after which the server would end it if it were not renewed
local allocation = {}

--- Lets connections from these addresses in, from any port, too. Fails with ENOBUFS beyond 32 in all, EAFNOSUPPORT
--- (an address of the other family), EPERM, ETIMEDOUT after 5 s, and as the relay is lost.
---@param ... string
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
---@return integer? error
function allocation:permit(...) end

--- Waits for the next peer that has connected. What it has sent already is not lost. Up to 8 wait here to be taken;
--- more are turned away. Fails with ETIMEDOUT, and as the relay is lost.
---@param timeout? number seconds; none unless given
---@return userdata? socket which becomes a pipe, or is closed; has `remote`, `remote_ip` and `remote_port`
---@return string ip_or_message the peer's, as the server sees it
---@return integer|p2pd.Code port_or_code
function allocation:wait(timeout) end

--- Connects from the relay to an address that is permitted, as to another relay. Fails with EHOSTUNREACH (it was
--- refused, or did not answer), EALREADY (that peer is connected already), EPERM, ETIMEDOUT, and as the relay is lost.
---@param ip string
---@param port integer
---@param timeout? number seconds; 5 unless given
---@return userdata? socket
---@return string ip_or_message
---@return integer|p2pd.Code port_or_code
---@return integer? error
function allocation:connect(ip, port, timeout) end

--- Nil while it lives; else why it is lost.
---@return string? message
---@return p2pd.Code? code
function allocation:failed() end

--- What came and did not count: `strays` (messages that answer nothing), `refused` (peers that were too many, or not
--- permitted), `failed` (peers lost on the way here).
---@return { strays: integer, refused: integer, failed: integer }? stats
---@return string? message
---@return p2pd.Code? code
function allocation:stats() end

--- Gives it back. The server ends all connections that go through it: it has to live as long as they do.
function allocation:close() end

return turn
