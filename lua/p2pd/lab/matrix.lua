-- matrix: every pair of NATs, one after another in labs that run side by side.
local cell = require "p2pd.lab.matrix_cell"
local task = require "p2pd.task"

local M = {}

local LABS = 2   -- that a pair gets, where one of them fails
local BROKEN = 3 -- pairs in a row for which that was not enough: then nothing can be found out here

---@class p2pd.lab.Matrix
---@field runs {from: string, to: string, round: integer, conditions: table?}[] in their order; one may have conditions
--- of its own, of what the lab is not made of: the pipeline, say
---@field conditions p2pd.lab.MatrixConditions
---@field jobs integer labs at one time
---@field on_begin fun(run: {from: string, to: string, round: integer})
---@field on_end fun(made: p2pd.lab.MatrixRun, run: table) when it was under way to its end

local matrix = {}
matrix.__index = matrix

-- A place for a lab that is made when it is needed, and made anew after it failed.
local function new_place(conditions)
  local place = { count = 0 }
  function place.net()
    if place.lab then return place.lab end
    local message, code
    place.lab, message, code = cell.lab(conditions)
    return place.lab, message, code
  end
  function place.drop()
    local lab = place.lab
    place.lab = nil
    if lab then lab:close() end
  end
  return setmetatable(place, { __close = place.drop })
end

-- What came of it; nil when there is no lab to be had.
local function attempt(self, place, run)
  local message, code
  for _ = 1, LABS do
    local net, why, what = place.net()
    if not net then return nil, why, what end
    place.count = place.count + 1
    local done
    done, message, code = cell.run(net, run, place.count, run.conditions or self.conditions)
    if done then return done end
    place.drop()
  end
  return { from = run.from, to = run.to, ok = false, broken = true, message = message, code = code }
end

-- One lab's way through what is left.
local function work(self)
  local place <close> = new_place(self.conditions)
  while not self.failure do
    self.next = self.next + 1
    local run = self.runs[self.next]
    if not run then return end
    self.on_begin(run)
    local done, message, code = attempt(self, place, run)
    if not done then
      self.failure = { message, code }
      return
    end
    done.round = run.round
    self.broken = done.broken and self.broken + 1 or 0
    if self.broken >= BROKEN then self.failure = { done.message, done.code } end
    self.on_end(done, run)
  end
end

--- Tries them all. Fails where no lab can be had, or none in which a pair can be tried. Whatever leaves this ends the
--- labs.
---@param options p2pd.lab.Matrix
---@return boolean? ok, string? message, string? code
function M.run(options)
  local self = setmetatable({ next = 0, broken = 0 }, matrix)
  for key, value in pairs(options) do self[key] = value end
  local tasks <close> = task.group()
  for _ = 1, math.min(self.jobs, #self.runs) do tasks:spawn(work, self) end
  for _, one in ipairs(tasks) do one:wait() end
  if self.failure then return nil, table.unpack(self.failure) end
  return true
end

return M
