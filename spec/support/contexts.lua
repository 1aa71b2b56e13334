-- contexts: what a strategy works with, without a network: only the means that a test gives.
local context = require "p2pd.context"
local report = require "p2pd.report"

local M = {}

local nothing = function() return nil, "ENOTSUP: not here", "ENOTSUP" end
local no_means = {
  dial = nothing, send = nothing, request = nothing, reply = nothing,
  prefixes = function() return {} end, loopback_only = function() return true end,
  expect = function() return { wait = nothing, close = function() end } end,
  converse = function() return { receive = nothing, close = function() end } end,
  puncher = function() return { close = function() end } end,
  relay = function() return { close = function() end } end,
}

--- A context for a peer at this address.
---@param role "connect"|"respond"
---@param means? table
---@param ip? string
function M.new(role, means, ip)
  ip = ip or "30.0.2.7"
  local entry = { external = ip, internal = ip, port = 1, nat = "open", delta = "na" }
  local address = { signal = { 0 }, ipv4 = { entry }, ipv6 = {}, node_id = "peer", machine_id = "machine" }
  local own = { signal = {}, ipv4 = {}, ipv6 = {}, node_id = "own", machine_id = "another" }
  return context.new {
    peer = address, own = own, role = role, report = report.new(),
    means = setmetatable(means or {}, { __index = no_means }),
  }
end

return M
