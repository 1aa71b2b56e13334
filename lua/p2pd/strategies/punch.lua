-- punch: both sides open their routers for each other at the same moment (TCP's simultaneous open, RFC 9293, 3.5),
-- from ports that the other side can know: what they say to each other are mappings, held, or foreseen from fresh
-- samples. A try that did not come through is followed by another one, with new ports and another tactic.
local asking = require "p2pd.asking"
local punching = require "p2pd.punching"

local TRIES = 12
local PAUSE = 0.2 -- seconds at most, before a try that follows one which took other ports than were foreseen

---@type p2pd.Strategy
return {
  name = "punch",
  timeout = 8,

  applies = function(ctx)
    if #ctx.peer.signal == 0 then return nil, "the peer's address names no broker" end
    return punching.promising(ctx)
  end,

  connect = function(ctx)
    local punch <close>, message, code = punching.new(ctx)
    if not punch then return nil, message, code end
    for try = 1, TRIES do
      punch:prepare(try)
      local reply
      reply, message, code = ctx:request { try = try, routes = punch:offer() }
      if not reply then return nil, message, code end
      if reply.kind == "refused" then return asking.refusal(reply, "the peer does not punch") end
      message, code = punch:meet(reply)
      if message then return nil, message, code end
      local pipe, missed = punch:pipe(punch:patience(try))
      if pipe then return pipe end
      if not punch:is_alive() or ctx:remaining() < punch:patience(try + 1) then break end
      -- Twice: perhaps another punch behind the same router is in the way.
      if missed and try > 1 then ctx:sleep(math.random() * PAUSE) end
    end
    return punch:failure()
  end,

  respond = function(ctx, message)
    local punch <close>, why, code = punching.new(ctx, message)
    if not punch then return nil, why, code end
    for _ = 1, TRIES do
      punch:prepare(message.try)
      why, code = punch:answer(message)
      if why then return nil, why, code end
      local pipe
      pipe, message = punch:pipe_or_message()
      if pipe then return pipe end
      if not message or not punch:is_alive() then break end
    end
    return punch:failure()
  end,
}
