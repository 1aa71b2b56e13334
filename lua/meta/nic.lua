---@meta p2pd.nic

--- The machine's network interfaces.
---@class p2pd.nic
local nic = {}

--- An address of an interface.
---@class p2pd.NicAddress
---@field name string the interface, as "eth0"
---@field index integer its number
---@field mtu integer bytes of the largest packet
---@field up boolean whether it runs: it is switched on, and its cable is in
---@field loopback boolean
---@field ip string the address; of IPv6 link-local ones with the interface, as "fe80::1%eth0"
---@field family integer 4 or 6
---@field prefix integer bits of the network
---@field scope p2pd.NicScope where it means something
---@field temporary boolean IPv6, for privacy: replaced in a day or so (RFC 8981)
---@field deprecated boolean not for new connections
---@field tentative boolean not usable yet, or never: somebody else may have it
---@field metric? integer of the best default route of this family by this interface; nil when there is none
---@field gateway? string of that route; nil when it has none, as on a tunnel
---@field default? boolean whether it is the best of its family

---@alias p2pd.NicScope
---| "global" on the Internet
---| "private" IPv4, behind a NAT (RFC 1918)
---| "unique-local" IPv6, within a site (RFC 4193)
---| "shared" behind a carrier's NAT (RFC 6598)
---| "link-local" on this cable
---| "loopback" on this machine

---@class p2pd.NicRoute
---@field family integer 4 or 6
---@field name string the interface
---@field index integer
---@field metric integer the least one is taken
---@field gateway? string nil when there is none, as on a tunnel

--- What has changed since the last one: `link`, `address` and `route` (of default routes) say all, `kind` the first of
--- them that is true.
---@class p2pd.NicEvent
---@field kind "link"|"address"|"route"|"overflow"
---@field link boolean an interface came, went, was switched, or its cable was pulled or put in
---@field address boolean
---@field route boolean
---@field overflow boolean so much happened that some of it was not heard: anything may have changed

--- The addresses of all interfaces, as they are now.
---@return p2pd.NicAddress[]? list
---@return string? message
---@return p2pd.Code? code
function nic.list() end

--- The default routes, IPv4 first, the best of each family first.
---@return p2pd.NicRoute[]? list
---@return string? message
---@return p2pd.Code? code
function nic.routes() end

--- The address that the system would send from toward another one. Nothing is sent. Fails with ENETUNREACH and its
--- like.
---@param ip string
---@return string? source
---@return string? message
---@return p2pd.Code? code
function nic.source(ip) end

--- Watches for changes: `local watcher <close> = assert(nic.watch())`. What changes from now on is told once, also
--- when nobody waits while it does.
---@return p2pd.NicWatcher? watcher
---@return string? message
---@return p2pd.Code? code
function nic.watch() end

---@class p2pd.NicWatcher
local watcher = {}

--- Waits for a change, and 50 ms more, so that what belongs together is one event. What the system says anew without
--- a change is none. Fails with ETIMEDOUT, ECLOSED, EBUSY (another task waits).
---@param timeout? number seconds; without one as long as it takes
---@return p2pd.NicEvent? event
---@return string? message
---@return p2pd.Code? code
function watcher:wait(timeout) end

--- Ends it, and the wait of a task.
function watcher:close() end

return nic
