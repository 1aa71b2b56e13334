-- matrix: pairs of NATs in virtual time: as p2pd.lab.matrix, without a lab. Nothing goes out, nothing is waited for.
local cell = require "p2pd.lab.virtual.cell"
local core = require "p2pd.core"

local M = {}

local EPOCH = 1 -- seconds: any time

-- One seed for all that is tried of a pair in a round, so that pipelines differ by what they do alone.
local function seed_of(run)
  local seed = 5381
  for _, byte in ipairs { (run.from .. ">" .. run.to .. ">" .. (run.round or 1)):byte(1, -1) } do
    seed = (seed * 33 + byte) & 0x3fffffff
  end
  return seed
end

--- Tries them all, one after another. While it does, the time of all tasks is virtual: nobody else may wait for a time.
---@param options { runs: table[], conditions: p2pd.lab.MatrixConditions, on_begin: function?, on_end: function }
---@return boolean ok
function M.run(options)
  local _ <close> = setmetatable({}, { __close = function() core.task.virtual() end })
  for _, run in ipairs(options.runs) do
    if options.on_begin then options.on_begin(run) end
    core.task.virtual(EPOCH) -- each begins at the same time, so that nothing depends on those before
    local made = cell.run(run, run.conditions or options.conditions, seed_of(run))
    made.round = run.round
    options.on_end(made, run)
  end
  return true
end

return M
