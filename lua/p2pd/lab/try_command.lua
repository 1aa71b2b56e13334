-- try_command: `p2pd-lua lab try`: what a pipeline makes of every pair of NATs, beside what another one does.
local luv = require "luv"
local cli = require "p2pd.cli"
local comparison = require "p2pd.lab.comparison"
local grids = require "p2pd.lab.try_grids"
local matrix_asked = require "p2pd.lab.matrix_asked"
local matrix_pairs = require "p2pd.lab.matrix_pairs"
local page = require "p2pd.lab.try_page"
local results = require "p2pd.lab.matrix_results"
local words = require "p2pd.lab.matrix_words"

local M = {
  usage = "lab try PIPELINE [option...]",
  about = "Tries a pipeline of yours, and another one, with every pair of NATs: shows grid beside grid, and\n"
    .. "says what got better (connects, or needs no relay any more), worse, faster and slower. PIPELINE is a\n"
    .. "file or a name, as of `connect --pipeline`; both ends use it.",
  options = matrix_asked.options {
    { "--against", "OTHER", "another pipeline, or a .json file of `lab try` or `lab matrix` (default)" },
    { "--virtual", nil, "without labs, in virtual time: all pairs within seconds" },
    { "--json", "FILE", "write what comes of PIPELINE there, as `lab matrix` does" },
    { "--resume", nil, "go on with what is in that file" },
    { "--html", "FILE", "write a page there with both grids, what differs, and all reports" },
  },
  operands = 1,
  epilogue = "Exit status: 0 nothing got worse, 1 something did, 2 usage.",
}

local function say(lines)
  io.stdout:write(table.concat(lines, "\n"), "\n")
  io.stdout:flush()
end

-- What is asked for ---------------------------------------------------------------------------------------------------

-- One of the two: its pipeline, and what is known of it already.
local function one_of(values, pipeline, path, resume)
  local asked = {}
  for key, value in pairs(values) do asked[key] = value end
  asked.pipeline = pipeline
  local conditions, message, code = matrix_asked.conditions(asked)
  if not conditions then return nil, message, code end
  local one = { name = pipeline, conditions = conditions, found = results.new(conditions), path = path }
  if resume then
    one.found, message, code = results.load(path, conditions)
    if not one.found then return nil, message, code end
  end
  return one
end

local function of_file(path)
  local found, message, code = results.load(path)
  if not found then return nil, message, code end
  return { name = path, found = found, given = true }
end

-- What is asked for, in the networks in which the other one was tried, unless told otherwise.
local function as_there(values, conditions)
  local asked = {
    uninvited = conditions.uninvited, loss = conditions.loss, noise = conditions.noise, delay = conditions.delay_ms,
    timeout = conditions.timeout, ["no-turn"] = not conditions.turn and not values.turn or nil,
  }
  for key, value in pairs(values) do asked[key] = value end
  return asked
end

local function both(values)
  local against = values.against or "default"
  local given, message, code
  if against:find "%.json$" then
    given, message, code = of_file(against)
    if not given then return nil, message, code end
    values = as_there(values, given.found.conditions)
  end
  local mine
  mine, message, code = one_of(values, values[1], values.json, values.resume)
  if not mine then return nil, message, code end
  local other = given
  if not other then other, message, code = one_of(values, against) end
  if not other then return nil, message, code end
  return { mine, other }
end

-- What is left to do: both of a pair one after the other, so that they find the machine in the same state.
local function left_of(two, pairs_asked, rounds)
  local left = {}
  for _, run in ipairs(matrix_asked.runs(pairs_asked, rounds)) do
    for _, one in ipairs(two) do
      if not one.given and not one.found:has(run) then
        left[#left + 1] = { from = run.from, to = run.to, round = run.round, conditions = one.conditions, one = one }
      end
    end
  end
  return left
end

-- The pairs: where others were tried before, these, unless told otherwise.
local function pairs_of(values, other)
  if not other.given or values.kinds or values.pairs then return matrix_asked.pairs(values) end
  local list, known = {}, {}
  for _, run in ipairs(other.found.runs) do
    local key = matrix_pairs.key { from = run.from, to = run.to }
    if not known[key] then list[#list + 1], known[key] = { from = run.from, to = run.to }, true end
  end
  return list
end

-- Going ---------------------------------------------------------------------------------------------------------------

-- Several at once would only take longer in virtual time.
local function runner_of(values)
  if values.virtual then return require("p2pd.lab.virtual.matrix").run end
  return require("p2pd.lab.matrix").run
end

local function made_of(found, pairs_asked)
  local made = {}
  for _, pair in ipairs(pairs_asked) do
    for _, run in ipairs(found:of(pair)) do made[#made + 1] = run end
  end
  return made
end

-- What of both is written to files while it goes: `state` is how it goes.
local function keeper_of(values, two, pairs_asked, state)
  local makers = {}
  if two[1].path then makers[two[1].path] = function() return two[1].found:json() end end
  if values.html then
    makers[values.html] = function()
      for _, one in ipairs(two) do one.made = made_of(one.found, pairs_asked) end
      return page.html(two, comparison.compare(two[1].found, two[2].found, pairs_asked),
        matrix_pairs.kinds_in(pairs_asked), state.running > 0 and words.progress(state) or nil)
    end
  end
  return results.keeper(makers)
end

local function try_all(values, two, pairs_asked, left)
  local mine, state = two[1], { total = #left, done = 0, failed = 0, running = 0 }
  local keeper = keeper_of(values, two, pairs_asked, state)
  return keeper.around(function()
    return runner_of(values) {
      runs = left, conditions = mine.conditions, jobs = values.jobs or #luv.cpu_info(),
      on_begin = function() state.running = state.running + 1 end,
      on_end = function(made, run)
        state.running, state.done = state.running - 1, state.done + 1
        run.one.found:add(made)
        keeper.changed()
        if values.virtual then return end
        say { ("[%d of %d] %s, %s: %s"):format(state.done, #left, run.one.name, words.pair(made), words.outcome(made)) }
      end,
    }
  end, function() state.running = 0 end)
end

--- Runs the command.
---@return integer status
function M.run(program, values)
  local status = matrix_asked.objection(program, values)
  if status then return status end
  local two, message, code = both(values)
  if not two then return matrix_asked.fail("lab try", message, code) end
  local pairs_asked = pairs_of(values, two[2])
  local ok
  ok, message, code = try_all(values, two, pairs_asked, left_of(two, pairs_asked, values["repeat"] or 1))
  if not ok then return matrix_asked.fail("lab try", message, code ~= "EINVAL" and code or "EIO") end
  for _, one in ipairs(two) do one.made = made_of(one.found, pairs_asked) end
  local sorts = comparison.compare(two[1].found, two[2].found, pairs_asked)
  say(grids.lines(two, matrix_pairs.kinds_in(pairs_asked)))
  say(grids.sums(two))
  say(comparison.sentences(sorts, two[1].name, two[2].name))
  return #sorts.worse == 0 and cli.OK or cli.FAILED
end

return M
