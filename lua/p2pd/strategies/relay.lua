-- relay: both sides meet at a TURN server (RFC 8656), which passes an ordinary TCP stream on (RFC 6062) and sees only
-- ciphertext. A relay of ours, if the settings name one; else one of the peer's. A side whose own network lets it reach
-- nothing but TURN servers comes from a relay of its own.
local asking = require "p2pd.asking"
local task = require "p2pd.task"

local COME_TIMEOUT = 6 -- seconds for the side that comes to the other's relay
local FALLBACK = 1     -- seconds after which it tries from a relay of its own, too
local HEDGE = 1        -- seconds after which the side that connects asks for a relay of the peer's, too
local SILENCE = 3      -- seconds for which the side that is asked waits for another request when the last one failed
local RELAYS, REQUESTS = 3, 4 -- one after another, in one attempt

-- The addresses that the peer may come from.
local function externals(address)
  local list = {}
  for _, section in ipairs { "ipv4", "ipv6" } do
    for _, entry in ipairs(address[section]) do list[#list + 1] = entry.external end
  end
  return list
end

-- The family in which both can come to a server: IPv4, unless one of them has none.
local function family(ctx)
  return #ctx.own.ipv4 > 0 and #ctx.peer.ipv4 > 0 and 4 or 6
end

-- What the peer says of a relay; anything may be in it.
local function place(message)
  local port = math.tointeger(message.port)
  if type(message.ip) ~= "string" or not port or port < 1 or port > 65535 then return nil end
  return { ip = message.ip, port = port }
end

-- The first of several ways that gives a pipe; else what all failures say.
local function first(ctx, ways)
  local outcomes = task.channel(#ways)
  for _, way in ipairs(ways) do
    ctx:spawn(function() outcomes:send(table.pack(way())) end)
  end
  local failures = {}
  for _ = 1, #ways do
    local outcome = outcomes:recv()
    if outcome[1] then return outcome[1] end
    failures[#failures + 1] = (outcome[2]:gsub("^E%w+: ", ""))
    failures.code = failures.code or outcome[3]
  end
  return nil, ("%s: %s"):format(failures.code, table.concat(failures, "; and ")), failures.code
end

-- Goes to the other side's relay: straight, and from a relay of our own when that takes long, or where our network lets
-- nothing else out; the other side is asked to let that one in.
local function come(ctx, to)
  local straight_failed = task.channel(1)
  local function straight()
    local pipe, message, code = ctx:dial {
      ip = to.ip, port = to.port, scope = "relay", relayed = true, timeout = COME_TIMEOUT,
    }
    if not pipe then straight_failed:send(true) end
    return pipe, message, code
  end
  local function by_relay()
    local blocked = false
    for _, entry in ipairs(ctx.own.ipv4) do blocked = blocked or entry.nat == "blocked" end
    if not blocked then straight_failed:recv(FALLBACK) end
    local relay, message, code = ctx:relay { family = to.ip:find(":", 1, true) and 6 or 4 }
    if not relay then return nil, message, code end
    local told
    told, message, code = ctx:request { permit = relay.ip }
    if not told then return nil, message, code end
    return relay:dial(to.ip, to.port, COME_TIMEOUT)
  end
  return first(ctx, { straight, by_relay })
end

-- The peer may come from a relay of its own, and says so when it has one: then ours let it in. All else that it says
-- goes to `other`.
local function hear(ctx, relays, other)
  while true do
    local message = ctx:receive()
    if not message then return end
    if type(message.permit) == "string" then
      for _, relay in ipairs(relays) do
        if relay:permit(message.permit) then ctx:reply(message, {}) end
      end
    elseif other then
      other(message)
    end
  end
end

-- A relay of ours, in which the peer may come.
local function host(ctx, relays)
  local relay, message, code = ctx:relay { permit = externals(ctx.peer), family = family(ctx) }
  if not relay then return nil, message, code end
  relays[#relays + 1] = relay
  ctx:note("relay", ("%s:%d, by %s"):format(relay.ip, relay.port, relay.server))
  return relay
end

-- The side that connects: at a relay of its own. One that is lost before the peer has come is replaced.
local function at_ours(ctx, relays)
  local pipe, message, code
  for _ = 1, RELAYS do
    local relay
    relay, message, code = host(ctx, relays)
    if not relay then break end
    pipe, message, code = asking.come(ctx, function() return relay:pipe() end, { ip = relay.ip, port = relay.port },
      "the peer does not come to the relay")
    if pipe or code == "ETIMEDOUT" or not relay:is_lost() then break end
  end
  return pipe, message, code
end

-- The side that connects: at one of the peer's.
local function at_the_peers(ctx)
  local reply, message, code = ctx:request { want = true }
  if not reply then return nil, message, code end
  if reply.kind == "refused" then return asking.refusal(reply, "the peer has no relay") end
  local to = place(reply)
  if not to then return nil, "EINVAL: the peer names no relay", "EINVAL" end
  ctx:note("relay", ("%s:%d, the peer's"):format(to.ip, to.port))
  return come(ctx, to)
end

-- The side that is asked: it comes to the relay that the message names, or offers one of its own.
local function answer(ctx, relays, message)
  if not message.want then
    local to = place(message)
    if not to then return nil, "EINVAL: the request names no relay", "EINVAL" end
    return come(ctx, to)
  end
  local relay, why, code = host(ctx, relays)
  if not relay then return nil, why, code end
  ctx:reply(message, { ip = relay.ip, port = relay.port })
  return relay:pipe()
end

---@type p2pd.Strategy
return {
  name = "relay",
  timeout = 12,

  applies = function(ctx)
    if #ctx.peer.signal == 0 then return nil, "the peer's address names no broker" end
    return true
  end,

  connect = function(ctx)
    local relays, own_failed = {}, task.channel(1)
    ctx:spawn(hear, ctx, relays)
    local function by_ours()
      local pipe, message, code = at_ours(ctx, relays)
      if not pipe then own_failed:send(true) end
      return pipe, message, code
    end
    local function by_the_peers()
      own_failed:recv(HEDGE)
      return at_the_peers(ctx)
    end
    return first(ctx, { by_ours, by_the_peers })
  end,

  -- The peer may ask for more than one thing, one after another: each is answered by itself.
  respond = function(ctx, message)
    local relays, outcomes, under_way, asked = {}, task.channel(REQUESTS), 0, 0
    local function serve(request)
      if asked == REQUESTS then return end
      asked, under_way = asked + 1, under_way + 1
      ctx:spawn(function()
        local pipe, why, code = answer(ctx, relays, request)
        if not pipe then ctx:reply(request, { kind = "refused", code = code, message = (why:gsub("^E%w+: ", "")) }) end
        outcomes:send { pipe = pipe, message = why, code = code }
      end)
    end
    serve(message)
    ctx:spawn(hear, ctx, relays, serve)
    local last
    while true do
      local outcome = outcomes:recv(under_way == 0 and SILENCE or nil)
      if not outcome then return nil, last.message, last.code end
      if outcome.pipe then return outcome.pipe end
      last, under_way = outcome, under_way - 1
    end
  end,
}
