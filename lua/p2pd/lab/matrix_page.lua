-- matrix_page: a matrix as an HTML page: the grid in colours, and behind each cell its report. Pure.
local escape = require("p2pd.markup").escape
local grid_page = require "p2pd.lab.grid_page"
local words = require "p2pd.lab.matrix_words"

local M = {}

local function cell(results, pair, anchor)
  local found = results:cell(pair)
  if not found then return nil end
  local label = found.state == "failed" and "–" or escape(found.state)
  if found.failed > 0 and found.runs > 1 then label = ("%d of %d"):format(found.runs - found.failed, found.runs) end
  return ('<a class="%s" href="#%s" title="%s">%s%s</a>'):format(grid_page.class(found.state), anchor,
    escape(words.pair(pair)), label, grid_page.second_line(found.ms))
end

--- The page. `progress`, where it still goes, is what is said of that.
---@param results table of p2pd.lab.matrix_results
---@param kinds string[]
---@param progress? string
---@return string
function M.html(results, kinds, progress)
  return grid_page.document({ title = "p2pd-lua lab matrix", goes_on = progress ~= nil }, {
    "<h1>Who connects to whom, and how</h1>",
    ("<p>%s. Each cell: the way, and the milliseconds until the pipe was there.</p>"):format(
      escape(words.conditions(results.conditions))),
    ("<p>%s</p>"):format(escape(progress or table.concat(words.summary(results.runs), " "))),
    grid_page.legend(), grid_page.grid(kinds, function(...) return cell(results, ...) end),
    grid_page.reports(kinds, function(pair) return grid_page.runs(results, pair) end),
  })
end

return M
