-- fastest-of-three: the quickest of three connections, for a pipe that is to live long. Providers spread connections
-- over several paths by their ports, and a peer may have several addresses: so there are three, one after another, and
-- the one whose handshakes took the least time stays. A race would keep the first, whatever became of its packets.
local CONNECTIONS = 3
local PATIENCE = 2 -- seconds for one, at first; then no more than the best one took

---@type p2pd.Strategy
return {
  name = "fastest-of-three",
  timeout = 3 * PATIENCE,

  applies = function(ctx)
    local list, reason = ctx:candidates()
    return #list > 0, reason
  end,

  connect = function(ctx)
    local list = ctx:candidates()
    local best, least, message, code = nil, PATIENCE, nil, nil
    for i = 1, math.max(CONNECTIONS, #list) do
      if best and i > CONNECTIONS then break end
      local to, began = list[(i - 1) % #list + 1], ctx:now()
      local pipe, why, what = ctx:dial { ip = to.ip, port = to.port, scope = to.scope, timeout = least }
      local took = ctx:now() - began
      ctx:note(("connection %d"):format(i), ("%s: %.1f ms"):format(to.ip, took * 1000))
      if pipe and took <= least then
        if best then best:close() end
        best, least = pipe, took
      end
      message, code = why or message, what or code
    end
    return best, message, code
  end,
}
