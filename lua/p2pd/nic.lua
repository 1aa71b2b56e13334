-- nic: the machine's network interfaces: what each is, what is behind it, and news of them.
local core = require "p2pd.core"

local M = {}

local UNIQUE_LOCAL = "^f[cd]" -- fc00::/7 (RFC 4193)

-- Where an address means something.
local function scope_of(entry)
  local kind = core.address.ip(entry.ip).kind
  return kind == "private" and entry.family == 6 and entry.ip:find(UNIQUE_LOCAL) and "unique-local" or kind
end

--- The default routes: the best of each family comes first.
M.routes = core.nic.routes

--- An entry for each address of each interface.
function M.list()
  local list, message, code = core.nic.list()
  if not list then return nil, message, code end
  local routes, first = {}, {}
  for _, route in ipairs(core.nic.routes() or {}) do
    local key = route.family .. " " .. route.index
    routes[key] = routes[key] or route
    first[route.family] = first[route.family] or route
  end
  for _, entry in ipairs(list) do
    entry.scope = scope_of(entry)
    local route = routes[entry.family .. " " .. entry.index]
    if route then
      entry.gateway, entry.metric = route.gateway, route.metric
      entry.default = route == first[entry.family]
    end
  end
  return list
end

--- The address that the system would send from.
M.source = core.nic.source

--- Tells when interfaces, addresses or default routes change.
M.watch = core.nic.watch

return M
