-- matrix_words: what is said of pairs, in a terminal, in lines and on a page. Pure.
local results = require "p2pd.lab.matrix_results"

local M = {}

local LONG = 160 -- characters of a message

local function short(text)
  text = text:gsub("%s+", " ")
  return #text <= LONG and text or text:sub(1, LONG):gsub("[\x80-\xff]*$", "") .. "…"
end

--- A number of milliseconds.
function M.ms(number)
  return ("%.0f ms"):format(number)
end

--- About so long.
---@param seconds number
function M.duration(seconds)
  if seconds < 90 then return ("%.0f s"):format(seconds) end
  local minutes = math.floor(seconds / 60 + 0.5)
  if minutes < 90 then return ("%d min"):format(minutes) end
  return ("%d h %d min"):format(minutes // 60, minutes % 60)
end

--- What came of a run, in one line.
---@param run p2pd.lab.MatrixRun
function M.outcome(run)
  if not run.ok then
    return (run.broken and "the lab failed: " or "not connected: ") .. short(run.message or run.code or "?")
  end
  local again = (run.tries or 1) > 1 and (", try %d"):format(run.tries) or ""
  return ("%s in %s%s"):format(run.strategy, M.ms(run.ms), again)
end

--- A pair.
function M.pair(one)
  return ("%s > %s"):format(one.from, one.to)
end

--- What the nodes took their NATs for; nil where that is not known.
---@param run p2pd.lab.MatrixRun
function M.examined(run)
  local parts = {}
  for _, side in ipairs { "from", "to" } do
    local own = run.examined and run.examined[side]
    if not own or not own.nat then return nil end
    local delta = own.delta and own.delta ~= "na" and "/" .. own.delta or ""
    parts[#parts + 1] = own.nat .. delta .. (own.value and own.value ~= 0 and ":" .. own.value or "")
  end
  return ("%s%s > %s"):format(run.unexamined and "not examined in time, so taken for " or "", parts[1], parts[2])
end

--- How a matrix is going: { done, total, failed, running, seconds_left? }.
function M.progress(state)
  local parts = { ("%d of %d"):format(state.done, state.total) }
  if state.running > 0 then parts[#parts + 1] = ("%d under way"):format(state.running) end
  if state.failed > 0 then parts[#parts + 1] = ("%d not connected"):format(state.failed) end
  if state.seconds_left and state.done < state.total then
    parts[#parts + 1] = "about " .. M.duration(state.seconds_left) .. " left"
  end
  return table.concat(parts, ", ")
end

--- The sum of all, as lines.
---@param runs p2pd.lab.MatrixRun[]
---@return string[]
function M.summary(runs)
  local by, failed = results.count(runs)
  local parts = {}
  for _, each in ipairs(by) do
    parts[#parts + 1] = ("%s %d (median %s)"):format(each.strategy, each.count, M.ms(each.ms))
  end
  parts[#parts + 1] = ("not connected %d"):format(failed)
  return { ("%d: %s"):format(#runs, table.concat(parts, ", ")) }
end

--- The conditions, in one line.
---@param conditions p2pd.lab.MatrixConditions
function M.conditions(conditions)
  local parts = {
    ("uninvited SYNs: %s"):format(conditions.uninvited), ("%g ms each way to the middle"):format(conditions.delay_ms),
    conditions.loss > 0 and ("loss %g %%"):format(conditions.loss * 100) or "no loss",
    conditions.noise > 0 and ("%g flows of others a second"):format(conditions.noise) or "no flows of others",
    conditions.turn and "with a TURN server" or "without a TURN server",
  }
  if conditions.pipeline then parts[#parts + 1] = "pipeline " .. conditions.pipeline end
  if conditions.strategies then parts[#parts + 1] = "only " .. table.concat(conditions.strategies, ", ") end
  return table.concat(parts, "; ")
end

return M
