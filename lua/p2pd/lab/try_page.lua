-- try_page: two pipelines beside each other as an HTML page: what got worse, better, slower and faster, then both
-- grids, and behind each cell what both did there. Pure.
local comparison = require "p2pd.lab.comparison"
local escape = require("p2pd.markup").escape
local grid_page = require "p2pd.lab.grid_page"
local matrix_pairs = require "p2pd.lab.matrix_pairs"
local screen = require "p2pd.lab.matrix_screen"
local words = require "p2pd.lab.matrix_words"

local M = {}

local SHOWN = 12 -- pairs of a sort that are seen at once
local ROOMY = 9  -- kinds, up to which there is room for words in a cell

-- In the first grid; what it is that changed is not told by a colour alone.
local marks = { worse = "▼", better = "▲", slower = "▽", faster = "△" }

local STYLE = [[
  :root { --bad: #b3202a; --good: #14692c; }
  @media (prefers-color-scheme: dark) { :root { --bad: #ff9089; --good: #7ee09a; } }
  .counts { display: flex; flex-wrap: wrap; align-items: baseline; gap: .5em; margin: .8em 0; }
  .counts a, .counts span { border: 1px solid var(--edge); border-radius: 6px; padding: .2em .7em; color: inherit;
    text-decoration: none; }
  .counts b { font-size: 1.25em; }
  .worse b, .slower b, .mark-worse, .mark-slower { color: var(--bad); }
  .better b, .faster b, .mark-better, .mark-faster { color: var(--good); }
  .list { border-collapse: collapse; font-size: .9em; }
  .list th { text-align: left; font-weight: normal; opacity: .75; }
  .list th, .list td { padding: .15em .9em .15em 0; border-bottom: 1px solid var(--edge); vertical-align: top; }
  .list td { overflow-wrap: anywhere; }
  .list .by { white-space: nowrap; text-align: right; }
  summary { cursor: pointer; padding: .3em 0; }
  .two { display: flex; flex-wrap: wrap; gap: 0 1.2em; align-items: flex-end; }
  .report .two { align-items: flex-start; }
  .grids .half { min-width: min(24em, 100%); max-width: 100%; }
  .grids .half p { width: 0; min-width: 100%; }
  .report .half { flex: 1 1 26em; min-width: 0; max-width: 100%; }
  .grid td a { position: relative; }
  .grid td sup { position: absolute; right: 0; top: -.1em; font-size: 9px; line-height: 1; }
  .small td { min-width: 1.75em; height: 1.9em; } .small td a { padding: .3em 0; }
  .legend .mark { border: 1px solid var(--edge); }
  .legend { margin: .8em 0; }
]]

-- What is other -------------------------------------------------------------------------------------------------------

local function gain(difference, sort)
  if sort == "worse" or sort == "better" then return "" end
  local ms = difference.mine.ms - difference.other.ms
  return ("%s%s"):format(ms > 0 and "+" or "−", words.ms(math.abs(ms)))
end

local function rows_of(list, first, last, sort, anchors)
  local rows = {}
  for place = first, math.min(last, #list) do
    local one = list[place]
    rows[#rows + 1] = ('<tr><td><a href="#%s">%s</a></td><td>%s</td><td>%s</td><td class="by">%s</td></tr>'):format(
      anchors[matrix_pairs.key(one.pair)], escape(words.pair(one.pair)), escape(comparison.outcome(one.mine)),
      escape(comparison.outcome(one.other)), gain(one, sort))
  end
  return table.concat(rows, "\n")
end

local function list_of(sorts, sort, names, anchors)
  local list = sorts[sort]
  if #list == 0 then return "" end
  local function table_of(first, last)
    return ('<div class="scroll"><table class="list"><thead><tr><th>pair</th><th>%s</th><th>%s</th><th></th></tr>'
      .. "</thead><tbody>\n%s\n</tbody></table></div>"):format(escape(names[1]), escape(names[2]),
      rows_of(list, first, last, sort, anchors))
  end
  local parts = {
    ('<h2 id="%s"><span class="mark-%s">%s</span> %s</h2>'):format(sort, sort, marks[sort],
      escape(comparison.heading(sorts, sort))),
    table_of(1, SHOWN),
  }
  if #list > SHOWN then
    parts[#parts + 1] = ("<details><summary>%d more</summary>%s</details>"):format(#list - SHOWN,
      table_of(SHOWN + 1, #list))
  end
  return table.concat(parts, "\n")
end

local function counts(sorts)
  local parts = {}
  for _, sort in ipairs(comparison.SORTS) do
    local count = #sorts[sort]
    parts[#parts + 1] = count > 0 and ('<a class="%s" href="#%s"><b>%d</b> %s</a>'):format(sort, sort, count, sort)
      or ("<span>0 %s</span>"):format(sort)
  end
  parts[#parts + 1] = ("<span>%d the same</span>"):format(#sorts.same)
  return ('<p class="counts">%s</p>'):format(table.concat(parts))
end

-- Grids ---------------------------------------------------------------------------------------------------------------

local function cell(found, pair, anchor, roomy, sort)
  local there = found:cell(pair)
  if not there then return nil end
  local label = escape(screen.letter(there.state))
  if roomy then label = there.state == "failed" and "–" or escape(there.state) end
  if there.failed > 0 and there.runs > 1 then
    label = (roomy and "%d of %d" or "%d/%d"):format(there.runs - there.failed, there.runs)
  end
  local time = roomy and grid_page.second_line(there.ms) or ""
  local title = ("%s: %s%s"):format(words.pair(pair), comparison.outcome(there), sort and ", " .. sort or "")
  return ('<a class="%s" href="#%s" title="%s">%s%s%s</a>'):format(grid_page.class(there.state), anchor, escape(title),
    label, time, marks[sort] and ("<sup>%s</sup>"):format(marks[sort]) or "")
end

local function grids(two, kinds, sort_of)
  local parts, roomy = {}, #kinds <= ROOMY
  for place, one in ipairs(two) do
    parts[place] = ('<div class="half"><h3>%s</h3><p>%s</p>\n%s</div>'):format(escape(one.name),
      escape(table.concat(words.summary(one.made), " ")),
      grid_page.grid(kinds, function(pair, anchor)
        return cell(one.found, pair, anchor, roomy, place == 1 and sort_of[matrix_pairs.key(pair)] or nil)
      end, not roomy and "small" or nil))
  end
  return '<div class="two grids">' .. table.concat(parts, "\n") .. "</div>"
end

local function legend(roomy)
  local more = {}
  for _, sort in ipairs(comparison.SORTS) do
    more[#more + 1] = ('<span class="mark">%s %s</span>'):format(marks[sort], sort)
  end
  return grid_page.legend(table.concat(more), not roomy and function(state)
    return state == "other" and "" or screen.letter(state) .. " "
  end or nil)
end

-- Both reports of a pair.
local function behind(two, pair, sort)
  local parts, some = {}, false
  for place, one in ipairs(two) do
    local runs = grid_page.runs(one.found, pair)
    some = some or runs ~= nil
    parts[place] = ('<div class="half"><h3>%s</h3>\n%s</div>'):format(escape(one.name), runs or "<p>not tried</p>")
  end
  if not some then return nil end
  local verdict = marks[sort] and ('<p class="mark-%s">%s %s</p>'):format(sort, marks[sort], sort) or ""
  return ('%s<div class="two">%s</div>'):format(verdict, table.concat(parts, "\n"))
end

--- The page. `progress`, where it still goes, is what is said of that.
---@param two { name: string, found: table, made: table[] }[] mine, then the other one
---@param sorts table of comparison.compare
---@param kinds string[]
---@param progress? string
---@return string
function M.html(two, sorts, kinds, progress)
  local names, sort_of, anchors = { two[1].name, two[2].name }, {}, {}
  for row, from in ipairs(kinds) do
    for column, to in ipairs(kinds) do
      anchors[matrix_pairs.key { from = from, to = to }] = grid_page.anchor(row, column)
    end
  end
  local lists, conditions = {}, {}
  for _, sort in ipairs(comparison.SORTS) do
    for _, one in ipairs(sorts[sort]) do sort_of[matrix_pairs.key(one.pair)] = sort end
    lists[#lists + 1] = list_of(sorts, sort, names, anchors)
  end
  for key, value in pairs(two[1].found.conditions) do conditions[key] = value end
  conditions.pipeline = nil -- the heading has it
  return grid_page.document({
    title = ("%s against %s"):format(names[1], names[2]), style = STYLE, goes_on = progress ~= nil,
  }, {
    ("<h1>%s against %s</h1>"):format(escape(names[1]), escape(names[2])),
    ("<p>%s.</p>"):format(escape(words.conditions(conditions))),
    progress and ("<p>%s</p>"):format(escape(progress)) or "",
    counts(sorts), ("<p>%s.</p>"):format(escape(comparison.alike(sorts, names[1], names[2]))),
    table.concat(lists, "\n"), "<h2>Each pair: who connects is on the left</h2>", legend(#kinds <= ROOMY),
    grids(two, kinds, sort_of),
    grid_page.reports(kinds, function(pair) return behind(two, pair, sort_of[matrix_pairs.key(pair)]) end),
  })
end

return M
