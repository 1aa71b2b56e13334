-- direct: connect straight to the peer's addresses.
local dialing = require "p2pd.dialing"

---@type p2pd.Strategy
return {
  name = "direct",
  timeout = 5, -- a lost SYN is sent again after 1 s, then after 2 s more (RFC 6298, section 2)

  applies = function(ctx)
    local list, reason = ctx:candidates()
    return #list > 0, reason
  end,

  connect = function(ctx)
    return dialing.first(ctx, (ctx:candidates()))
  end,
}
