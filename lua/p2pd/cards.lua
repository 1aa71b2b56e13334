-- cards: which of a machine's addresses count: from what p2pd.nic lists to one interface per card. Pure.
local core = require "p2pd.core"

local M = {}

--- The addresses that can be used: of cards that are up, without loopback's unless there is nothing else; with `bind`,
--- that address alone.
---@param list p2pd.NicAddress[]
---@param bind? string
---@return table[]? addresses each with its `kind`, string? message, string? code
function M.usable(list, bind)
  local wanted, loopback = {}, {}
  for _, entry in ipairs(list) do
    entry.kind = core.address.ip(entry.ip).kind
    if bind then
      if entry.ip == bind then wanted[#wanted + 1] = entry end
    elseif entry.up and not entry.tentative then
      table.insert(entry.kind == "loopback" and loopback or wanted, entry)
    end
  end
  local usable = false
  for _, entry in ipairs(wanted) do usable = usable or entry.kind ~= "link-local" end
  if not usable and not bind then wanted = loopback end
  if #wanted > 0 then return wanted end
  return nil, "EADDRNOTAVAIL: " .. (bind and "no interface has the address " .. bind or "no network interface is up"),
    "EADDRNOTAVAIL"
end

-- Which of two addresses of a card stands for it: one that lasts before one that goes.
local function lasts_longer(one, other)
  local function rank(entry) return (entry.deprecated and 2 or 0) + (entry.temporary and 1 or 0) end
  return rank(one) < rank(other)
end

-- The card's place: those that lead out come first, as there may be dozens that do not (containers, machines within).
local function metric_of(card)
  local best = math.huge
  for _, family in ipairs { 4, 6 } do best = math.min(best, card[family] and card[family].metric or math.huge) end
  return best
end

--- One interface per card: its best address of each family ([4], [6]), and its link-local one of IPv6.
---@param addresses table[] of `usable`
---@return table[] cards
function M.by_card(addresses)
  local cards, order = {}, {}
  for _, entry in ipairs(addresses) do
    local card = cards[entry.name]
    if not card then
      card = { name = entry.name, index = entry.index, mtu = entry.mtu }
      cards[entry.name] = card
      order[#order + 1] = card
    end
    if entry.family == 6 and entry.kind == "link-local" then
      card.link_local = card.link_local or entry.ip
    elseif not card[entry.family] or lasts_longer(entry, card[entry.family]) then
      card[entry.family] = entry
    end
  end
  table.sort(order, function(one, other)
    local a, b = metric_of(one), metric_of(other)
    if a ~= b then return a < b end
    return one.name < other.name
  end)
  return order
end

return M
