-- matrix_screen: how a matrix goes, while it goes: a grid that is drawn over and over in a terminal, or a line for each
-- pair elsewhere and where the grid has no room.
local luv = require "luv"
local words = require "p2pd.lab.matrix_words"

local M = {}

local EVERY = 0.1                -- seconds between two drawings, at least
local BELOW = 5                  -- lines of a grid that are not pairs
local SHOWN = 20                 -- failures that are told at the end
local NUMBER = 3                 -- columns of a kind's number
local WORD, LETTER_MS = 13, 7    -- widths of a cell: "reverse 12345", "p 1234"
local FIRST_MS = 99999           -- from here on a time is shown as ever so long

-- Background colours; other strategies have the last.
local colours = {
  direct = "30;42", reverse = "30;46", punch = "97;44", relay = "30;43", failed = "97;41", other = "30;45",
}
local letters = { failed = "x", relay = "R" }

--- A text on the colour of a state.
function M.paint(state, text)
  return ("\27[%sm%s\27[0m"):format(colours[state] or colours.other, text)
end

--- What stands for a state where there is no room for more.
function M.letter(state)
  return letters[state] or state:sub(1, 1)
end

--- The terminal's columns and rows; nil where standard output is none.
---@return integer? columns, integer? rows
function M.size()
  if luv.guess_handle(1) ~= "tty" then return nil end
  local terminal = luv.new_tty(1, false)
  if not terminal then return nil end
  local columns, rows = terminal:get_winsize()
  terminal:close()
  if math.type(columns) and columns > 0 then return columns, rows end
end

local function say(...)
  io.stdout:write(...)
  io.stdout:flush()
end

-- Lines ---------------------------------------------------------------------------------------------------------------

local plain = {}
plain.__index = plain

function plain.change() end
function plain.tick() end
function plain.leave() end

function plain:finish(run)
  local state = self.state()
  say(("[%s] %s: %s\n"):format(words.progress(state), words.pair(run), words.outcome(run)))
end

-- The grid ------------------------------------------------------------------------------------------------------------

local grid = {}
grid.__index = grid

-- The widest cell for which there is room; nil where there is none at all.
local function width_of_cells(kinds, columns, rows, label)
  if #kinds + BELOW > rows then return nil end
  for _, width in ipairs { WORD, LETTER_MS, 2, 1 } do
    if NUMBER + 1 + label + 1 + #kinds * width < columns then return width end
  end
end

local function cell_text(self, cell)
  local ms = cell.ms and math.min(cell.ms, FIRST_MS)
  local text = M.letter(cell.state)
  if self.width == WORD then
    text = ms and ("%-7s%5.0f"):format(cell.state:sub(1, 7), ms) or cell.state
  elseif self.width == LETTER_MS then
    text = ms and ("%s%5.0f"):format(text, ms) or text
  end
  local inner = math.max(1, self.width - 1)
  return M.paint(cell.state, text .. (" "):rep(inner - #text)) .. (" "):rep(self.width - inner)
end

local function cell_of(self, pair)
  local name = words.pair(pair)
  if self.running[name] then return "*" .. (" "):rep(self.width - 1) end
  local cell = self.results:cell(pair)
  if cell then return cell_text(self, cell) end
  return (self.asked[name] and "." or " ") .. (" "):rep(self.width - 1)
end

-- The columns' numbers: a digit under another where there is no room for two beside each other.
local function heads(self)
  local indent = (" "):rep(NUMBER + 1 + self.label + 1)
  local lines, cells = {}, {}
  if self.width > 2 then
    for place in ipairs(self.kinds) do cells[place] = ("%-" .. self.width .. "d"):format(place) end
    return { indent .. table.concat(cells) }
  end
  for line, digit in ipairs { 10, 1 } do
    for place in ipairs(self.kinds) do
      local shown = digit == 10 and place < 10 and " " or ("%d"):format(place // digit % 10)
      cells[place] = shown .. (" "):rep(self.width - 1)
    end
    lines[line] = indent .. table.concat(cells)
  end
  return lines
end

-- What the colours mean, and how often they are there.
local function legend(self)
  local count, order, parts = {}, {}, {}
  for _, pair in ipairs(self.pairs) do
    local cell = self.results:cell(pair)
    if cell and not count[cell.state] then count[cell.state], order[#order + 1] = 0, cell.state end
    if cell then count[cell.state] = count[cell.state] + 1 end
  end
  table.sort(order)
  for _, state in ipairs(order) do
    parts[#parts + 1] = ("%s %s %d"):format(M.paint(state, M.letter(state)),
      state == "failed" and "not connected" or state, count[state])
  end
  return table.concat(parts, "   ")
end

local function draw(self)
  local lines = heads(self)
  for place, from in ipairs(self.kinds) do
    local cells = {}
    for i, to in ipairs(self.kinds) do cells[i] = cell_of(self, { from = from, to = to }) end
    lines[#lines + 1] = ("%" .. NUMBER .. "d %-" .. self.label .. "s %s"):format(place, from, table.concat(cells))
  end
  lines[#lines + 1] = legend(self)
  lines[#lines + 1] = (words.progress(self.state()):sub(1, self.columns - 1))
  local up = self.height and ("\27[%dA\r"):format(self.height) or ""
  self.height = #lines
  for i, line in ipairs(lines) do lines[i] = line .. "\27[K\n" end
  say(up, table.concat(lines), "\27[J")
  self.drawn, self.dirty = luv.hrtime() / 1e9, false
end

function grid:change(pair, running)
  local name = words.pair(pair)
  local count = (self.running[name] or 0) + (running and 1 or -1)
  self.running[name] = count > 0 and count or nil
  self.dirty = true
end

function grid:finish()
  self.dirty = true
end

function grid:tick()
  if self.dirty and luv.hrtime() / 1e9 - self.drawn >= EVERY or luv.hrtime() / 1e9 - self.drawn >= 1 then draw(self) end
end

function grid:leave()
  self.running = {}
  draw(self)
end

-- Both ----------------------------------------------------------------------------------------------------------------

--- What shows how it goes. `view:change(pair, running)` says that a pair begins or ends, `view:finish(run)` what came
--- of it; `view:tick()` is to be called now and then, `view:leave()` at the end.
---@param options {kinds: string[], pairs: table[], results: table, state: fun(): table}
function M.open(options)
  local columns, rows = M.size()
  local self = { kinds = options.kinds, pairs = options.pairs, results = options.results, state = options.state }
  if not columns then return setmetatable(self, plain) end
  self.label, self.columns = 0, columns
  for _, kind in ipairs(self.kinds) do self.label = math.max(self.label, #kind) end
  self.width = width_of_cells(self.kinds, columns, rows, self.label)
  if not self.width then return setmetatable(self, plain) end
  self.running, self.asked, self.drawn, self.dirty = {}, {}, 0, true
  for _, pair in ipairs(self.pairs) do self.asked[words.pair(pair)] = true end
  return setmetatable(self, grid)
end

--- Tells the sum of it, and who did not connect.
---@param runs p2pd.lab.MatrixRun[]
function M.tell(runs)
  local lines, failures = words.summary(runs), 0
  for _, run in ipairs(runs) do
    if not run.ok then
      failures = failures + 1
      if failures <= SHOWN then lines[#lines + 1] = ("  %s: %s"):format(words.pair(run), words.outcome(run)) end
    end
  end
  if failures > SHOWN then lines[#lines + 1] = ("  and %d others"):format(failures - SHOWN) end
  say(table.concat(lines, "\n"), "\n")
end

return M
