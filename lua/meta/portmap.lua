---@meta p2pd.portmap
-- `local portmap = require "p2pd.portmap"`. A port of the router that leads to one of this machine's:
--
--   local mapping <close> = assert(portmap.open { internal_port = 4242, name = node:id() })
--   print(mapping.external_ip, mapping.external_port, mapping.method)

--- Port mappings: by NAT-PMP (RFC 6886) or UPnP's Internet gateways, version 1 and 2, whichever the router offers; for
--- an IPv6 address a pinhole in the router's firewall. Routers are asked by a process of its own, with little time and
--- memory, so that none of what they say can harm this one.
---@class p2pd.portmap
local portmap = {}

--- Where to ask.
---@class p2pd.PortmapProbeOptions
---@field gateway? string the router's address; that of the default route unless given
---@field internal_ip? string this machine's address toward it; an IPv6 address asks for pinholes
---@field location? string of the router's UPnP description, from an earlier time: saves the search
---@field methods? ("nat-pmp"|"upnp"|"pinhole")[] only these; all unless given
---@field timeout? number seconds for all of it, 8 unless given

--- What is asked for.
---@class p2pd.PortmapOptions : p2pd.PortmapProbeOptions
---@field internal_port integer
---@field external_port? integer the one that is wanted; the same as `internal_port` unless given
---@field protocol? "tcp"|"udp" tcp unless given
---@field lifetime? integer seconds, 3600 unless given; it is renewed after half of them
---@field name? string whose it is: the mapping of an earlier run with the same name and internal port is taken over
---@field seen_ip? string this network's address as others see it (STUN): another one than the router's is said
---@field verify? fun(external_ip: string, external_port: integer): boolean?, string? whether it works, and why not; nil
---  without a reason when it cannot be known; asked when it was made, and when it has changed
---@field on_change? fun(mapping: p2pd.Mapping) called when its address or port have changed, and when it was lost or
---  made anew

--- What a router offers: nil where it does not speak the protocol, and then a sentence in `failures`.
---@class p2pd.PortmapOffer
---@field gateway string
---@field internal_ip string
---@field nat_pmp? p2pd.PortmapWay
---@field upnp? p2pd.PortmapWay
---@field pinhole? p2pd.PortmapWay of an IPv6 `internal_ip`
---@field failures { nat_pmp: string?, upnp: string?, pinhole: string? }
---@field time number seconds that it took

---@class p2pd.PortmapWay
---@field external_ip? string what the router says that its address is
---@field router? string its name, as it says
---@field location? string of its description, which saves the search the next time
---@field time number seconds until it had answered

--- What the router offers, asked by all methods side by side. Some 0.1 s where it speaks all of them, 2 s where it is
--- silent, 3 s where it is slow. Fails with ENETUNREACH when there is no router.
---@param options? p2pd.PortmapProbeOptions
---@return p2pd.PortmapOffer? offer
---@return string? message
---@return p2pd.Code? code
function portmap.probe(options) end

--- Has a port of the router lead to one of ours, and keeps it so until the mapping is closed: it is renewed when half
--- of its time is over, and made anew when the router has forgotten it. All methods are asked side by side, and the
--- first that answers is taken; when the wanted port is another one's, another is taken. The message of a failure tells
--- of each method. Fails with ENOTSUP (the router offers nothing), ENETDOWN (it has no public address itself), EACCES
--- (it refuses), EADDRINUSE and ENOBUFS (no port is left), EFORMAT and EMSGSIZE (what it says makes no sense),
--- ENETUNREACH (there is no router), and more. Closing it, also by the end of its scope, takes at most 2 s.
---@param options p2pd.PortmapOptions
---@return p2pd.Mapping? mapping
---@return string? message
---@return p2pd.Code? code
function portmap.open(options) end

---@class p2pd.Mapping
---@field external_ip? string what the router says; nil when it does not
---@field external_port integer
---@field internal_ip string
---@field internal_port integer
---@field protocol "tcp"|"udp"
---@field method "nat-pmp"|"upnp"|"pinhole"
---@field lifetime integer seconds that the router has granted; 0: until it is removed
---@field verified? boolean true: `verify` says that it works; false: it does not, `reason` says why; nil: nobody knows
---@field reason? string as that another router is in front of the router
---@field gateway string the router's address
---@field router? string its name, as it says (UPnP)
---@field location? string of its description, to be given to `open` the next time (UPnP)
---@field name string under which the router has it (UPnP)
---@field renewals integer how often it was renewed
---@field lost? string why it is gone; tries to make it anew go on
local mapping = {}

--- Removes it from the router. Fails when the router does not confirm that; it is not renewed any more in any case.
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function mapping:close() end
