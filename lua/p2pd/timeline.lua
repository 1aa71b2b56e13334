-- timeline: an attempt over time, as a text for terminals and as a picture. Pure: from what a report tells.
local models = require "p2pd.timeline_model"

local M = {}

local WIDTH = 80

local types = { width = "integer", colours = "boolean" }

local function table_of(report, level)
  if type(report) ~= "table" then error("a report is expected, not a " .. type(report), level + 1) end
  return type(report.table) == "function" and report:table() or report
end

--- The attempt as lanes of bars and marks: what `text` and `svg` draw.
---@param report p2pd.Report|table a report, or what its `table` gives
---@return p2pd.Timeline
function M.model(report)
  return models.of(table_of(report, 2))
end

--- A text for terminals: names, bars with marks, and what came of each.
---@param report p2pd.Report|table
---@param options? { width?: integer, colours?: boolean } 80 columns and no colours unless given
---@return string
function M.text(report, options)
  local told = table_of(report, 2)
  if options ~= nil and type(options) ~= "table" then
    error("a table of options is expected, not a " .. type(options), 2)
  end
  for key, value in pairs(options or {}) do
    local expected = types[key]
    if not expected then error(("unknown option '%s'"):format(tostring(key)), 2) end
    if (math.type(value) or type(value)) ~= expected then
      error(("option '%s' is a %s, not a %s"):format(key, expected, type(value)), 2)
    end
  end
  local painter = require("p2pd.repl.pretty").painter(options and options.colours)
  return require("p2pd.timeline_text").draw(models.of(told), options and options.width or WIDTH, painter)
end

--- A picture that needs nothing else: SVG, without scripts.
---@param report p2pd.Report|table
---@return string
function M.svg(report)
  return require("p2pd.timeline_svg").draw(models.of(table_of(report, 2)))
end

return M
