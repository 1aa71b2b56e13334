-- matrix_pairs: which pairs of NATs are tried, from how they are written. Pure.
local nat = require "p2pd.lab.nat"

local M = {}

local TYPES = { "full-cone", "restricted", "port-restricted", "symmetric" }
local DELTAS = { "equal", "preserving", "independent:1", "independent:7", "dependent:1", "random" }

--- All kinds, in the order in which they are shown.
---@type string[]
M.KINDS = { "open", "udp-firewall" }
for _, type in ipairs(TYPES) do
  for _, delta in ipairs(DELTAS) do M.KINDS[#M.KINDS + 1] = type .. "/" .. delta end
end
M.KINDS[#M.KINDS + 1] = "blocked"

local function one_text(text)
  local parsed, message, code = nat.parse(text)
  if not parsed then return nil, message, code end
  return nat.text(parsed)
end

-- The parts of a list, each made by `make`; none is there twice.
local function list_of(text, make, what)
  local list, known = {}, {}
  for part in text:gmatch "[^,]+" do
    local made, message, code = make(part)
    if not made then return nil, message, code end
    local key = type(made) == "table" and M.key(made) or made
    if not known[key] then list[#list + 1], known[key] = made, true end
  end
  if #list == 0 then return nil, ("EINVAL: a list of %s has none in it"):format(what), "EINVAL" end
  return list
end

--- Kinds as "open,symmetric/random".
---@param text string
---@return string[]? kinds, string? message, string? code
function M.kinds(text)
  return list_of(text, one_text, "kinds")
end

-- A kind may have a colon in it, before a number; the one between two kinds is before a letter.
local function pair_of(text)
  local left, right = text:match "^(.-):(%a.*)$"
  if not left then
    return nil, ("EINVAL: '%s' is no pair of NATs; write it as in 'symmetric/random:open'"):format(text), "EINVAL"
  end
  local from, message, code = one_text(left)
  if not from then return nil, message, code end
  local to
  to, message, code = one_text(right)
  if not to then return nil, message, code end
  return { from = from, to = to }
end

--- Pairs as "open:symmetric/random,symmetric/independent:7:open": the first of each connects to the second.
---@param text string
---@return {from: string, to: string}[]? pairs, string? message, string? code
function M.pairs(text)
  return list_of(text, pair_of, "pairs")
end

--- Each kind with each, itself included, in both directions.
---@param kinds string[]
---@return {from: string, to: string}[]
function M.all(kinds)
  local list = {}
  for _, from in ipairs(kinds) do
    for _, to in ipairs(kinds) do list[#list + 1] = { from = from, to = to } end
  end
  return list
end

--- What names a pair, and with a round one run of it.
---@param one {from: string, to: string, round: integer?}
function M.key(one)
  return one.round and ("%s > %s > %d"):format(one.from, one.to, one.round) or ("%s > %s"):format(one.from, one.to)
end

--- The kinds that are in these lists of pairs: those of M.KINDS in their order, then the others as they come.
---@param ... {from: string, to: string}[]
---@return string[]
function M.kinds_in(...)
  local there, others, list = {}, {}, {}
  for _, pairs_or_runs in ipairs { ... } do
    for _, one in ipairs(pairs_or_runs) do
      for _, kind in ipairs { one.from, one.to } do
        if not there[kind] then there[kind], others[#others + 1] = true, kind end
      end
    end
  end
  local placed = {}
  for _, kind in ipairs(M.KINDS) do
    if there[kind] then list[#list + 1], placed[kind] = kind, true end
  end
  for _, kind in ipairs(others) do
    if not placed[kind] then list[#list + 1] = kind end
  end
  return list
end

return M
