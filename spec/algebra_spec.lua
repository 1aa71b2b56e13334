-- The combinators that choose, bound and double; random trees of all of them are in random_trees_spec.lua.
local pipeline = require "p2pd.pipeline"
local run = require "spec.support.run"
local task = require "p2pd.task"
local world = require "spec.support.world"

local seq, race, stagger, retry = pipeline.seq, pipeline.race, pipeline.stagger, pipeline.retry
local only, prefer, budget = pipeline.only, pipeline.prefer, pipeline.budget
local hedge, named, timeout = pipeline.hedge, pipeline.named, pipeline.timeout

local function go(strategy, means)
  local here = world.reachable()
  for name, value in pairs(means or {}) do here.means[name] = value end
  local ctx, _, own_report = world.attempt { world = here }
  local began = task.now()
  local pipe, message, code = pipeline.run(strategy, ctx)
  local rungs, order = {}, {}
  for _, rung in ipairs(own_report:table().rungs) do
    rungs[rung.name], order[#order + 1] = rung, rung.name
  end
  return {
    pipe = pipe, message = message, code = code, took = task.now() - began, rungs = rungs, order = order,
    winner = own_report.winner, open = here:open_count(), report = own_report,
  }
end

local function connected(ctx) return ctx:dial { ip = "8.8.8.8", port = 4000 } end

-- A rung that takes some seconds, and fails unless told otherwise; `log` gets its name.
local function rung(name, seconds, connects, log)
  return { name = name, connect = function(ctx)
    table.insert(log or {}, name)
    ctx:sleep(seconds)
    if connects then return connected(ctx) end
    return nil, "EONE: it was told to", "EONE"
  end }
end

local function shape(strategy)
  if not strategy.children then return strategy.name end
  local parts = {}
  for i, child in ipairs(strategy.children) do parts[i] = shape(child) end
  return ("%s{%s}"):format(strategy.name, table.concat(parts, " "))
end

local function fails_here(f, text)
  local ok, err = pcall(f)
  assert.is_false(ok)
  assert.truthy(err:find("algebra_spec.lua:", 1, true), err)
  assert.truthy(err:find(text, 1, true), err)
end

local a, b, c, d = rung("a", 1), rung("b", 1), rung("c", 1), rung("d", 1)

describe("wrong arguments of combinators", function()
  it("throw at the caller's line", function()
    fails_here(function() local _ = only({}, a) end, "names of strategies are expected")
    fails_here(function() local _ = only("direkt", pipeline.default()) end, "did you mean direct?")
    fails_here(function() local _ = only("a", { name = "x", children = { a, b }, connect = print }) end, "no rebuild")
    fails_here(function() local _ = prefer("z", seq { a, b }) end, "there is no 'z' among these strategies")
    fails_here(function() local _ = prefer({ 3 }, a) end, "is a string, not a number")
    fails_here(function() local _ = budget(3) end, "a budget is a table")
    fails_here(function() local _ = budget {} end, "syns, seconds or tries")
    fails_here(function() local _ = budget { sins = 3 } end, "not 'sins'")
    fails_here(function() local _ = budget { syns = 1.5 } end, "whole number")
    fails_here(function() local _ = budget { seconds = -1 } end, "number of seconds")
    fails_here(function() local _ = budget { tries = 1 } (3) end, "not a number")
    fails_here(function() local _ = hedge(0 / 0, a) end, "number of seconds")
    fails_here(function() local _ = named("two words", a) end, "needs a name")
    fails_here(function() local _ = named("x") end, "not a nil")
    fails_here(function() local _ = seq { { name = "x", conect = print } } end, "did you mean connect?")
  end)
end)

describe("a function", function()
  it("is a strategy wherever one may stand, and is called after its place", run.virtual(function()
    local here = ("algebra_spec.lua:%d"):format(debug.getinfo(connected, "S").linedefined)
    local result = go(seq { a, timeout(3, connected) })
    assert.equal(here, result.winner)
    assert.equal(here, go(connected).winner)
    local mine = { name = "mine", children = { a, connected }, connect = function(ctx)
      return ctx:try(a) or ctx:try(connected)
    end }
    result = go(mine)
    assert.equal(here, result.winner)
    assert.same({ "a", here }, result.order)
    assert.equal("quick", go(seq { a, named("quick", connected) }).winner)
  end))
end)

describe("only", function()
  local tree = stagger(2) { seq { a, b }, hedge(1, race { c, d }) }

  it("keeps these, and what is around them", function()
    assert.equal("stagger(2){b hedge(1){race{c d}}}", shape(only({ "b", "c", "d" }, tree)))
    assert.equal("a", shape(only("a", tree)))
    assert.equal("hedge(1){race{d}}", shape(only("d", only({ "d" }, seq { a, hedge(1, race { d }) }))))
  end)

  it("keeps all of what has a name of its own", function()
    local group = named("group", seq { a, b })
    assert.equal("group{seq{a b}}", shape(only("group", race { group, c })))
  end)

  it("reports nothing of the others", run.virtual(function()
    assert.same({ "b", "c" }, go(only({ "b", "c" }, tree)).order)
  end))
end)

describe("prefer", function()
  local function log_of(make)
    local log = {}
    go(make(function(name) return rung(name, 1, false, log) end))
    return table.concat(log)
  end

  it("tries first what has a name, however deep it lies, and leaves the rest in its order", run.virtual(function()
    assert.equal("dcab", log_of(function(r)
      return prefer("d", seq { seq { r "a", r "b" }, retry(1, seq { r "c", r "d" }) })
    end))
  end))

  it("asks a function, of each in its turn", run.virtual(function()
    assert.equal("cab", log_of(function(r)
      return prefer(function(ctx, strategy) return ctx.role == "connect" and strategy.name == "c" end,
        seq { r "a", r "b", r "c" })
    end))
  end))

  it("obeys the outermost first, and what is left of a tree", run.virtual(function()
    assert.equal("cba", log_of(function(r) return prefer("c", prefer("b", seq { r "a", r "b", r "c" })) end))
    assert.equal("ba", log_of(function(r)
      return only({ "a", "b" }, prefer({ "c", "b" }, stagger(9) { r "a", r "b", r "c" }))
    end))
  end))

  it("is obeyed by combinators of a user's own, by ctx:order", run.virtual(function()
    assert.equal("ba", log_of(function(r)
      local children = { r "a", r "b" }
      return prefer("b", { name = "mine", children = children, connect = function(ctx)
        for _, child in ipairs(ctx:order(children)) do ctx:try(child) end
      end })
    end))
  end))

  it("fails with file and line when its function throws", run.virtual(function()
    local result = go(prefer(function() error "no taste" end, seq { a, b }))
    assert.equal("ESCRIPT", result.code)
    assert.truthy(result.message:find "%(a: seq failed: spec/algebra_spec.lua:%d+: no taste; b: ", result.message)
  end))
end)

describe("budget", function()
  it("counts tries of all that is in it, once they apply", run.virtual(function()
    local never = { name = "never", applies = function() return nil, "no" end, connect = print }
    local result = go(seq { budget { tries = 3 } (seq { never, a, retry(9, b), c }), rung("z", 0, true) })
    assert.equal("z", result.winner)
    assert.same({ 1, 2 }, { result.rungs.a.tries or 1, result.rungs.b.tries })
    assert.equal("its budget of tries is spent", result.rungs.c.skipped)
    assert.near(3, result.took, 1e-6)
  end))

  it("has them anew each time, and the least of several counts", run.virtual(function()
    local result = go(budget { tries = 5 } (retry(9, budget { tries = 2 } (seq { a, b, c }))))
    assert.same({ 3, 2 }, { result.rungs.a.tries, result.rungs.b.tries })
    assert.equal("its budget of tries is spent", result.rungs.c.skipped)
  end))

  it("bounds the time, and says what is left", run.virtual(function()
    local seen
    local result = go(budget { seconds = 2, syns = 7 } (function(ctx)
      ctx:sleep(0.5)
      seen = ctx:budget()
      ctx:sleep(9)
    end))
    assert.equal("ETIMEDOUT", result.code)
    assert.near(2, result.took, 1e-6)
    assert.same({ 7, math.huge }, { seen.syns, seen.tries })
    assert.near(1.5, seen.seconds, 1e-6)
  end))

  it("is shared by all bursts in it; what they did not send is there again", run.virtual(function()
    local granted = {}
    local means = {}
    function means.puncher(options)
      granted[#granted + 1] = options.syns or "as usual"
      return { close = function() end, seen = function() return { sent = options.syns - 5 } end }
    end
    local function burst(syns)
      return function(ctx)
        local puncher, message, code = ctx:puncher { ip = "8.8.8.8", syns = syns }
        if puncher then puncher:close() end
        return nil, message or "EONE: no", code or "EONE"
      end
    end
    local result = go(budget { syns = 100 } (seq { burst(40), burst(), burst(40), named("last", burst(9)) }), means)
    assert.same({ 40, 64, 6 }, { granted[1], granted[2], granted[3] })
    assert.same({ 5 }, { granted[4] })
    assert.equal("EONE", result.code)
    result = go(budget { syns = 0 } (burst()), means)
    assert.truthy(result.message:find("the budget of SYNs is spent", 1, true))
    assert.equal("EBUDGET", result.code)
  end))
end)

describe("hedge", function()
  -- Takes so many seconds at each of its runs, and connects unless it is told to fail.
  local function runs(...)
    local times, count = { ... }, 0
    return { name = "x", connect = function(ctx)
      count = count + 1
      local seconds = times[count]
      ctx:sleep(math.abs(seconds))
      if seconds >= 0 then return connected(ctx) end
      return nil, "EONE: no", "EONE"
    end }, function() return count end
  end

  it("starts no second run when the first is quick, whatever comes of it", run.virtual(function()
    for _, seconds in ipairs { 1, -1 } do
      local x, count = runs(seconds, 0)
      local result = go(hedge(2, x))
      assert.same({ 1, seconds > 0 }, { count(), result.pipe ~= nil })
      assert.near(1, result.took, 1e-6)
    end
  end))

  it("starts a second run beside a slow one; the first pipe of both ends all", run.virtual(function()
    local result = go(hedge(2, (runs(9, 1))))
    assert.near(3, result.took, 1e-6)
    assert.same({ "x" }, result.order)
    local x = result.rungs.x
    assert.same({ true, 2000, 1000, 1 }, { x.ok, x.started_ms, x.ms, result.open })
    assert.near(2.5, go(hedge(2, (runs(2.5, 1)))).took, 1e-6)
  end))

  it("goes on with the one when the other has failed", run.virtual(function()
    assert.near(4, go(hedge(1, (runs(4, -1)))).took, 1e-6)
    assert.near(5, go(hedge(1, (runs(-2, 4)))).took, 1e-6)
    local result = go(hedge(1, (runs(-3, -1))))
    assert.same({ "EONE", 2 }, { result.code, result.rungs.x.tries })
    assert.near(3, result.took, 1e-6)
  end))

  it("doubles whole trees, and each rung of these is reported once", run.virtual(function()
    local result = go(hedge(0.5, race { a, seq { b, c } }))
    assert.same({ "a", "b", "c" }, result.order)
    for _, name in ipairs(result.order) do assert.equal(2, result.rungs[name].tries) end
  end))
end)
