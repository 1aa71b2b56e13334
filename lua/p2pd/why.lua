-- why: one plain sentence for what an attempt came to. Pure: from the table of a report.
local M = {}

local function rung_of(rungs, name)
  for _, rung in ipairs(rungs) do
    if rung.name == name then return rung end
  end
end

-- Why a way was not taken, without its code.
local function reason(rung)
  local text = rung and (rung.skipped or rung.message)
  return text and (text:gsub("^E%w+: ", "")) or nil
end

local WORDS = {}

function WORDS.direct() return "the peer could be dialed" end

function WORDS.reverse(rungs)
  local direct = rung_of(rungs, "direct")
  if direct and direct.skipped then return direct.skipped .. ", but it could dial this node" end
  return "the peer could dial this node sooner than this node the peer"
end

function WORDS.punch(rungs)
  local direct, reverse = rung_of(rungs, "direct"), rung_of(rungs, "reverse")
  if direct and direct.skipped and reverse and reverse.skipped then
    return "neither router lets anybody in uninvited, so both were opened at the same moment"
  end
  return "both routers were opened at the same moment, which was the quickest way"
end

function WORDS.relay(rungs)
  local punch = rung_of(rungs, "punch")
  local why = reason(punch)
  if not why then return "the relay was the first to work" end
  if punch.skipped or punch.code == "EUNREACHABLE" then return why .. ", so only the relay could work" end
  return ("punching did not come through (%s), so the relay was used"):format(why)
end

---@param report table as report:table() gives it
---@return string? sentence without a full stop; nil where nothing is to be said
function M.sentence(report)
  local words = report.strategy and WORDS[report.strategy]
  return words and words(report.rungs)
end

return M
