-- try_grids: two grids beside each other, or one below the other where there is no room: a letter for each pair.
local screen = require "p2pd.lab.matrix_screen"
local words = require "p2pd.lab.matrix_words"

local M = {}

local NUMBER, GAP = 3, 3
local LONGEST = 40 -- characters of a name: a path's end says more than its beginning
local USUAL = 160  -- columns, where there is no terminal

-- A grid's lines without the kinds' names, and how wide they are.
local function cells(found, kinds, width, coloured)
  local lines, tens, ones = {}, {}, {}
  for place in ipairs(kinds) do
    tens[place] = ("%-" .. width .. "s"):format(place < 10 and " " or place // 10 % 10)
    ones[place] = ("%-" .. width .. "s"):format(place % 10)
  end
  if #kinds > 9 then lines[1] = table.concat(tens) end
  lines[#lines + 1] = table.concat(ones)
  for _, from in ipairs(kinds) do
    local row = {}
    for place, to in ipairs(kinds) do
      local cell = found:cell { from = from, to = to }
      local text = cell and screen.letter(cell.state) or "."
      row[place] = (cell and coloured and screen.paint(cell.state, text) or text) .. (" "):rep(width - 1)
    end
    lines[#lines + 1] = table.concat(row)
  end
  return lines
end

local function labels(kinds, heads)
  local widest = 0
  for _, kind in ipairs(kinds) do widest = math.max(widest, #kind) end
  local list = {}
  for place = 1, heads do list[place] = (" "):rep(NUMBER + 1 + widest + 1) end
  for place, kind in ipairs(kinds) do
    list[#list + 1] = ("%" .. NUMBER .. "d %-" .. widest .. "s "):format(place, kind)
  end
  return list, NUMBER + 1 + widest + 1
end

-- What the letters mean.
local function legend(grids, kinds)
  local seen, parts = {}, {}
  for _, grid in ipairs(grids) do
    for _, from in ipairs(kinds) do
      for _, to in ipairs(kinds) do
        local cell = grid.found:cell { from = from, to = to }
        if cell then seen[cell.state] = true end
      end
    end
  end
  for state in pairs(seen) do
    parts[#parts + 1] = ("%s %s"):format(screen.letter(state), state == "failed" and "not connected" or state)
  end
  table.sort(parts)
  return table.concat(parts, ", ")
end

--- As lines. Two that do not fit beside each other come one below the other.
---@param grids { name: string, found: table }[]
---@param kinds string[]
---@return string[]
function M.lines(grids, kinds)
  local columns = screen.size()
  local coloured, width = columns ~= nil, 2
  columns = columns or USUAL
  local names, label = labels(kinds, #kinds > 9 and 2 or 1)
  local function width_of(grid) return math.max(#kinds * width, #grids > 1 and math.min(#grid.name, LONGEST) or 0) end
  local function needed()
    local sum = label + (#grids - 1) * GAP
    for _, grid in ipairs(grids) do sum = sum + width_of(grid) end
    return sum
  end
  if needed() >= columns then width = 1 end
  local lines = {}
  if needed() >= columns and #grids > 1 then
    for _, grid in ipairs(grids) do table.move(M.lines({ grid }, kinds), 1, #kinds + 4, #lines + 1, lines) end
    return lines
  end
  local blocks, heads, rest, gap = {}, {}, {}, (" "):rep(GAP)
  for place, grid in ipairs(grids) do
    blocks[place] = cells(grid.found, kinds, width, coloured)
    local wide = width_of(grid)
    heads[place] = #grids > 1 and ("%-" .. wide .. "s"):format(grid.name:sub(-wide)) or grid.name
    rest[place] = (" "):rep(wide - #kinds * width)
  end
  lines[1] = (" "):rep(label) .. table.concat(heads, gap):gsub("%s+$", "")
  for row, name in ipairs(names) do
    local parts = {}
    for place, block in ipairs(blocks) do parts[place] = block[row] .. rest[place] end
    lines[#lines + 1] = (name .. table.concat(parts, gap)):gsub("%s+$", "")
  end
  lines[#lines + 1] = legend(grids, kinds)
  return lines
end

--- The sums of both, as lines.
---@param grids { name: string, found: table, made: table[] }[]
---@return string[]
function M.sums(grids)
  local lines = {}
  for _, grid in ipairs(grids) do
    lines[#lines + 1] = ("%s: %s"):format(grid.name, table.concat(words.summary(grid.made), " "))
  end
  return lines
end

return M
