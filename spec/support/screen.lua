-- screen: what a terminal shows after some output; as much of one as a line editor needs. A cell is a character, and
-- whether it is faint.
local M = {}

local screen = {}
screen.__index = screen

---@param rows integer
---@param columns integer
function M.new(rows, columns)
  return setmetatable({ rows = rows, columns = columns, cells = { {} }, row = 1, column = 1, rest = "" }, screen)
end

function screen:line_at(row)
  while #self.cells < row do self.cells[#self.cells + 1] = {} end
  return self.cells[row]
end

function screen:put(character)
  if self.column > self.columns then
    self.row, self.column = self.row + 1, 1
  end
  self:line_at(self.row)[self.column] = { character, faint = self.faint }
  self.column = self.column + 1
end

local function clear(line, from, to)
  for i = from, to do line[i] = nil end
end

function screen:control(arguments, final)
  local n = tonumber(arguments:match "^%d+")
  local line = self:line_at(self.row)
  if final == "A" then
    self.row = math.max(1, self.row - (n or 1))
  elseif final == "B" then
    self.row = self.row + (n or 1)
  elseif final == "C" then
    self.column = math.min(self.columns, self.column + (n or 1))
  elseif final == "D" then
    self.column = math.max(1, self.column - (n or 1))
  elseif final == "K" then
    clear(line, n == 1 and 1 or n == 2 and 1 or self.column, n == 1 and self.column or self.columns)
  elseif final == "J" then
    clear(line, self.column, self.columns)
    for row = self.row + 1, #self.cells do self.cells[row] = {} end
  elseif final == "P" then
    for i = self.column, self.columns do line[i] = line[i + (n or 1)] end
  elseif final == "@" then
    for i = self.columns, self.column + (n or 1), -1 do line[i] = line[i - (n or 1)] end
    clear(line, self.column, self.column + (n or 1) - 1)
  elseif final == "H" then
    self.row, self.column = 1, 1
  elseif final == "m" then
    self.faint = arguments == "2"
  elseif not final:match "[hl]" then
    error("the screen does not know ESC [ " .. arguments .. final)
  end
end

--- Shows the output, which may end anywhere.
---@param text string
function screen:feed(text)
  text = self.rest .. text
  local place = 1
  while place <= #text do
    local c = text:sub(place, place)
    local stop = place
    if c == "\27" then
      local _, finish, arguments, final = text:find("^\27%[([%d;?]*)([%a@])", place)
      if not finish then
        if #text - place > 16 then error("the screen does not know " .. ("%q"):format(text:sub(place, place + 8))) end
        break
      end
      self:control(arguments, final)
      stop = finish
    elseif c == "\r" then
      self.column = 1
    elseif c == "\n" then
      self.row = self.row + 1
    elseif c == "\b" then
      self.column = math.max(1, self.column - 1)
    elseif c == "\t" then
      self.column = (self.column - 1) // 8 * 8 + 9
    elseif c ~= "\a" and c ~= "\0" then
      local _, finish = text:find("^[%z\1-\127]", place)
      if not finish then _, finish = text:find("^[\xC2-\xF4][\x80-\xBF]+", place) end
      stop = math.min(finish or place, (utf8.offset(text, 2, place) or #text + 1) - 1)
      self:put(text:sub(place, stop))
    end
    place = stop + 1
  end
  self.rest = text:sub(place)
end

--- The lines, without spaces at their ends; empty ones at the end are left out.
---@return string[]
function screen:lines()
  local lines = {}
  for row, cells in ipairs(self.cells) do
    local line = {}
    for column = 1, self.columns do line[column] = cells[column] and cells[column][1] or " " end
    lines[row] = table.concat(line):gsub(" +$", "")
  end
  while lines[#lines] == "" do lines[#lines] = nil end
  return lines
end

--- What stands behind the cursor in its row: the text, if all of it is faint, "" when there is none.
---@return string? hint
function screen:hint()
  local cells, text = self:line_at(self.row), {}
  for column = self.column, self.columns do
    local cell = cells[column]
    if cell and not cell.faint then return nil end
    text[#text + 1] = cell and cell[1] or " "
  end
  return (table.concat(text):gsub(" +$", ""))
end

--- All that an output left on a screen of that size.
---@param text string
---@param columns? integer
---@return string[]
---@return table screen
function M.of(text, columns)
  local self = M.new(24, columns or 80)
  self:feed(text)
  return self:lines(), self
end

return M
