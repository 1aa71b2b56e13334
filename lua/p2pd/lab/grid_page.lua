-- grid_page: what HTML pages with grids of pairs are made of: cells in colours, and behind each its reports, which a
-- click shows (by CSS's :target, without any script). A page needs nothing else and nothing from elsewhere. Pure.
local escape = require("p2pd.markup").escape
local words = require "p2pd.lab.matrix_words"

local M = {}

local REFRESH = 5 -- seconds, while it goes

local STYLE = [[
  :root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.4; --edge: #8886;
    --direct: #7fd68b; --reverse: #7fd3d6; --punch: #8db4f5; --relay: #f0cf6a; --other: #d6a6e8; --failed: #f0857d;
    --on: #111; }
  @media (prefers-color-scheme: dark) {
    :root { --direct: #256b34; --reverse: #1d6468; --punch: #2c4f94; --relay: #75591a; --other: #6a3a80;
      --failed: #94342d; --on: #fff; }
  }
  body { margin: 1em; }
  h1 { font-size: 1.3em; margin: 0 0 .4em; overflow-wrap: anywhere; }
  h2 { font-size: 1.1em; margin: 1em 0 .3em; }
  h3 { font-size: 1em; margin: .6em 0 .2em; overflow-wrap: anywhere; }
  p { margin: .4em 0; }
  .scroll { overflow-x: auto; }
  .grid { border-collapse: separate; border-spacing: 1px; font-size: 11px; line-height: 1.25; }
  .grid thead th { vertical-align: bottom; padding-bottom: .3em; }
  .grid thead th span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
  .grid tbody th { text-align: right; white-space: nowrap; position: sticky; left: 0; background: Canvas;
    padding-right: .4em; }
  .grid th { font-weight: normal; }
  .grid td { min-width: 3.6em; height: 2.6em; text-align: center; background: #8882; padding: 0; }
  .grid td a { display: block; padding: .3em .2em; text-decoration: none; border-radius: 2px; }
  .direct, .reverse, .punch, .relay, .other, .failed { color: var(--on); }
  .direct { background: var(--direct); } .reverse { background: var(--reverse); } .punch { background: var(--punch); }
  .relay { background: var(--relay); } .other { background: var(--other); } .failed { background: var(--failed); }
  .legend { display: flex; flex-wrap: wrap; gap: .3em; font-size: .9em; }
  .legend span { padding: .1em .5em; border-radius: 2px; }
  .report { display: none; }
  .report:target { display: block; position: fixed; left: 0; right: 0; bottom: 0; max-height: 60vh; overflow: auto;
    background: Canvas; border-top: 2px solid GrayText; padding: .5em 1em 1em; }
  .report:target ~ footer { height: 62vh; }
  .report h2 { margin-top: 0; overflow-wrap: anywhere; }
  .report .close { float: right; padding: .1em .6em; border: 1px solid var(--edge); border-radius: 4px; }
  pre { font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
]]

local known = { direct = true, reverse = true, punch = true, relay = true, failed = true }

--- A state's class of cells.
---@param state string
function M.class(state)
  return known[state] and state or "other"
end

--- Where the reports of a pair are.
---@param row integer
---@param column integer
function M.anchor(row, column)
  return ("r%d-%d"):format(row, column)
end

--- The second line of a cell, which is as high without one.
---@param ms number?
---@return string
function M.second_line(ms)
  return "<br/>" .. (ms and ("%.0f"):format(ms) or "\u{a0}")
end

--- A grid of all kinds with each other.
---@param kinds string[]
---@param cell fun(pair: { from: string, to: string }, anchor: string): string? what is in a cell
---@param class? string
---@return string
function M.grid(kinds, cell, class)
  local rows, heads = {}, {}
  for i, to in ipairs(kinds) do heads[i] = ("<th><span>%s</span></th>"):format(escape(to)) end
  for row, from in ipairs(kinds) do
    local cells = {}
    for column, to in ipairs(kinds) do
      cells[column] = ("<td>%s</td>"):format(cell({ from = from, to = to }, M.anchor(row, column)) or "")
    end
    rows[row] = ("<tr><th>%s</th>%s</tr>"):format(escape(from), table.concat(cells))
  end
  return ('<div class="scroll"><table class="grid%s"><thead><tr><th>from \\ to</th>%s</tr></thead>\n<tbody>\n%s\n'
    .. "</tbody></table></div>"):format(class and " " .. class or "", table.concat(heads), table.concat(rows, "\n"))
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

--- What came of a pair in each of its runs; nil where it was not tried.
---@param results table of p2pd.lab.matrix_results
---@param pair { from: string, to: string }
---@return string?
function M.runs(results, pair)
  local runs, parts = results:of(pair), {}
  if #runs == 0 then return nil end
  for i, run in ipairs(runs) do
    parts[i] = (#runs > 1 and ("<h3>%d</h3>\n"):format(run.round) or "") .. run_text(run)
  end
  return table.concat(parts, "\n")
end

--- The reports behind all cells.
---@param kinds string[]
---@param text fun(pair: { from: string, to: string }): string? what is behind a cell
---@return string
function M.reports(kinds, text)
  local list = {}
  for row, from in ipairs(kinds) do
    for column, to in ipairs(kinds) do
      local pair = { from = from, to = to }
      local inside = text(pair)
      if inside then
        list[#list + 1] = ('<section class="report" id="%s"><a class="close" href="#-">close</a><h2>%s</h2>\n%s'
          .. "</section>"):format(M.anchor(row, column), escape(words.pair(pair)), inside)
      end
    end
  end
  return table.concat(list, "\n")
end

--- What the colours mean, and what else is to be said there.
---@param more? string
---@param label? fun(state: string): string
---@return string
function M.legend(more, label)
  local parts = {}
  for _, state in ipairs { "direct", "reverse", "punch", "relay", "other", "failed" } do
    local text = state == "failed" and "not connected" or state
    parts[#parts + 1] = ('<span class="%s">%s</span>'):format(state, label and label(state) .. text or text)
  end
  return '<p class="legend">' .. table.concat(parts) .. (more or "") .. "</p>"
end

--- The page.
---@param options { title: string, style?: string, goes_on?: boolean } goes_on: it is to be looked at again soon
---@param parts string[]
---@return string
function M.document(options, parts)
  return table.concat({
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>',
    '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
    options.goes_on and ('<meta http-equiv="refresh" content="%d"/>'):format(REFRESH) or "",
    ("<title>%s</title><style>\n%s%s</style></head><body>"):format(escape(options.title), STYLE, options.style or ""),
    table.concat(parts, "\n"), "<footer></footer></body></html>\n",
  }, "\n")
end

return M
