-- check: timeout 180
-- `p2pd-lua lab try`: what it says of two pipelines, in virtual time and in a lab, and how two results compare.
require "p2pd"
local comparison = require "p2pd.lab.comparison"
local grids = require "p2pd.lab.try_grids"
local labs = require "spec.support.lab"
local program = require "spec.support.program"
local results = require "p2pd.lab.matrix_results"

local function has(text, part)
  assert(text:find(part, 1, true), ("'%s' is not in:\n%s"):format(part, text))
end

local CONDITIONS = { uninvited = "drop", loss = 0, noise = 0, delay_ms = 10, turn = true, timeout = 20 }

-- Results of one pair: a list of { strategy or false, ms }.
local function results_of(list)
  local found = results.new(CONDITIONS)
  for round, one in ipairs(list) do
    found:add {
      from = "open", to = "blocked", round = round, ok = one[1] ~= false, strategy = one[1] or nil, ms = one[2],
      message = "no", seconds = 1,
    }
  end
  return found
end

local PAIR = { { from = "open", to = "blocked" } }

describe("a comparison", function()
  for _, case in ipairs {
    { "better", { { "punch", 500 } }, { { false } } }, { "better", { { "punch", 900 } }, { { "relay", 200 } } },
    { "worse", { { false } }, { { "relay", 900 } } }, { "worse", { { "relay", 100 } }, { { "direct", 900 } } },
    { "worse", { { "punch", 100 }, { false } }, { { "punch", 100 }, { "punch", 100 } } },
    { "faster", { { "punch", 100 } }, { { "punch", 200 } } }, { "slower", { { "punch", 200 } }, { { "punch", 100 } } },
    { "same", { { "punch", 100 } }, { { "reverse", 120 } } }, { "same", { { false } }, { { false } } },
    { "same", { { "relay", 1000 } }, { { "relay", 1150 } } },
  } do
    local sort, mine, other = table.unpack(case)
    it(("finds what is %s: %s, not %s"):format(sort, tostring(mine[1][1]), tostring(other[1][1])), function()
      local sorts = comparison.compare(results_of(mine), results_of(other), PAIR)
      assert.equal(1, #sorts[sort])
      assert.equal(1, sorts.count)
      assert.equal(mine[1][1] ~= other[1][1] and 1 or #mine > 1 and 1 or 0, #sorts.other_way)
    end)
  end

  it("passes over what was tried in one of the two alone", function()
    local sorts = comparison.compare(results_of {}, results_of { { "relay", 9 } }, PAIR)
    assert.equal(0, sorts.count)
    has(table.concat(comparison.sentences(sorts, "a", "b"), "\n"), "the same way in 0 of 0 pairs (0.0 %)")
  end)

  it("is told in sentences with numbers", function()
    local sorts = comparison.compare(results_of { { "relay", 200 } }, results_of { { "relay", 900 } }, PAIR)
    assert.same({
      "nothing got worse", "nothing got better", "nothing got slower", "1 pair got faster, by 700 ms in the median:",
      "  open > blocked: relay in 200 ms; with b relay in 900 ms",
      "a and b connect in the same way in 1 of 1 pair (100.0 %)",
    }, comparison.sentences(sorts, "a", "b"))
  end)

  it("has two grids beside each other", function()
    local mine, other = results_of { { "relay", 200 } }, results_of { { false } }
    assert.same({
      "            mine   default", "            1 2    1 2", "  1 open    . R    . x", "  2 blocked . .    . .",
      "R relay, x not connected",
    }, grids.lines({ { name = "mine", found = mine }, { name = "default", found = other } }, { "open", "blocked" }))
  end)
end)

describe("lab try --virtual", function()
  local function try(...)
    return program.run { program.path, "lab", "try", ... }
  end

  it("tells what is worse, and says so by its exit status", function()
    local it = try("never-relay", "--virtual", "--kinds", "open,blocked,symmetric/random")
    assert.equal(1, it.status, it.err)
    has(it.out, "6 pairs got worse:\n  open > blocked: not connected; with default relay in ")
    has(it.out, "nothing got better")
    has(it.out, "never-relay: 9: ")
    it = try("default", "--virtual", "--kinds", "open,blocked,symmetric/random", "--against", "never-relay")
    assert.equal(0, it.status, it.err)
    has(it.out, "6 pairs got better:")
  end)

  it("keeps what came of it, to be compared with", function()
    local folder <close> = program.folder()
    local json = tostring(folder) .. "/before.json"
    local it = try("default", "--virtual", "--pairs", "open:open,open:blocked", "--json", json, "--delay", "5")
    assert.equal(0, it.status, it.err)
    has(it.out, "default and default connect in the same way in 2 of 2 pairs (100.0 %)")
    it = try("default", "--virtual", "--against", json) -- its pairs, in its networks
    assert.equal(0, it.status, it.err)
    has(it.out, "in 2 of 2 pairs (100.0 %)")
    has(it.out, "nothing got slower\nnothing got faster")
    it = try("default", "--virtual", "--against", json, "--delay", "50")
    assert.equal(0, it.status, it.err)
    has(it.out, "2 pairs got slower, by ")
  end)

  it("says what is wrong", function()
    for _, case in ipairs {
      { "an operand is missing" }, { "there is no strategy 'magic'", "magic" },
      { "there is no strategy 'magic'", "default", "--against", "magic" },
      { "cannot read the strategy", "/no/such.lua" },
      { "cannot read /no/such.json", "default", "--against", "/no/such.json" },
      { "--resume goes on with a file", "default", "--resume" },
      { "--kinds and --pairs", "default", "--kinds", "open", "--pairs", "open:open" },
      { "unknown option", "default", "--strategies", "direct" },
    } do
      local it = try(table.unpack(case, 2))
      assert(it.status == 2 or it.status == 1 and case[1]:find "cannot read /no", it.err)
      if #case > 1 then has(it.err, case[1]) end
      assert.is_nil(it.err:find "traceback")
      assert.equal("", it.out)
    end
  end)
end)

local user = labs.users()[1]
local obstacle = labs.obstacle(user)

describe("lab try", function()
  it("tries both in labs", obstacle and function() pending("no namespaces here: " .. obstacle) end or function()
    labs.start(user)
    local _ <close> = setmetatable({}, { __close = function() user:stop() end })
    local it = program.run(user:command("lab", "try", "direct", "--pairs", "open:open", "--delay", "2", "--jobs", "1"))
    assert.equal(0, it.status, it.out .. it.err)
    has(it.out, "[1 of 2] direct, open > open: direct in ")
    has(it.out, "[2 of 2] default, open > open: direct in ")
    has(it.out, "nothing got worse")
    user:nothing_left()
  end)
end)
