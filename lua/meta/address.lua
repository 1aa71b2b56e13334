---@meta p2pd.address

--- The text that a node hands out so that others can reach it, as a table and back. The text has five sections with
--- `-` between: broker offsets, IPv4 interfaces, IPv6 interfaces, node ID, machine ID.
---@class p2pd.address
local address = {}

--- An address as a table. `tostring` gives its text, in the one canonical form.
---@class p2pd.Address
---@field signal integer[] positions in `settings.mqtt`, from 0; at most 6
---@field ipv4 p2pd.Interface[] at most 3
---@field ipv6 p2pd.Interface[] at most 3
---@field node_id string base58btc of the node's public key; of another implementation any text
---@field machine_id string the same for all nodes of one computer
---@field ours? boolean whether the node ID is a key, by which the peer proves itself; set by `parse`

---@class p2pd.Interface
---@field netiface_index integer place of the card in the operating system's list
---@field if_index integer place in the node's own list; unique in its family
---@field external string the IP by which others see it
---@field internal string the IP that it has itself; of IPv6 the link-local one when there is one
---@field port integer TCP port on which the node listens
---@field nat p2pd.Nat
---@field delta p2pd.Delta
---@field delta_value integer 0 to 65535

--- What a router lets in; 1 to 7 in the text. "port-restricted" is also what is said when nothing is known.
---@alias p2pd.Nat
---| "open" no NAT
---| "udp-firewall" no NAT, but a firewall for UDP
---| "full-cone" whoever sends to a mapping gets in
---| "restricted" from addresses that were contacted
---| "port-restricted" from addresses and ports that were contacted
---| "symmetric" a new mapping for each destination
---| "blocked" nothing

--- How a router chooses external ports; 1 to 6 in the text. "random" is also what is said when nothing is known.
---@alias p2pd.Delta
---| "na" not applicable
---| "equal" external port = local port
---| "preserving" the distance of external ports is that of local ports
---| "independent" each mapping is the last one plus `delta_value`
---| "dependent" the same, when the local port is the last one plus 1
---| "random" none of these

--- Reads an address strictly: a text that breaks a rule is refused with EINVAL, and the message names field and
--- reason.
---@param text string
---@return p2pd.Address? address
---@return string? message
---@return "EINVAL"? code
function address.parse(text) end

--- Writes an address. A field of a wrong type throws; one with a value out of range is refused with EINVAL.
---@param address p2pd.Address
---@return string? text
---@return string? message
---@return "EINVAL"? code
function address.format(address) end
