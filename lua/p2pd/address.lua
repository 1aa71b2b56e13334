-- address: the text that a peer hands out so that others can reach it, as a table and back.
local core = require "p2pd.core"

local M = {}

---@class p2pd.Interface
---@field netiface_index integer place of the card in the operating system's list
---@field if_index integer place in the node's own list; unique in its family
---@field external string IP by which others see it
---@field internal string IP that it has itself
---@field port integer on which the node listens
---@field nat string open, udp-firewall, full-cone, restricted, port-restricted, symmetric or blocked
---@field delta string na, equal, preserving, independent, dependent or random
---@field delta_value integer

---@class p2pd.Address
---@field signal integer[] offsets into the list of brokers, from 0
---@field ipv4 p2pd.Interface[] at most 3
---@field ipv6 p2pd.Interface[] at most 3
---@field node_id string
---@field machine_id string
---@field ours boolean? whether the node ID is a key, by which the peer proves itself (set by parse)

local mt = { __name = "p2pd.address" }

function mt:__tostring()
  local text, message = core.address.format(self)
  return text or ("address (%s)"):format(message)
end

--- Reads an address strictly: a text that breaks a rule is refused, with the field and the reason.
--- `tostring` of the result gives the text again, in its one canonical form.
---@param text string
---@return p2pd.Address? address, string? message, string? code EINVAL
function M.parse(text)
  if type(text) ~= "string" then error(("an address is a string, not a %s"):format(type(text)), 2) end
  local address, message, code = core.address.parse(text)
  if not address then return nil, message, code end
  return setmetatable(address, mt)
end

--- Writes an address. A field with a wrong type throws; one with a value out of range is refused.
---@type fun(address: p2pd.Address): string?, string?, string?
M.format = core.address.format

return M
