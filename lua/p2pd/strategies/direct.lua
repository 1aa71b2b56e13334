-- direct: connect straight to the peer's addresses.
local candidates = require "p2pd.candidates"
local dialing = require "p2pd.dialing"

---@type p2pd.Strategy
return {
  name = "direct",
  timeout = 5, -- a lost SYN is sent again after 1 s, then after 2 s more (RFC 6298, section 2)

  applies = function(ctx)
    local list, reason = ctx:candidates()
    if #list > 0 and candidates.unreachable(ctx.peer, list) then
      return nil, "the peer's router lets nobody in uninvited"
    elseif #list > 0 and candidates.is_shut_in(ctx.own, list) then
      return nil, "this network lets nothing out to the peer's port"
    end
    return #list > 0, reason
  end,

  connect = function(ctx)
    return dialing.first(ctx, (ctx:candidates()))
  end,
}
