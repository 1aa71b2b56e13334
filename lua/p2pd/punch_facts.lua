-- punch_facts: what the two sides of a punch tell each other of their routers, and what follows from it. A side's
-- facts: ip, nat, delta, value, first, last (external ports), ports (where it is to be met).
local plans = require "p2pd.punch"

local M = {}

local MOST_PORTS = 16
-- So much longer, and so many seconds, a message takes when other flows suffer from a spray; what is left of it then.
local SUFFERS, JITTER, LEAST_SHARE = 2.5, 0.03, 1 / 16

--- Whether the port has to be foreseen from samples, or is kept for all destinations.
function M.is_foreseen(facts)
  return facts.nat == "symmetric" and facts.delta ~= "equal" and facts.delta ~= "random"
end

function M.is_kept(facts)
  return facts.nat ~= "blocked" and (facts.nat ~= "symmetric" or facts.delta == "equal")
end

--- Whether the next port follows from the last one alone: a foreign flow between breaks it.
function M.is_chain(facts)
  return M.is_foreseen(facts) and facts.delta ~= "independent"
end

--- What both do, and what we need for it; nil, and why nothing can be done.
function M.tactic(own, peer)
  local tactic, needs, reason = plans.tactic(own, peer)
  if tactic == "none" then return nil, reason end
  if not tactic then return nil, (needs:gsub("^E%w+: ", "")) end
  return tactic, needs
end

--- The ports that a peer tells.
function M.read_ports(said)
  local ports = {}
  for i, port in ipairs(type(said) == "table" and said or {}) do
    if i > MOST_PORTS then break end
    ports[#ports + 1] = math.tointeger(port)
  end
  return ports
end

--- What a peer says of its router. Anything may be in it; p2pd.punch looks at what is kept of it.
function M.read(said)
  if type(said) ~= "table" then return nil end
  local facts = {}
  for _, name in ipairs { "ip", "nat", "delta" } do
    if type(said[name]) ~= "string" then return nil end
    facts[name] = said[name]
  end
  for _, name in ipairs { "value", "first", "last" } do facts[name] = math.tointeger(said[name]) end
  facts.ports = M.read_ports(said.ports)
  return facts
end

--- The same of an address's first interface of a family; nil when it has none.
function M.named(parsed, name)
  local entry = parsed[name][1]
  return entry and { nat = entry.nat, delta = entry.delta, value = entry.delta_value }
end

--- How much of a spray a router bears: half as much as before when messages, which go over flows that were there
--- before, have become slow; all of it again when they are as quick as they were.
---@param share number of the usual number of sockets and SYNs, 0 to 1
---@param first number seconds that a message took before anything was sent
---@param now number seconds that the last one took
---@return number share
function M.share(share, first, now)
  if now > SUFFERS * first + JITTER then return math.max(share / 2, LEAST_SHARE) end
  return math.min(1, share * 2)
end

function M.words(facts)
  local delta = facts.delta
  if delta == "independent" or delta == "dependent" then delta = ("%s %+d"):format(delta, facts.value or 0) end
  return ("%s/%s"):format(facts.nat, delta)
end

return M
