-- matrix_page: a matrix as an HTML page that needs nothing else: the grid in colours, and behind each cell its report,
-- which a click shows (by CSS's :target, without any script). Pure.
local words = require "p2pd.lab.matrix_words"

local M = {}

local REFRESH = 5 -- seconds, while it goes

local STYLE = [[
  :root { color-scheme: light dark; font-family: system-ui, sans-serif; }
  body { margin: 1em; }
  h1 { font-size: 1.3em; }
  table { border-collapse: separate; border-spacing: 1px; font-size: 11px; }
  thead th { vertical-align: bottom; height: 15em; }
  thead th span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
  tbody th { text-align: right; white-space: nowrap; position: sticky; left: 0; background: Canvas; }
  th { font-weight: normal; }
  td { min-width: 3.6em; height: 2.6em; text-align: center; background: #8882; padding: 0; }
  td a { display: block; padding: .3em .2em; text-decoration: none; color: #111; border-radius: 2px; }
  .direct { background: #7fd68b; } .reverse { background: #7fd3d6; } .punch { background: #8db4f5; }
  .relay { background: #f0cf6a; } .other { background: #d6a6e8; } .failed { background: #f0857d; }
  .legend span { padding: .1em .5em; margin-right: .6em; border-radius: 2px; color: #111; }
  .report { display: none; }
  .report:target { display: block; position: fixed; left: 0; right: 0; bottom: 0; max-height: 60vh; overflow: auto;
    background: Canvas; border-top: 2px solid GrayText; padding: .5em 1em 1em; }
  .report:target ~ footer { height: 62vh; }
  .report .close { float: right; }
  pre { font-size: 12px; white-space: pre-wrap; }
]]

local known = { direct = true, reverse = true, punch = true, relay = true, failed = true }

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

local function escape(text)
  return (tostring(text):gsub("[&<>\"']", entities):gsub("[%z\1-\8\11-\31\127]", " "))
end

local function class(state)
  return known[state] and state or "other"
end

local function cell(results, pair, name)
  local found = results:cell(pair)
  if not found then return "<td></td>" end
  local label = found.state == "failed" and "–" or escape(found.state)
  if found.failed > 0 and found.runs > 1 then label = ("%d of %d"):format(found.runs - found.failed, found.runs) end
  local time = found.ms and ("<br>%.0f"):format(found.ms) or ""
  return ('<td><a class="%s" href="#%s" title="%s">%s%s</a></td>'):format(class(found.state), name,
    escape(words.pair(pair)), label, time)
end

local function name_of(row, column)
  return ("r%d-%d"):format(row, column)
end

local function grid(results, kinds)
  local rows, heads = {}, {}
  for i, to in ipairs(kinds) do heads[i] = ("<th><span>%s</span></th>"):format(escape(to)) end
  for row, from in ipairs(kinds) do
    local cells = {}
    for column, to in ipairs(kinds) do
      cells[column] = cell(results, { from = from, to = to }, name_of(row, column))
    end
    rows[row] = ("<tr><th>%s</th>%s</tr>"):format(escape(from), table.concat(cells))
  end
  return ("<table><thead><tr><th>from \\ to</th>%s</tr></thead>\n<tbody>\n%s\n</tbody></table>"):format(
    table.concat(heads), table.concat(rows, "\n"))
end

local function run_text(run)
  local parts = { ("<p>%s</p>"):format(escape(words.outcome(run))) }
  local examined = words.examined(run)
  if examined then parts[#parts + 1] = ("<p>The nodes took their NATs for: %s</p>"):format(escape(examined)) end
  if run.echo_ms then
    parts[#parts + 1] = ("<p>A line came back after %s from %s</p>"):format(words.ms(run.echo_ms), escape(run.remote))
  end
  parts[#parts + 1] = ("<pre>%s</pre>"):format(escape(run.text or run.message or ""))
  if run.timeline then
    parts[#parts + 1] = "<p>What the routers did (a and c are before who connects, b and d before the other):</p>"
    parts[#parts + 1] = ("<pre>%s</pre>"):format(escape(run.timeline))
  end
  return table.concat(parts, "\n")
end

local function report(results, pair, name)
  local runs, parts = results:of(pair), {}
  if #runs == 0 then return nil end
  for i, run in ipairs(runs) do
    parts[i] = (#runs > 1 and ("<h3>%d</h3>\n"):format(run.round) or "") .. run_text(run)
  end
  return ('<section class="report" id="%s"><a class="close" href="#">close</a><h2>%s</h2>\n%s</section>'):format(name,
    escape(words.pair(pair)), table.concat(parts, "\n"))
end

local function reports(results, kinds)
  local list = {}
  for row, from in ipairs(kinds) do
    for column, to in ipairs(kinds) do
      list[#list + 1] = report(results, { from = from, to = to }, name_of(row, column))
    end
  end
  return table.concat(list, "\n")
end

local function legend()
  local parts = {}
  for _, state in ipairs { "direct", "reverse", "punch", "relay", "other", "failed" } do
    parts[#parts + 1] = ('<span class="%s">%s</span>'):format(state, state == "failed" and "not connected" or state)
  end
  return '<p class="legend">' .. table.concat(parts) .. "</p>"
end

--- The page. `progress`, where it still goes, is what is said of that.
---@param results table of p2pd.lab.matrix_results
---@param kinds string[]
---@param progress? string
---@return string
function M.html(results, kinds, progress)
  return table.concat({
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
    progress and ('<meta http-equiv="refresh" content="%d">'):format(REFRESH) or "",
    "<title>p2pd-lua lab matrix</title><style>\n" .. STYLE .. "</style></head><body>",
    "<h1>Who connects to whom, and how</h1>",
    ("<p>%s. Each cell: the way, and the milliseconds until the pipe was there.</p>"):format(
      escape(words.conditions(results.conditions))),
    ("<p>%s</p>"):format(escape(progress or table.concat(words.summary(results.runs), " "))),
    legend(), grid(results, kinds), reports(results, kinds), "<footer></footer></body></html>\n",
  }, "\n")
end

return M
