-- lan-only: connects to peers on this machine or in this network, and sends nothing to anybody else.
local p2pd = require "p2pd"

local function in_this_network(ctx)
  local found = {}
  for _, candidate in ipairs((ctx:candidates())) do
    -- The router's own outside is not in the network, though both are behind it.
    local outside = candidate.scope == "external" and candidate.near == "same external address"
    if candidate.lan and not outside then found[#found + 1] = candidate end
  end
  return found
end

---@type p2pd.Strategy
return {
  name = "lan-only",
  timeout = 3,

  applies = function(ctx)
    if #in_this_network(ctx) > 0 then return true end
    return nil, "the peer is in another network"
  end,

  connect = function(ctx)
    local list = in_this_network(ctx)
    local results = p2pd.channel(#list)
    for _, candidate in ipairs(list) do
      ctx:spawn(function()
        results:send { ctx:dial { ip = candidate.ip, port = candidate.port, scope = candidate.scope } }
      end)
    end
    local message, code
    for _ = 1, #list do
      local pipe
      pipe, message, code = table.unpack(results:recv(), 1, 3)
      if pipe then return pipe end -- the other tasks and pipes end with this
    end
    return nil, message, code
  end,
}
