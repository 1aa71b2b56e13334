-- matrix_command: `p2pd-lua lab matrix`.
local luv = require "luv"
local cli = require "p2pd.cli"
local matrix = require "p2pd.lab.matrix"
local matrix_asked = require "p2pd.lab.matrix_asked"
local matrix_pairs = require "p2pd.lab.matrix_pairs"
local page = require "p2pd.lab.matrix_page"
local results = require "p2pd.lab.matrix_results"
local screen = require "p2pd.lab.matrix_screen"
local task = require "p2pd.task"
local words = require "p2pd.lab.matrix_words"

local TICK = 0.1 -- seconds between two looks whether there is something to draw

local M = {
  usage = "lab matrix [option...]",
  about = "Tries every pair of NATs in labs: a node behind each of two routers, one of which connects to\n"
    .. "the other and gets a line back. Shows who connects to whom, by which way and how fast: in the\n"
    .. "terminal, as JSON, and as an HTML page with the report of each attempt.",
  options = matrix_asked.options {
    { "--strategies", "A,B", "only these ways: names, or files of your own, at both ends" },
    { "--pipeline", "FILE", "a pipeline of your own, at both ends" },
    { "--json", "FILE", "write all reports there, as they come" },
    { "--resume", nil, "go on with what is in that file: pairs that are there are not tried again" },
    { "--html", "FILE", "write a page with the grid and all reports there" },
  },
  epilogue = "Exit status: 0 every pair connected, 1 some did not, 2 usage.",
}

-- What is asked for ---------------------------------------------------------------------------------------------------

-- The runs that were asked for and made, in their order.
local function made_of(found, all)
  local made = {}
  for _, run in ipairs(all) do made[#made + 1] = found:get(run) end
  return made
end

-- What is asked for, and what of it is left to do.
local function what_is_asked(values)
  local conditions, message, code = matrix_asked.conditions(values)
  if not conditions then return nil, message, code end
  local found = results.new(conditions)
  if values.resume then
    found, message, code = results.load(values.json, conditions)
    if not found then return nil, message, code end
  end
  local asked = {
    conditions = conditions, found = found, left = {},
    pairs = matrix_asked.pairs(values),
  }
  asked.all = matrix_asked.runs(asked.pairs, values["repeat"] or 1)
  for _, run in ipairs(asked.all) do
    if not found:has(run) then asked.left[#asked.left + 1] = run end
  end
  return asked
end

-- Going ---------------------------------------------------------------------------------------------------------------

-- How it goes: how many of the runs that are asked for have been made, now or earlier.
local function new_state(asked)
  local state = { total = #asked.all, done = 0, failed = 0, running = 0 }
  for _, run in ipairs(asked.all) do
    if asked.found:has(run) then
      state.done = state.done + 1
      if not asked.found:get(run).ok then state.failed = state.failed + 1 end
    end
  end
  local began, made = task.now(), 0
  function state.made(run)
    made, state.done = made + 1, state.done + 1
    if not run.ok then state.failed = state.failed + 1 end
    state.seconds_left = (task.now() - began) / made * (state.total - state.done)
  end
  return state
end

local function keeper_of(values, found, state, all)
  local makers = {}
  if values.json then makers[values.json] = function() return found:json() end end
  if values.html then
    makers[values.html] = function()
      local progress = state.running > 0 and words.progress(state)
      return page.html(found, matrix_pairs.kinds_in(found.runs, all), progress or nil)
    end
  end
  return results.keeper(makers)
end

local function try_all(values, asked)
  local found = asked.found
  local state = new_state(asked)
  local keeper = keeper_of(values, found, state, asked.all)
  local view
  return keeper.around(function()
    view = screen.open {
      kinds = matrix_pairs.kinds_in(asked.pairs), pairs = asked.pairs, results = found,
      state = function() return state end,
    }
    local drawing <close> = task.group()
    drawing:spawn(function()
      while true do
        view:tick()
        task.sleep(TICK)
      end
    end)
    return matrix.run {
      runs = asked.left, conditions = asked.conditions, jobs = values.jobs or #luv.cpu_info(),
      on_begin = function(run)
        state.running = state.running + 1
        view:change(run, true)
      end,
      on_end = function(run)
        state.running = state.running - 1
        found:add(run)
        state.made(run)
        view:change(run, false)
        view:finish(run)
        keeper.changed()
      end,
    }
  end, function()
    state.running = 0
    if view then view:leave() end
  end)
end

--- Runs the command.
---@return integer status
function M.run(program, values)
  local status = matrix_asked.objection(program, values)
  if status then return status end
  local asked, message, code = what_is_asked(values)
  if not asked then return matrix_asked.fail("lab matrix", message, code) end
  local ok
  ok, message, code = try_all(values, asked)
  local made = made_of(asked.found, asked.all)
  if not ok then
    if #made > 0 then screen.tell(made) end
    return matrix_asked.fail("lab matrix", message, code ~= "EINVAL" and code or "EIO")
  end
  screen.tell(made)
  for _, run in ipairs(made) do
    if not run.ok then return cli.FAILED end
  end
  return cli.OK
end

return M
