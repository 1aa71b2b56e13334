-- reverse: ask the peer to connect to us. It shows the token that travelled in the sealed message.
local asking = require "p2pd.asking"
local candidates = require "p2pd.candidates"
local dialing = require "p2pd.dialing"

---@type p2pd.Strategy
return {
  name = "reverse",
  timeout = 8, -- the signal's way, and what direct has

  applies = function(ctx)
    if #ctx.peer.signal == 0 then return nil, "the peer's address names no broker" end
    if #ctx.own.ipv4 + #ctx.own.ipv6 == 0 then return nil, "this node has no address that could be connected to" end
    if candidates.unreachable(ctx.own, (ctx:candidates())) then
      return nil, "this node's router lets nobody in uninvited"
    elseif candidates.is_shut_in(ctx.peer, candidates.entries(ctx.own)) then
      return nil, "the peer's network lets nothing out to this node's port"
    end
    return true
  end,

  connect = function(ctx)
    local arrival, message, code = ctx:expect()
    if not arrival then return nil, message, code end
    -- The token says which connection is the answer; a reply comes only when there will be none.
    return asking.come(ctx, function() return arrival:wait() end, { token = arrival.token },
      "the peer cannot connect to this node")
  end,

  respond = function(ctx, message)
    local token = message.token
    if type(token) ~= "string" or #token ~= 32 or token:find("%X") then
      return nil, "EINVAL: the request has no token", "EINVAL"
    end
    local list, reason = ctx:candidates()
    if #list == 0 then return nil, "EADDRNOTAVAIL: " .. reason, "EADDRNOTAVAIL" end
    return dialing.first(ctx, list, token)
  end,
}
