-- sweep: all ports from a foreseen one on. For routers that give each connection the next port, where other flows take
-- some in between. The side whose own port is sure lets all of them in; from one of them the other side's SYN comes.
local p2pd = require "p2pd"

local AHEAD, GAP_MS, WAIT = 120, 0.25, 0.6 -- ports; between two SYNs; seconds

-- Where the peer is to meet us, and from which port of ours we go there.
local function place(ctx)
  local facts, message, code = ctx:facts(4)
  if not facts then return nil, message, code end
  if facts.nat ~= "symmetric" or facts.delta == "equal" then
    local hold, why, what = ctx:hold(4)
    if not hold then return nil, why, what end
    return { ip = hold.external_ip, port = hold.external_port, step = 0 }, hold.local_port
  end
  if facts.delta ~= "independent" then return nil, "EUNREACHABLE: no port follows another", "EUNREACHABLE" end
  local seen, why, what = ctx:sample(4)
  if not seen then return nil, why, what end
  local foreseen
  foreseen, message, code = p2pd.punch.predict {
    nat = facts.nat, delta = facts.delta, value = facts.value, first = facts.first, last = facts.last,
    samples = seen, count = 1,
  }
  if not foreseen then return nil, message, code end
  return { ip = facts.ip, port = foreseen.ports[1], step = facts.value }, foreseen.locals[1]
end

local function meet(ctx, from, peer, at)
  local shots = {}
  for i = 0, peer.step == 0 and 0 or AHEAD do
    shots[i + 1] = { at_ms = i * GAP_MS, local_port = from, remote_port = peer.port + i * peer.step, listens = i == 0 }
  end
  ctx:note("peer's port", peer.step == 0 and peer.port or ("%d and %d more"):format(peer.port, AHEAD))
  local puncher, message, code = ctx:puncher { ip = peer.ip, syns = 2 * #shots }
  if not puncher then return nil, message, code end
  puncher:fire(shots, { at = at, revive = 1, revive_gap_ms = 50 })
  return puncher:pipe(WAIT)
end

return p2pd.pipeline.retry(4, {
  name = "sweep",

  connect = function(ctx)
    local own, from, code = place(ctx)
    if not own then return nil, from, code end
    local peer, message, what = ctx:request(own)
    if not peer or peer.kind == "refused" then return nil, message or peer.message, what or peer.code end
    return meet(ctx, from, peer)
  end,

  respond = function(ctx, peer)
    local own, from, code = place(ctx)
    if not own then return nil, from, code end
    if own.step ~= 0 and peer.step ~= 0 then return nil, "EUNREACHABLE: no side's port is sure", "EUNREACHABLE" end
    ctx:reply(peer, own)
    return meet(ctx, from, peer, ctx:now() + ctx:signal_time()) -- then the answer is there
  end,
})
