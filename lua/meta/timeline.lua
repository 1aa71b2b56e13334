---@meta p2pd.timeline
-- `local timeline = require "p2pd.timeline"`. In the REPL, `:timeline`; from the shell, `p2pd-lua connect --timeline
-- out.svg ADDRESS`. In a script:
--
--   print(timeline.text(node.last_report, { width = 100, colours = true }))
--   io.open("out.svg", "w"):write(timeline.svg(node.last_report))

--- Draws what an attempt did over time: rungs, dials and bursts of SYNs as bars; SYNs, what came back, and messages as
--- marks on them. Whatever texts the report holds, terminals and browsers see nothing but text.
---@class p2pd.timeline
local timeline = {}

---@class p2pd.TimelineBar
---@field from number milliseconds after the attempt's start
---@field to number
---@field state "connected"|"failed"|"ended"|"open" ended: not by itself; open: it goes on

---@class p2pd.TimelineMark
---@field ms number
---@field kind "connected"|"accepted"|"refused"|"icmp"|"failed"|"other"|"sent"|"heard"|"said"
---@field words string

---@class p2pd.TimelineLane
---@field label string
---@field inner boolean whether it is a part of the rung above it
---@field bars p2pd.TimelineBar[] none of a rung that was passed over
---@field marks p2pd.TimelineMark[]
---@field words string what came of it
---@field skipped? boolean

---@class p2pd.Timeline
---@field title string
---@field why? string
---@field ok boolean
---@field span number milliseconds from the start to the last bar's or mark's end
---@field lanes p2pd.TimelineLane[]
---@field kinds string[] those that its marks have

--- The attempt as lanes: what `text` and `svg` draw. For drawings of your own.
---@param report p2pd.Report|p2pd.ReportTable a report, also of an attempt under way; or the table of one
---@return p2pd.Timeline
function timeline.model(report) end

---@class p2pd.TimelineOptions
---@field width? integer columns, 80 unless given, and 40 at least
---@field colours? boolean for terminals that have them

--- The attempt as a text: a line for each rung, dial and burst, with its name, its bar, and what came of it.
---@param report p2pd.Report|p2pd.ReportTable
---@param options? p2pd.TimelineOptions
---@return string
function timeline.text(report, options) end

--- The attempt as a picture (SVG, without scripts, light or dark as what it is shown in).
---@param report p2pd.Report|p2pd.ReportTable
---@return string
function timeline.svg(report) end
