-- comparison: what another pipeline makes of the same pairs: better, worse, faster or slower, as sentences. Pure.
--
--   better   it connects where the other one did not, or without a relay where the other one needed it
--   worse    the other way round
--   faster, slower   both connect; the medians differ by more than chance in a lab does
local results = require "p2pd.lab.matrix_results"
local words = require "p2pd.lab.matrix_words"

local M = {}

local LEAST_MS, LEAST_SHARE = 25, 0.2 -- by which times differ that are told
local SHOWN = 12                      -- pairs of a sort

M.SORTS = { "worse", "better", "slower", "faster" } -- of what is other, in the order in which it is told

---@class p2pd.lab.Difference
---@field pair {from: string, to: string}
---@field mine table as results:cell gives it
---@field other table

-- How good the end of it is: of those that connect, and of these without a relay.
local function shares(found, pair)
  local connected, straight, count = 0, 0, 0
  for _, run in ipairs(found:of(pair)) do
    count = count + 1
    if run.ok then connected = connected + 1 end
    if run.ok and run.strategy ~= "relay" then straight = straight + 1 end
  end
  return connected / count, straight / count
end

local function judge(mine, other, pair)
  local connected, straight = shares(mine, pair)
  local before, straight_before = shares(other, pair)
  if connected ~= before then return connected > before and "better" or "worse" end
  if straight ~= straight_before then return straight > straight_before and "better" or "worse" end
  local ms, ms_before = mine:cell(pair).ms, other:cell(pair).ms
  if not ms or not ms_before then return "same" end
  if math.abs(ms - ms_before) <= math.max(LEAST_MS, LEAST_SHARE * ms_before) then return "same" end
  return ms < ms_before and "faster" or "slower"
end

--- What differs, by sort; pairs of which one of the two knows nothing are left out.
---@param mine table of p2pd.lab.matrix_results
---@param other table
---@param pairs_asked {from: string, to: string}[]
---@return table<string, p2pd.lab.Difference[]> sorts "better", "worse", "faster", "slower", "same", and "other_way"
function M.compare(mine, other, pairs_asked)
  local sorts = { better = {}, worse = {}, faster = {}, slower = {}, same = {}, other_way = {}, count = 0 }
  for _, pair in ipairs(pairs_asked) do
    local one, another = mine:cell(pair), other:cell(pair)
    if one and another then
      local difference = { pair = pair, mine = one, other = another }
      table.insert(sorts[judge(mine, other, pair)], difference)
      if one.state ~= another.state then table.insert(sorts.other_way, difference) end
      sorts.count = sorts.count + 1
    end
  end
  for _, sort in ipairs { "faster", "slower" } do
    table.sort(sorts[sort], function(a, b)
      local first, second = math.abs(a.mine.ms - a.other.ms), math.abs(b.mine.ms - b.other.ms)
      if first ~= second then return first > second end
      return words.pair(a.pair) < words.pair(b.pair)
    end)
  end
  return sorts
end

--- What came of a pair in one of the two.
---@param cell table as results:cell gives it
---@return string
function M.outcome(cell)
  if cell.failed == cell.runs then return "not connected" end
  local text = cell.failed > 0 and ("%d of %d connect"):format(cell.runs - cell.failed, cell.runs) or cell.state
  return cell.ms and ("%s in %s"):format(text, words.ms(cell.ms)) or text
end

local function add_pairs(lines, list, other_name)
  for place, one in ipairs(list) do
    if place > SHOWN then
      lines[#lines + 1] = ("  and %d others"):format(#list - SHOWN)
      return
    end
    lines[#lines + 1] = ("  %s: %s; with %s %s"):format(words.pair(one.pair), M.outcome(one.mine), other_name,
      M.outcome(one.other))
  end
end

local function count(number)
  return number == 1 and "1 pair" or ("%d pairs"):format(number)
end

local function by_how_much(list)
  local gains = {}
  for place, one in ipairs(list) do gains[place] = math.abs(one.mine.ms - one.other.ms) end
  return results.median(gains)
end

--- How many pairs are of a sort, and by how much: "3 pairs got slower, by 40 ms in the median".
---@param sorts table of M.compare
---@param sort "better"|"worse"|"faster"|"slower"
---@return string
function M.heading(sorts, sort)
  local list = sorts[sort]
  if #list == 0 then return ("nothing got %s"):format(sort) end
  local text = ("%s got %s"):format(count(#list), sort)
  if sort == "better" or sort == "worse" then return text end
  return ("%s, by %s in the median"):format(text, words.ms(by_how_much(list)))
end

--- In how many pairs both connect in the same way.
---@param sorts table of M.compare
---@param name string
---@param other_name string
---@return string
function M.alike(sorts, name, other_name)
  local alike = sorts.count - #sorts.other_way
  return ("%s and %s connect in the same way in %d of %s (%.1f %%)"):format(name, other_name, alike,
    count(sorts.count), sorts.count > 0 and 100 * alike / sorts.count or 0)
end

--- As lines.
---@param sorts table of M.compare
---@param name string
---@param other_name string
---@return string[]
function M.sentences(sorts, name, other_name)
  local lines = {}
  for _, sort in ipairs(M.SORTS) do
    lines[#lines + 1] = M.heading(sorts, sort) .. (#sorts[sort] > 0 and ":" or "")
    add_pairs(lines, sorts[sort], other_name)
  end
  lines[#lines + 1] = M.alike(sorts, name, other_name)
  return lines
end

return M
