---@meta p2pd.stun
-- `local stun = require "p2pd.stun"`. In the REPL:
--
--   socket = stun.socket()
--   socket:ask("30.1.0.3", 3478)                         -- the address that the server sees
--   socket:ask("30.1.0.3", 3478, { change = "both" })    -- is its other address let in, too?

--- Asks STUN servers (RFC 8489) from which address this machine's packets come to them: behind a router, that is the
--- router's, and a port that leads back here. Servers that have another address and port can be asked to answer from
--- those (RFC 5780), which shows what the router lets in.
---@class p2pd.stun
local stun = {}

---@class p2pd.StunSocketOptions
---@field ip? string the address to send from; unless given any, of IPv4 ("::" is any of IPv6)
---@field port? integer the port to send from; any unless given
---@field device? string the interface to send by, whatever the routes say

--- Opens a UDP socket, on which any number of tasks can ask any number of servers at one time: all of them see the
--- same local port. It keeps the program running only while something is asked. Fails with EADDRINUSE, EADDRNOTAVAIL
--- (no interface has that address), ENODEV (there is no such interface) or EPERM (an old kernel, and not root).
---@param options? p2pd.StunSocketOptions
---@return p2pd.StunSocket? socket
---@return string? message
---@return p2pd.Code? code
function stun.socket(options) end

---@class p2pd.StunConnectOptions
---@field ip string the server's
---@field port integer
---@field local_ip? string
---@field local_port? integer other sockets can be bound to it too, for they share it (SO_REUSEPORT)
---@field device? string
---@field timeout? number seconds for all of it; 3 unless given

--- Connects to a server by TCP, and asks it. The connection stays open, and with it the router's mapping, until it is
--- closed. A SYN that is lost is sent again by the system, after a second: who is in a hurry gives a short timeout, and
--- connects anew. Fails with ETIMEDOUT, ECONNREFUSED, ECONNRESET (the server hung up), EPROTO (it does not speak STUN,
--- or answered with an error) and as `socket` does.
---@param options p2pd.StunConnectOptions
---@return p2pd.StunConnection? connection
---@return string? message
---@return p2pd.Code? code
---@return integer? error the server's error code, when it answered with one
function stun.connect(options) end

---@class p2pd.StunLookupOptions
---@field ip string the server's
---@field port integer
---@field local_ip? string
---@field local_port? integer
---@field device? string
---@field timeout? number seconds; 3 unless given

--- Asks one server once, by a UDP socket that is closed after it. Fails as `socket` and `socket:ask` do.
---@param options p2pd.StunLookupOptions
---@return p2pd.StunAnswer? answer with `local_ip` and `local_port` too
---@return string? message
---@return p2pd.Code? code
---@return integer? error
function stun.lookup(options) end

---@class p2pd.StunExternalOptions
---@field servers p2pd.Server[] asked in this order; an address may be given as `ip` instead of `host`
---@field ip? string the address to send from; as of `socket`, and so the next two
---@field port? integer
---@field device? string
---@field family? 4|6 without `ip`; 4 unless given
---@field socket? p2pd.StunSocket an open one, in place of these four
---@field timeout? number seconds; 3 unless given
---@field on_answer? fun(external: p2pd.StunExternal) called after each answer with what is known then

---@class p2pd.StunExternal
---@field external_ip string what most servers saw
---@field external_port integer
---@field local_ip string
---@field local_port integer
---@field confidence number 0 to 1: how likely that is right, if a server is right four times out of five
---@field confirmed boolean two more servers said it than said anything else
---@field disagreement boolean they saw different addresses
---@field same_port? boolean whether those that saw this address saw the same port too; nil when only one did
---@field answers p2pd.StunAnswer[] each with the server's `host` and `port`
---@field failures table[] `{ host =, port =, message =, code = }` of each server that did not answer

--- Asks several servers by one socket: the first three at once, another one whenever one fails or takes longer than
--- 0.1 s, so that dead ones cost little. Ends when an address is confirmed, or when all have answered or failed. Fails
--- when none answers, as `socket:ask` does.
---@param options p2pd.StunExternalOptions
---@return p2pd.StunExternal? external
---@return string? message
---@return p2pd.Code? code
function stun.external(options) end

---@class p2pd.StunSocket
---@field local_ip string
---@field local_port integer
local socket = {}

---@class p2pd.StunAskOptions
---@field change? "none"|"port"|"address"|"both" what is to be other where the answer comes from
---@field timeout? number seconds; 3 unless given, at most 7.9 with retries
---@field retries? boolean false: the request is sent once; else again after 0.1, 0.3, 0.7, 1.5 s and so on

---@class p2pd.StunAnswer
---@field external_ip string where the server saw the request come from
---@field external_port integer
---@field from_ip string who answered
---@field from_port integer
---@field other_ip? string from where the server can answer else, if it has said so
---@field other_port? integer
---@field rtt number seconds from the last request to the answer: exact when `requests` is 1
---@field requests integer how many were sent

--- Asks a server. Counts only what comes with the request's secret id, and from where it was asked to come from: the
--- server itself, or with `change` the other address or port that it announced on this socket (before it has announced
--- any, any that is other). Fails with ETIMEDOUT; ECONNREFUSED and its like when ICMP says that nobody is there; EPROTO
--- when the server answered with an error or without an address; EPERM when a firewall of this machine forbids it;
--- ENETUNREACH; EAFNOSUPPORT when the socket is of the other family; ENOBUFS when 1,024 questions are open.
---@param ip string
---@param port integer
---@param options? p2pd.StunAskOptions
---@return p2pd.StunAnswer? answer
---@return string? message
---@return p2pd.Code? code
---@return integer? error the server's error code, when it answered with one: 420 does not know `change`
function socket:ask(ip, port, options) end

--- What came to the socket and was no answer: `garbage` (no STUN), `strays` (no open question has that id: copies,
--- late ones), `foreign` (from elsewhere), `unreachable` (ICMP errors).
---@return { garbage: integer, strays: integer, foreign: integer, unreachable: integer }? stats
---@return string? message
---@return p2pd.Code? code
function socket:stats() end

--- Closes it. What is asked then fails with ECLOSED.
function socket:close() end

---@class p2pd.StunConnection: p2pd.StunAnswer
---@field local_ip string
---@field local_port integer
local connection = {}

--- Asks once more, so that the mapping does not grow old. Fails as `stun.connect` does, and with EBUSY while another
--- task asks. After a failure other than ETIMEDOUT and an error of the server's the connection is of no use any more.
---@param timeout? number seconds; 3 unless given
---@return p2pd.StunAnswer? answer
---@return string? message
---@return p2pd.Code? code
---@return integer? error
function connection:ask(timeout) end

--- Waits until it is of no use any more (ECONNRESET when the server has closed it, and the like); ETIMEDOUT tells that
--- it still is when the time is over. Fails with EBUSY while another task asks or waits.
---@param timeout? number seconds; without one it waits as long as that takes
---@return nil
---@return string message
---@return p2pd.Code code
function connection:wait_down(timeout) end

--- Closes it. What is asked then fails with ECLOSED.
function connection:close() end

return stun
