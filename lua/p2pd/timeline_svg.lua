-- timeline_svg: a timeline as a picture (SVG 1.1) that needs nothing else: no scripts, nothing from elsewhere. It is
-- light or dark as what it is shown in; what a bar or a mark is, is told where the pointer rests on it. Pure.
local escape = require("p2pd.markup").escape
local models = require "p2pd.timeline_model"

local M = {}

local WIDTH, EDGE, GAP = 1000, 14, 12
local CHARACTER = 6.6          -- the width of one, about: nothing can be measured here
local MOST_LABEL, WORDS = 28, 44
local RUNG, INNER = 24, 17     -- heights of lanes
local RUNG_BAR, INNER_BAR = 10, 4
local TICK = 70                -- between two numbers of the scale, at least
local LEAST_BAR = 2

local STYLE = [[
  .p2pd-timeline { font: 12px system-ui, sans-serif; }
  .p2pd-timeline .ground { fill: #ffffff; }
  .p2pd-timeline text { fill: #1f2328; }
  .p2pd-timeline .title { font-size: 15px; font-weight: bold; }
  .p2pd-timeline .inner { font-size: 11px; }
  .p2pd-timeline .faint { fill: #636c76; }
  .p2pd-timeline .grid { stroke: #808890; stroke-opacity: .3; }
  .p2pd-timeline .bar-connected { fill: #57ab6a; } .p2pd-timeline .bar-failed { fill: #dd7a73; }
  .p2pd-timeline .bar-ended { fill: #a9b1ba; } .p2pd-timeline .bar-open { fill: #6ea8e0; }
  .p2pd-timeline path { fill: none; stroke-width: 1.6; }
  .p2pd-timeline .sent { stroke: #0a58ca; } .p2pd-timeline .refused { stroke: #b3202a; }
  .p2pd-timeline .icmp { stroke: #b35900; } .p2pd-timeline .failed { stroke: #b3202a; }
  .p2pd-timeline .other { stroke: #7d3f98; }
  .p2pd-timeline .connected { stroke: #14692c; fill: #14692c; } .p2pd-timeline .accepted { stroke: #14692c; }
  .p2pd-timeline .said { stroke: #5b3fb5; fill: #5b3fb5; } .p2pd-timeline .heard { stroke: #5b3fb5; }
  @media (prefers-color-scheme: dark) {
    .p2pd-timeline .ground { fill: #15181c; }
    .p2pd-timeline text { fill: #e6e9ec; }
    .p2pd-timeline .faint { fill: #98a1ab; }
    .p2pd-timeline .bar-connected { fill: #2f7a43; } .p2pd-timeline .bar-failed { fill: #94423d; }
    .p2pd-timeline .bar-ended { fill: #555d66; } .p2pd-timeline .bar-open { fill: #2d6397; }
    .p2pd-timeline .sent { stroke: #8fc1ff; } .p2pd-timeline .refused { stroke: #ff9089; }
    .p2pd-timeline .icmp { stroke: #ffb066; } .p2pd-timeline .failed { stroke: #ff9089; }
    .p2pd-timeline .other { stroke: #dba8f0; }
    .p2pd-timeline .connected { stroke: #7ee09a; fill: #7ee09a; } .p2pd-timeline .accepted { stroke: #7ee09a; }
    .p2pd-timeline .said { stroke: #bda8ff; fill: #bda8ff; } .p2pd-timeline .heard { stroke: #bda8ff; }
  }
]]

-- Shapes around 0,0, so that none is told by its colour alone.
local shapes = {
  connected = "M0 -5L5 0L0 5L-5 0Z", accepted = "M0 -5L5 0L0 5L-5 0Z", refused = "M-3.5 -3.5L3.5 3.5M3.5 -3.5L-3.5 3.5",
  icmp = "M0 -4L4 3.5H-4Z", failed = "M-3 0H3M0 -3V3", other = "M-3 -3H3V3H-3Z", sent = "M0 -5V5",
  said = "M-3 -4L4 0L-3 4Z", heard = "M3 -4L-4 0L3 4Z",
}

local cut = models.cut

local function number(value)
  return (("%.1f"):format(value):gsub("%.0$", ""))
end

local function at(ms)
  return number(ms) .. " ms"
end

local function write_text(out, x, y, class, text)
  out[#out + 1] = ('<text x="%s" y="%s" class="%s">%s</text>'):format(number(x), number(y), class, escape(text))
end

local function write_scale(out, model, chart, top, bottom)
  local numbers, unit = models.scale(model.span, chart.width // TICK)
  for i, tick in ipairs(numbers) do
    local x = number(chart.x + tick.ms / model.span * chart.width)
    out[#out + 1] = ('<line class="grid" x1="%s" x2="%s" y1="%s" y2="%s"/>'):format(x, x, number(top + 5),
      number(bottom))
    out[#out + 1] = ('<text class="inner faint" text-anchor="middle" x="%s" y="%s">%s%s</text>'):format(x, number(top),
      tick.number, i == 1 and " " .. unit or "")
  end
end

local function write_mark(out, x, y, kind, words)
  out[#out + 1] = ('<path class="%s" transform="translate(%s %s)" d="%s">%s</path>'):format(kind, number(x), number(y),
    shapes[kind], words and ("<title>%s</title>"):format(escape(words)) or "")
end

local function write_lane(out, lane, model, chart, y)
  local class, height = lane.inner and "inner" or "rung", lane.inner and INNER_BAR or RUNG_BAR
  out[#out + 1] = ("<g><title>%s: %s</title>"):format(escape(lane.label), escape(lane.words))
  write_text(out, EDGE + (lane.inner and GAP or 0), y + 4, class, cut(lane.label, MOST_LABEL))
  for _, bar in ipairs(lane.bars) do
    local from, to = bar.from / model.span * chart.width, bar.to / model.span * chart.width
    local place = ('x="%s" y="%s" width="%s" height="%d"'):format(number(chart.x + from), number(y - height / 2),
      number(math.max(LEAST_BAR, to - from)), height)
    out[#out + 1] = ('<rect class="bar-%s" %s rx="2"><title>%s: %s to %s</title></rect>'):format(bar.state, place,
      escape(lane.label), at(bar.from), at(bar.to))
  end
  for i = #models.kinds, 1, -1 do -- what tells most lies above
    for _, mark in ipairs(lane.marks) do
      if mark.kind == models.kinds[i] then
        write_mark(out, chart.x + mark.ms / model.span * chart.width, y, mark.kind,
          ("%s: %s, at %s"):format(lane.label, mark.words, at(mark.ms)))
      end
    end
  end
  if #lane.bars == 0 and #lane.marks == 0 then
    write_text(out, chart.x, y + 4, "inner faint", cut(lane.words, WORDS + chart.width // CHARACTER))
  else
    write_text(out, chart.x + chart.width + GAP, y + 4, "inner faint", cut(lane.words, WORDS))
  end
  out[#out + 1] = "</g>"
end

local function write_legend(out, model, y)
  local x = EDGE + 5
  for _, kind in ipairs(model.kinds) do
    write_mark(out, x, y, kind)
    write_text(out, x + GAP, y + 4, "inner", models.words[kind])
    x = x + 3 * GAP + #models.words[kind] * CHARACTER
  end
end

--- The picture of a timeline.
---@param model p2pd.Timeline
---@return string
function M.draw(model)
  local longest = 8
  for _, lane in ipairs(model.lanes) do
    longest = math.max(longest, math.min(MOST_LABEL, models.columns(lane.label)) + (lane.inner and 2 or 0))
  end
  local chart = { x = EDGE + longest * CHARACTER + GAP }
  chart.width = WIDTH - chart.x - GAP - WORDS * CHARACTER - EDGE
  local out, y = {}, EDGE + 12
  write_text(out, EDGE, y, "title", cut(model.title, 110))
  if model.why then
    y = y + 20
    write_text(out, EDGE, y, "faint", cut(model.why, 140))
  end
  y = y + 26
  local top, places = y, {}
  for i, lane in ipairs(model.lanes) do
    local height = lane.inner and INNER or RUNG
    places[i], y = y + 8 + height / 2, y + height
  end
  y = y + 10
  if #model.lanes > 0 then write_scale(out, model, chart, top, y) end
  for i, lane in ipairs(model.lanes) do write_lane(out, lane, model, chart, places[i]) end
  if #model.kinds > 0 then
    y = y + 18
    write_legend(out, model, y)
  end
  y = y + EDGE
  local size = ('width="%d" height="%s" viewBox="0 0 %d %s"'):format(WIDTH, number(y), WIDTH, number(y))
  return table.concat({
    ('<svg xmlns="http://www.w3.org/2000/svg" class="p2pd-timeline" role="img" %s>'):format(size),
    ("<title>%s</title>"):format(escape(model.title)),
    "<style>\n" .. STYLE .. "</style>",
    ('<rect class="ground" width="%d" height="%s"/>'):format(WIDTH, number(y)),
    table.concat(out, "\n"),
    "</svg>\n",
  }, "\n")
end

return M
