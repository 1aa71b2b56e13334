-- reverse: ask the peer to connect to us. It shows the token that travelled in the sealed message.
local dialing = require "p2pd.dialing"
local task = require "p2pd.task"

-- What a refusing peer says is its own; anything that is no code is not taken for one.
local function refusal(reply)
  local code = type(reply.code) == "string" and reply.code:match("^E[A-Z0-9]+$") or "EUNREACHABLE"
  local reason = type(reply.message) == "string" and reply.message or "without a reason"
  return nil, ("%s: the peer cannot connect to this node: %s"):format(code, reason), code
end

---@type p2pd.Strategy
return {
  name = "reverse",
  timeout = 8, -- the signal's way, and what direct has

  applies = function(ctx)
    if #ctx.peer.signal == 0 then return nil, "the peer's address names no broker" end
    if #ctx.own.ipv4 + #ctx.own.ipv6 == 0 then return nil, "this node has no address that could be connected to" end
    return true
  end,

  connect = function(ctx)
    local arrival, message, code = ctx:expect()
    if not arrival then return nil, message, code end
    -- The token says which connection is the answer; a reply comes only when there will be none.
    local outcomes = task.channel(2)
    ctx:spawn(function()
      outcomes:send(table.pack(arrival:wait()))
    end)
    ctx:spawn(function()
      local reply, why, what = ctx:request { token = arrival.token }
      if not reply then
        outcomes:send(table.pack(nil, why, what))
      elseif reply.kind == "refused" then
        outcomes:send(table.pack(refusal(reply)))
      end
    end)
    local outcome = outcomes:recv()
    return table.unpack(outcome, 1, outcome.n)
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
