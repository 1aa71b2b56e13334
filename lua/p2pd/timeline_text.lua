-- timeline_text: a timeline for a terminal: names, bars, and what came of them on the right. Pure.
--
--                  ms 0         50        100
--   direct           passed over: the peer's router lets nobody in uninvited
--   punch            >━<━━━━━━━━━━━━━━━━━━━━━━   connected after 112 ms
--     ipv4 try 1       ||x|───────────*          6 SYNs, 1 refused, 1 connected
local models = require "p2pd.timeline_model"

local M = {}

local LEAST_WIDTH, LEAST_CHART = 40, 16
local LABEL_SHARE, CHART_SHARE = 0.3, 0.6 -- of the width; of what the labels leave
local TICK = 6                            -- columns between two numbers of the scale, at least

local glyphs = {
  connected = "*", accepted = "@", refused = "x", icmp = "!", failed = "#", other = "?", sent = "|", heard = "<",
  said = ">",
}

local mark_colours = {
  connected = "string", accepted = "string", refused = "error", icmp = "error", failed = "error", other = "other",
  sent = "number", heard = "keyword", said = "keyword",
}

local bar_colours = { connected = "string", failed = "error", ended = "faint", open = "number" }

local columns_of, cut = models.columns, models.cut

local function padded(text, columns)
  text = cut(text, columns)
  return text .. (" "):rep(columns - columns_of(text))
end

local function place_of(ms, model, width)
  return math.min(width, 1 + math.floor(ms / model.span * width))
end

-- The cells of a lane's bars and marks, each { glyph, colour }.
local function cells_of(lane, model, width)
  local cells, ranks = {}, {}
  for _, bar in ipairs(lane.bars) do
    for place = place_of(bar.from, model, width), place_of(bar.to, model, width) do
      cells[place] = { lane.inner and "─" or "━", bar_colours[bar.state] }
    end
  end
  local rank = {}
  for i, kind in ipairs(models.kinds) do rank[kind] = i end
  for _, mark in ipairs(lane.marks) do
    local place = place_of(mark.ms, model, width)
    if rank[mark.kind] < (ranks[place] or math.huge) then
      ranks[place], cells[place] = rank[mark.kind], { glyphs[mark.kind], mark_colours[mark.kind] }
    end
  end
  return cells
end

-- Neighbours of one colour are painted at once.
local function painted(cells, width, paint)
  local parts, run, colour = {}, "", nil
  local function flush()
    if run ~= "" then parts[#parts + 1] = colour and paint(colour, run) or run end
    run = ""
  end
  for place = 1, width do
    local cell = cells[place] or { " " }
    if cell[2] ~= colour then
      flush()
      colour = cell[2]
    end
    run = run .. cell[1]
  end
  flush()
  return table.concat(parts)
end

local function scale(model, label_width, width, columns, paint)
  local numbers, unit = models.scale(model.span, width // TICK)
  local line = (" "):rep(label_width - #unit) .. unit .. " "
  for _, tick in ipairs(numbers) do
    local place = label_width + place_of(tick.ms, model, width)
    if place + #tick.number <= columns then
      line = line .. (" "):rep(place - #line) .. tick.number
    end
  end
  return paint("faint", line)
end

-- What the marks are, in as many lines as it takes.
local function add_legend(lines, model, columns, paint)
  local line, used = "", 0
  for _, kind in ipairs(model.kinds) do
    local word = models.words[kind]
    local gap = used > 0 and "  " or ""
    if used + #gap + 2 + #word > columns then
      lines[#lines + 1] = line
      line, used, gap = "", 0, ""
    end
    line = ("%s%s%s %s"):format(line, gap, paint(mark_colours[kind], glyphs[kind]), word)
    used = used + #gap + 2 + #word
  end
  lines[#lines + 1] = used > 0 and line or nil
end

--- The timeline in lines of at most so many columns.
---@param model p2pd.Timeline
---@param columns integer
---@param paint fun(kind: string, text: string): string as p2pd.repl.pretty's painter gives it
---@return string
function M.draw(model, columns, paint)
  columns = math.max(columns, LEAST_WIDTH)
  local label_width, words_width = 2, 0
  for _, lane in ipairs(model.lanes) do
    label_width = math.max(label_width, columns_of(lane.label) + (lane.inner and 2 or 0))
    if not lane.skipped then words_width = math.max(words_width, columns_of(lane.words)) end
  end
  label_width = math.min(label_width, math.floor(columns * LABEL_SHARE))
  local room = columns - label_width - 2
  local width = math.max(LEAST_CHART, math.floor(room * CHART_SHARE), room - words_width)
  local lines = { paint("strong", cut(model.title, columns)) }
  lines[#lines + 1] = model.why and cut(model.why, columns)
  if #model.lanes > 0 then lines[#lines + 1] = scale(model, label_width, width, columns, paint) end
  for _, lane in ipairs(model.lanes) do
    local label = padded((lane.inner and "  " or "") .. lane.label, label_width)
    if #lane.bars == 0 and #lane.marks == 0 then
      lines[#lines + 1] = label .. " " .. paint("faint", cut(lane.words, room + 1))
    else
      local words = cut(lane.words, room - width)
      lines[#lines + 1] = ("%s %s %s"):format(label, painted(cells_of(lane, model, width), width, paint), words)
    end
  end
  add_legend(lines, model, columns, paint)
  for i, line in ipairs(lines) do lines[i] = line:gsub(" +$", "") end
  return table.concat(lines, "\n")
end

return M
