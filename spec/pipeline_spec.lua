local context = require "p2pd.context"
local pipeline = require "p2pd.pipeline"
local report = require "p2pd.report"
local run = require "spec.support.run"
local task = require "p2pd.task"
local world = require "spec.support.world"

local seq, race, stagger = pipeline.seq, pipeline.race, pipeline.stagger
local timeout, retry, when = pipeline.timeout, pipeline.retry, pipeline.when
local only, prefer, budget = pipeline.only, pipeline.prefer, pipeline.budget
local hedge, named = pipeline.hedge, pipeline.named

-- An attempt on a world of its own: its context, the world, and its report.
local function attempt(options)
  options = options or {}
  local here = options.world or world.new()
  local own_report = report.new()
  local ctx = context.new {
    peer = world.address { machine_id = "theirs" }, own = world.address { port = 5000, external = "9.9.9.9" },
    role = options.role or "connect", attempt = ("a"):rep(16), means = here.means, report = own_report,
    deadline = options.deadline,
  }
  return ctx, here, own_report
end

-- A rung that takes some seconds and then connects, fails, or throws.
local function rung(name, seconds, outcome)
  return {
    name = name,
    connect = function(ctx)
      ctx:sleep(seconds)
      if outcome == "throw" then error("broken on purpose") end
      if outcome then return nil, outcome .. ": it was told to", outcome end
      return ctx:dial { ip = "8.8.8.8", port = 4000 }
    end,
  }
end

local function reachable()
  return world.new { hosts = { ["8.8.8.8:4000"] = { after = 0 } } }
end

local function go(strategy, options)
  options = options or {}
  options.world = options.world or reachable()
  local ctx, here, own_report = attempt(options)
  local started = task.now()
  local pipe, message, code = pipeline.run(strategy, ctx)
  return { pipe = pipe, message = message, code = code, world = here, report = own_report, took = task.now() - started }
end

local function rung_of(result, name)
  for _, entry in ipairs(result.report:table().rungs) do
    if entry.name == name then return entry end
  end
end

local function error_of(f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  return err
end

local this_file = "pipeline_spec.lua:"

describe("arguments", function()
  it("are refused at the caller's line", function()
    local cases = {
      [function() local _ = seq {} end] = "empty",
      [function() local _ = seq { 3 } end] = "a strategy is a table, not a number",
      [function() local _ = race { { connect = print } } end] = "needs a name",
      [function() local _ = race { { name = "x" } } end] = "neither connect nor respond",
      [function() local _ = race { { name = "x", conect = print } } end] = "unknown field, 'conect'",
      [function() local _ = race { { name = "x", connect = 1 } } end] = "its connect is a number",
      [function() local _ = seq { nil, rung("x", 0) } end] = "holes",
      [function() local _ = seq(rung("x", 0)) end] = "in braces",
      [function() local _ = stagger("x") end] = "number of seconds",
      [function() local _ = stagger(-1) end] = "number of seconds",
      [function() local _ = stagger(1) {} end] = "empty",
      [function() local _ = timeout(0 / 0, rung("x", 0)) end] = "number of seconds",
      [function() local _ = timeout(1) end] = "not a nil",
      [function() local _ = retry(0, rung("x", 0)) end] = "whole number",
      [function() local _ = retry(1.5, rung("x", 0)) end] = "whole number",
      [function() local _ = when(true, rung("x", 0)) end] = "a predicate is a function",
      [function() local _ = seq { "no-such" } end] = "there is no strategy 'no-such'",
      [function() pipeline.restrict(3, {}) end] = "a strategy is a table",
      [function() pipeline.load(3) end] = "is a string",
    }
    for f, text in pairs(cases) do
      local err = error_of(f)
      assert.truthy(err:find(text, 1, true), err)
      assert.truthy(err:find(this_file, 1, true), err)
    end
  end)

  it("of a ctx are refused at the strategy's line", run.virtual(function()
    local errors = {}
    local function try(f) errors[#errors + 1] = error_of(f) end
    go { name = "x", connect = function(ctx)
      try(function() ctx:dial { ip = "8.8.8.8", port = 4000, prot = 1 } end)
      try(function() ctx:dial { port = 4000 } end)
      try(function() ctx:dial { ip = "8.8.8.8", port = 0 } end)
      try(function() ctx:dial { ip = "8.8.8.8", port = 1, timeout = -1 } end)
      try(function() ctx:dial { ip = "8.8.8.8", port = 1, token = ("0"):rep(32) } end)
      try(function() ctx:sleep() end)
      try(function() ctx:spawn(3) end)
      try(function() ctx:note(3, 3) end)
      try(function() ctx:request(3) end)
      try(function() ctx:try { name = "y" } end)
      try(function() ctx.now() end)
    end }
    assert.equal(11, #errors)
    for _, err in ipairs(errors) do assert.truthy(err:find(this_file, 1, true), err) end
  end))
end)

describe("seq", function()
  it("returns the first that connects, after those before it have failed", run.virtual(function()
    local result = go(seq { rung("a", 1, "EONE"), rung("b", 2), rung("c", 3) })
    assert.near(3, result.took, 1e-6)
    assert.equal(1, result.world:open_count())
    assert.is_false(result.pipe.closed)
    local b, c = rung_of(result, "b"), rung_of(result, "c")
    assert.same({ true, 1000, 2000 }, { b.ok, b.started_ms, b.ms })
    assert.equal("b connected first", c.skipped)
    assert.equal("EONE", rung_of(result, "a").code)
  end))
end)

describe("race", function()
  it("returns the fastest, and cancels the others", run.virtual(function()
    local result = go(race { rung("a", 3), rung("b", 1, "EONE"), rung("c", 2) })
    assert.near(2, result.took, 1e-6)
    assert.equal(1, result.world:open_count())
    assert.equal("ECANCELED: c connected first", rung_of(result, "a").message)
    assert.equal("ECANCELED", rung_of(result, "a").code)
    assert.same("c", result.report.winner)
  end))

  it("keeps one pipe when two come at the same moment", run.virtual(function()
    local result = go(race { rung("a", 1), rung("b", 1) })
    assert.equal(1, result.world:open_count())
    local oks = 0
    for _, entry in ipairs(result.report:table().rungs) do oks = oks + (entry.ok and 1 or 0) end
    assert.equal(1, oks)
  end))

  it("fails when all have", run.virtual(function()
    local result = go(race { rung("a", 3, "EONE"), rung("b", 1, "ETWO"), rung("c", 2, "EONE") })
    assert.is_nil(result.pipe)
    assert.equal("EUNREACHABLE", result.code)
    assert.equal("EUNREACHABLE: no way to the peer was found (a: it was told to; b: it was told to; c: it was told to)",
      result.message)
  end))

  it("fails with the code that all agree on", run.virtual(function()
    assert.equal("EPEER", go(race { rung("a", 3, "EPEER"), rung("b", 1, "EPEER") }).code)
  end))
end)

describe("stagger", function()
  it("starts one after another, at once when the one before has failed", run.virtual(function()
    local result = go(stagger(2) { rung("a", 5, "EONE"), rung("b", 0.5, "ETWO"), rung("c", 9, "EONE"), rung("d", 1) })
    assert.same({ 0, 2000, 2500, 4500 }, { rung_of(result, "a").started_ms, rung_of(result, "b").started_ms,
      rung_of(result, "c").started_ms, rung_of(result, "d").started_ms })
    assert.near(5.5, result.took, 1e-6)
  end))

  it("asks a function for the time", run.virtual(function()
    local result = go(stagger(function(ctx) return ctx.role == "connect" and 0 or 9 end) { rung("a", 2), rung("b", 1) })
    assert.equal("b", result.report.winner)
  end))

  it("goes on at once past what does not apply", run.virtual(function()
    local result = go(stagger(2) { when(function() return nil, "no reason" end, rung("a", 1)), rung("b", 1) })
    assert.near(1, result.took, 1e-6)
    assert.equal("no reason", rung_of(result, "a").skipped)
  end))
end)

describe("timeout", function()
  it("ends what takes longer", run.virtual(function()
    local result = go(seq { timeout(1, seq { rung("a", 3), rung("n", 1) }), rung("b", 1) })
    assert.equal("b", result.report.winner)
    assert.near(2, result.took, 1e-6)
    local message = rung_of(result, "a").message
    assert.truthy(message:find "^ETIMEDOUT: it took longer than 1 s, at spec/pipeline_spec.lua:%d+$", message)
    assert.equal(1000, rung_of(result, "a").ms)
    assert.equal(1, result.world:open_count())
  end))

  it("of the strategy itself counts too, and what remains is told", run.virtual(function()
    local remaining
    local slow = { name = "slow", timeout = 2, connect = function(ctx)
      remaining = ctx:remaining()
      ctx:sleep(5)
    end }
    local result = go(timeout(3, slow))
    assert.near(2, result.took, 1e-6)
    assert.near(2, remaining, 1e-6)
    assert.equal("ETIMEDOUT", result.code)
  end))

  it("of the attempt ends all", run.virtual(function()
    local result = go(race { rung("a", 9), rung("b", 8), rung("c", 1, "EONE") }, { deadline = task.now() + 2 })
    assert.equal("ETIMEDOUT", result.code)
    assert.near(2, result.took, 1e-6)
    assert.equal(0, result.world:open_count())
    assert.equal("ETIMEDOUT", rung_of(result, "b").code)
    assert.equal("ETIMEDOUT: no way to the peer was found (a: it took longer than 2 s; b: it took longer than 2 s; "
      .. "c: it was told to)", (result.message:gsub(", at [^;]+", "")))
  end))
end)

describe("retry", function()
  it("tries again, and reports the rung once", run.virtual(function()
    local tries = 0
    local third = { name = "third", connect = function(ctx)
      tries = tries + 1
      ctx:sleep(1)
      if tries < 3 then return nil, "EONE: not yet", "EONE" end
      return ctx:dial { ip = "8.8.8.8", port = 4000 }
    end }
    local result = go(retry(5, third))
    assert.near(3, result.took, 1e-6)
    local rungs = result.report:table().rungs
    assert.equal(1, #rungs)
    assert.same({ true, 3 }, { rungs[1].ok, rungs[1].tries })
  end))

  it("gives up after so many", run.virtual(function()
    local result = go(retry(3, rung("a", 1, "EONE")))
    assert.near(3, result.took, 1e-6)
    assert.equal("EONE", result.code)
  end))
end)

describe("when", function()
  it("passes over all rungs in it, with the reason", run.virtual(function()
    local result = go(when(function() return false, "it is Sunday" end, seq { rung("a", 1), rung("b", 1) }))
    assert.equal("EUNREACHABLE: no strategy applies (a: it is Sunday; b: it is Sunday)", result.message)
    assert.equal("it is Sunday", rung_of(result, "b").skipped)
    assert.is_nil(rung_of(result, "b").ms)
  end))
end)

describe("a strategy", function()
  it("that throws fails alone, with its message and traceback", run.virtual(function()
    local result = go(race { rung("a", 1, "throw"), rung("b", 2) })
    assert.equal("b", result.report.winner)
    local a = rung_of(result, "a")
    assert.equal("ESCRIPT", a.code)
    assert.truthy(a.message:find("pipeline_spec.lua:%d+: broken on purpose"))
    assert.truthy(a.traceback:find("stack traceback", 1, true))
  end))

  it("that throws in applies, in a task of its own, or a table, fails alone", run.virtual(function()
    local result = go(seq {
      { name = "a", applies = function() error("no") end, connect = print },
      { name = "b", connect = function(ctx)
        ctx:spawn(function() ctx:sleep(1) error("in a task") end)
        ctx:sleep(100)
      end },
      { name = "c", connect = function() error({ code = 1 }) end },
      { name = "d", connect = function() error(setmetatable({}, { __tostring = function() return "pretty" end })) end },
      { name = "e", connect = function() coroutine.yield() end },
      rung("z", 0),
    })
    assert.equal("z", result.report.winner)
    assert.near(1, result.took, 1e-6)
    for _, name in ipairs { "a", "b", "c", "d", "e" } do assert.equal("ESCRIPT", rung_of(result, name).code) end
    assert.truthy(rung_of(result, "b").message:find("in a task", 1, true))
    assert.truthy(rung_of(result, "d").message:find "^ESCRIPT: spec/pipeline_spec.lua:%d+: pretty$")
  end))

  it("must return a pipe of its own ctx", run.virtual(function()
    local stray = world.new():pipe("elsewhere")
    local result = go(seq {
      { name = "a", connect = function() return stray end },
      { name = "b", connect = function() return true end },
      { name = "c", connect = function(ctx)
        local pipe = ctx:dial { ip = "8.8.8.8", port = 4000 }
        return { pipe }
      end },
    })
    assert.is_nil(result.pipe)
    assert.equal("ESCRIPT", result.code)
    assert.equal(0, result.world:open_count())
  end))

  it("may be made of others by a script", run.virtual(function()
    local a, b = rung("a", 1, "EONE"), rung("b", 1)
    local backwards = { name = "backwards", children = { a, b }, connect = function(ctx)
      return ctx:try(b) or ctx:try(a)
    end }
    local undeclared = { name = "undeclared", connect = function(ctx) return ctx:try(backwards) end }
    local result = go(undeclared)
    assert.equal("b", result.report.winner)
    assert.equal("b connected first", rung_of(result, "a").skipped)
    assert.equal(1, result.world:open_count())
  end))

  it("has what it opened closed, in whatever way it ends", run.virtual(function()
    local function opens(how)
      return { name = "opens", timeout = 1, connect = function(ctx)
        ctx:dial { ip = "8.8.8.8", port = 4000 }
        ctx:expect()
        ctx:spawn(function() while true do ctx:dial { ip = "8.8.8.8", port = 4000 } ctx:sleep(0.1) end end)
        ctx:sleep(0.5)
        if how == "throw" then error("thrown") end
        if how == "wait" then ctx:sleep(10) end
        if how == "pipe" then return (ctx:dial { ip = "8.8.8.8", port = 4000 }) end
        return nil, how
      end }
    end
    for _, how in ipairs { "throw", "wait", "fail", "pipe" } do
      local result = go(opens(how))
      assert.equal(how == "pipe" and 1 or 0, result.world:open_count())
      assert.is_true(result.world.opened > 5)
    end
  end))

  it("has closed what comes too late for it", run.virtual(function()
    local here = reachable()
    function here.means.dial()
      pcall(task.sleep, 10)
      return here:pipe("late")
    end
    local late
    local result = go({ name = "a", timeout = 1, connect = function(ctx)
      late = table.pack(ctx:dial { ip = "8.8.8.8", port = 4000 })
    end }, { world = here })
    assert.equal("ETIMEDOUT", result.code)
    assert.same({ "ECLOSED", 1, 0 }, { late[3], here.opened, here:open_count() })
  end))

  it("cannot use its ctx after its end", run.virtual(function()
    local kept
    go { name = "a", connect = function(ctx) kept = ctx end }
    for _, answer in ipairs {
      { kept:dial { ip = "8.8.8.8", port = 4000 } }, { kept:expect() }, { kept:send {} }, { kept:request {} },
      { kept:try(rung("b", 0)) },
    } do
      assert.equal("ECLOSED", answer[3])
    end
    error_of(kept.spawn, kept, print)
  end))

  it("that is asked dials the sender's addresses and no others", run.virtual(function()
    local ctx, here = attempt { role = "respond", world = reachable() }
    local codes = {}
    local pipe = pipeline.respond({ name = "x", respond = function(inner)
      for _, ip in ipairs { "8.8.4.4", "192.168.1.5", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "x" } do
        local _, _, code = inner:dial { ip = ip, port = 4000 }
        codes[#codes + 1] = code
      end
      return inner:dial { ip = "8.8.8.8", port = 4000, token = ("0a"):rep(16) }
    end }, ctx, {})
    assert.same({ "EACCES", "EACCES", "EACCES", "EACCES", "EACCES", "EACCES", "EINVAL" }, codes)
    assert.equal(1, #here.dialed)
    assert.same({ "server", ("\x0a"):rep(16) }, { here.dialed[1].role, here.dialed[1].token })
    pipe:close()
  end))

  it("that cannot answer has the asking side told", run.virtual(function()
    local function refusal(respond)
      local ctx, here = attempt { role = "respond" }
      local message = {}
      assert.is_nil(pipeline.respond({ name = "x", timeout = 1, respond = respond }, ctx, message))
      assert.equal(1, #here.replies)
      assert.equal(message, here.replies[1].to)
      return here.replies[1].fields
    end
    assert.same({ kind = "refused", code = "EONE", message = "cannot" },
      refusal(function() return nil, "EONE: cannot", "EONE" end))
    assert.same({ kind = "refused", code = "ESCRIPT", message = "the strategy failed" },
      refusal(function() error("a secret place") end))
    assert.equal("ETIMEDOUT", refusal(function(ctx) ctx:sleep(5) end).code)
    assert.same({ kind = "mine" }, refusal(function(ctx, message)
      ctx:reply(message, { kind = "mine" })
    end))
  end))
end)

describe("an attempt", function()
  it("that is cancelled closes all and reports all", run.virtual(function()
    local ctx, here, own_report = attempt { world = reachable() }
    local holds = { name = "holds", connect = function(inner)
      inner:dial { ip = "8.8.8.8", port = 4000 }
      inner:sleep(100)
    end }
    local main = task.spawn(pipeline.run, race { seq { holds, rung("never", 1) }, rung("a", 50) }, ctx):observe()
    task.sleep(1)
    assert.equal(1, here:open_count())
    main:cancel()
    main:wait()
    assert.equal("cancelled", main:status())
    assert.equal(0, here:open_count())
    local rungs = own_report:table().rungs
    assert.equal("ECANCELED: the attempt was cancelled", rungs[1].message)
    assert.equal("the attempt ended before its turn", rungs[2].skipped)
    assert.equal("ECANCELED", rungs[3].code)
  end))

  it("serves once", run.virtual(function()
    local ctx = attempt()
    pipeline.run(rung("a", 0, "EONE"), ctx)
    assert.truthy(error_of(pipeline.run, rung("a", 0, "EONE"), ctx):find("serves one attempt", 1, true))
  end))

  it("survives a strategy that swallows its cancellation or takes its time to close", run.virtual(function()
    local swallows = { name = "swallows", connect = function(ctx)
      for _ = 1, 3 do pcall(ctx.sleep, ctx, 100) end
      return ctx:dial { ip = "8.8.8.8", port = 4000 }
    end }
    local lingers = { name = "lingers", connect = function(ctx)
      local pipe = ctx:dial { ip = "8.8.8.8", port = 4000 }
      local _ <close> = setmetatable({}, { __close = function() ctx:sleep(1) assert(not pipe.closed) end })
      ctx:sleep(100)
    end }
    local result = go(race { swallows, lingers, rung("a", 1) })
    assert.equal("a", result.report.winner)
    assert.near(2, result.took, 1e-6)
    assert.equal(1, result.world:open_count())
  end))
end)

describe("loading", function()
  local folder = os.tmpname()
  os.remove(folder)

  local function file(text)
    local path = folder .. ".lua"
    local out = assert(io.open(path, "w"))
    out:write(text)
    out:close()
    return path
  end

  after_each(function() os.remove(folder .. ".lua") end)

  it("finds the built-in ones by name and module", function()
    assert.equal("direct", pipeline.load("direct").name)
    assert.equal(pipeline.load("direct"), pipeline.load("p2pd.strategies.direct"))
    local _, message, code = pipeline.load("bogus")
    assert.equal("EINVAL", code)
    assert.truthy(message:find("there are default, direct, ", 1, true))
    assert.equal("EINVAL", select(3, pipeline.load("no.such.module")))
    assert.equal("EINVAL", select(3, pipeline.load("string.format")))
  end)

  it("reads a user's file", function()
    local path = file 'return { name = "mine", connect = function() end }'
    assert.equal("mine", pipeline.load(path).name)
  end)

  it("says file and line of what is wrong in it", function()
    for text, expected in pairs {
      ["return {\n  name = \n}"] = ".lua:3: ",
      ["local x = nil\nx.y = 1"] = ".lua:2: ",
      ["return 3"] = "a strategy is a table, not a number",
      ['return { name = "x" }'] = "neither connect nor respond",
      [string.dump(function() end)] = "binary chunk",
    } do
      local path = file(text)
      local strategy, message, code = pipeline.load(path)
      assert.is_nil(strategy)
      assert.equal("EINVAL", code)
      assert.truthy(message:find(path, 1, true), message)
      assert.truthy(message:find(expected, 1, true), message)
    end
    assert.equal("ENOENT", select(3, pipeline.load("./no-such-file.lua")))
    assert.is_nil((pipeline.load("./")))
  end)

  it("restricts the default pipeline, in its own order", function()
    local function names(strategy)
      if not strategy.children then return strategy.name end
      local list = {}
      for i, child in ipairs(strategy.children) do list[i] = names(child) end
      return table.concat(list, " ")
    end
    local default = pipeline.default()
    assert.equal("direct reverse punch relay", names(default))
    assert.equal("direct", names(pipeline.restrict(default, { "direct" })))
    local both = pipeline.restrict(default, { "reverse", "p2pd.strategies.direct", "reverse" })
    assert.equal("direct reverse", names(both))
    local path = file 'return { name = "mine", connect = function() end }'
    assert.equal("direct mine", names(pipeline.restrict(default, { "direct", path })))
    assert.equal("mine", pipeline.restrict(default, { path }).name)
    for _, list in ipairs { {}, { "direct", "punhc" } } do
      local restricted, message, code = pipeline.restrict(default, list)
      assert.is_nil(restricted)
      assert.equal("EINVAL", code)
      assert.is_string(message)
    end
  end)

  it("finds who answers a message", function()
    local answers = { name = "b", respond = print }
    local tree = seq { rung("a", 1), retry(2, race { answers, rung("c", 1) }) }
    assert.equal(answers, pipeline.responder(tree, "b"))
    assert.is_nil(pipeline.responder(tree, "a"))
    assert.is_nil(pipeline.responder(tree, "zzz"))
    assert.equal("reverse", pipeline.responder(pipeline.default(), "reverse").name)
    assert.is_nil(pipeline.responder(pipeline.default(), "direct"))
  end)
end)

-- Random trees ----------------------------------------------------------------------------------------------------

-- What a tree does, worked out without tasks: a function of the time that it starts at, giving the time that it ends
-- at, the winning rung, and whether it did not apply.
local model = {}

function model.leaf(tree, start)
  if tree.outcome == "skip" then return start, nil, true end
  local connects = tree.outcome == "connect" or tree.outcome == "later" and start >= tree.from
  local ended = start + tree.delay
  if tree.limit and tree.delay > tree.limit then return start + tree.limit end
  return ended, connects and tree or nil
end

local function predict(tree, start)
  return model[tree.kind](tree, start)
end

function model.seq(tree, start)
  local skipped = true
  for _, child in ipairs(tree) do
    local winner, passed
    start, winner, passed = predict(child, start)
    if winner then return start, winner end
    skipped = skipped and passed
  end
  return start, nil, skipped
end

function model.stagger(tree, start)
  local best, winner, last, skipped = math.huge, nil, start, true
  for _, child in ipairs(tree) do
    if start >= best then break end
    local ended, won, passed = predict(child, start)
    if won and ended < best then best, winner = ended, won end
    last, skipped = math.max(last, ended), skipped and passed
    start = won and start + tree.delay or math.min(start + tree.delay, ended)
  end
  if winner then return best, winner end
  return last, nil, skipped
end

model.race = model.stagger

function model.timeout(tree, start)
  local ended, winner, skipped = predict(tree[1], start)
  if ended - start > tree.delay then return start + tree.delay end
  return ended, winner, skipped
end

function model.retry(tree, start)
  for tried = 1, tree.times do
    local winner, skipped
    start, winner, skipped = predict(tree[1], start)
    if winner then return start, winner end
    if skipped then return start, nil, tried == 1 end
  end
  return start
end

function model.when(tree, start)
  if not tree.applies then return start, nil, true end
  return predict(tree[1], start)
end

function model.named(tree, start)
  return predict(tree[1], start)
end

model.budget = model.timeout

function model.hedge(tree, start)
  local ended, winner, skipped = predict(tree[1], start)
  if ended <= start + tree.delay then return ended, winner, skipped end
  local again, second = predict(tree[1], start + tree.delay)
  if winner and (not second or ended <= again) then return ended, winner end
  if second then return again, second end
  return math.max(ended, again)
end

-- A tree without only and prefer is what the model knows: what is left of it, and in the wanted order.

local function pruned(tree, wanted)
  if tree.kind == "leaf" then return (not wanted or wanted[tree.name]) and tree or nil end
  if tree.kind == "only" then return pruned(pruned(tree[1], tree.wanted), wanted) end
  local copy = {}
  for key, value in pairs(tree) do
    if type(key) == "string" then copy[key] = value end
  end
  for _, child in ipairs(tree) do copy[#copy + 1] = pruned(child, wanted) end
  return #copy > 0 and copy or nil
end

local function has(tree, wanted)
  if tree.kind == "leaf" then return wanted[tree.name] end
  for _, child in ipairs(tree) do
    if has(child, wanted) then return true end
  end
end

local function reorder(tree, wanted)
  local first, later = {}, {}
  for i, child in ipairs(tree) do
    reorder(child, wanted)
    table.insert(has(child, wanted) and first or later, child)
    tree[i] = nil
  end
  table.move(first, 1, #first, 1, tree)
  table.move(later, 1, #later, #first + 1, tree)
end

local function ordered(tree)
  for i, child in ipairs(tree) do tree[i] = ordered(child) end
  if tree.kind ~= "prefer" then return tree end
  reorder(tree[1], tree.wanted)
  return tree[1]
end

local function leaves_of(tree, leaves)
  if tree.kind == "leaf" then leaves[#leaves + 1] = tree end
  for _, child in ipairs(tree) do leaves_of(child, leaves) end
  return leaves
end

-- Some of the leaves in a tree, at least one.
local function choose(tree)
  local leaves, wanted = leaves_of(pruned(tree), {}), {}
  wanted[leaves[math.random(#leaves)].name] = true
  for _, leaf in ipairs(leaves) do
    if math.random() < 0.4 then wanted[leaf.name] = true end
  end
  return wanted
end

local outcomes = { "connect", "fail", "fail", "fail", "throw", "skip", "later", "fail" }

local function random_tree(depth, leaves, slow)
  local kinds = {
    "seq", "race", "stagger", "timeout", "retry", "when", "only", "prefer", "budget", "hedge", "named",
    "seq", "stagger",
  }
  if depth == 0 or math.random() < 0.25 then
    local leaf = {
      kind = "leaf", outcome = outcomes[math.random(#outcomes)], delay = math.random() * 3, from = math.random() * 6,
      limit = math.random() < 0.2 and math.random() * 3 or nil, extras = math.random(0, 3),
      habits = math.random(0, 15), slow = slow and math.random() < 0.3 and math.random() or nil,
      name = "leaf" .. #leaves + 1,
    }
    leaves[#leaves + 1] = leaf
    return leaf
  end
  local tree = {
    kind = kinds[math.random(#kinds)], delay = math.random() * 2, times = math.random(3), applies = math.random() < 0.8,
  }
  if tree.kind == "race" then tree.delay = 0 end
  local several = tree.kind == "seq" or tree.kind == "race" or tree.kind == "stagger"
  for i = 1, several and math.random(4) or 1 do tree[i] = random_tree(depth - 1, leaves, slow) end
  tree.wanted = (tree.kind == "only" or tree.kind == "prefer") and choose(tree[1]) or nil
  tree.tries = slow and math.random(4) or nil
  return tree
end

-- Opens what it does not return, starts tasks, swallows cancellations, and closes slowly, as its tree's dice say.
local function make_leaf(tree)
  local function misbehave(ctx)
    for _ = 1, tree.extras do assert(ctx:dial { ip = "8.8.8.8", port = 4000 }) end
    if tree.habits & 1 ~= 0 then assert(ctx:expect()) end
    if tree.habits & 2 ~= 0 then
      ctx:spawn(function()
        while true do
          ctx:sleep(0.4)
          ctx:dial { ip = "8.8.8.8", port = 4000 }
        end
      end)
    end
  end
  local function connect(ctx)
    misbehave(ctx)
    local began = ctx:now()
    local _ <close> = setmetatable({}, { __close = function() if tree.slow then ctx:sleep(tree.slow) end end })
    if tree.habits & 4 ~= 0 then
      pcall(ctx.sleep, ctx, tree.delay)
    end
    ctx:sleep(math.max(0, tree.delay - (ctx:now() - began)))
    if tree.outcome == "throw" then error("thrown") end
    if tree.outcome == "connect" or tree.outcome == "later" and began - tree.zero() >= tree.from then
      return ctx:dial { ip = "8.8.8.8", port = 4000 }
    end
    return nil, "EONE: it was told to", "EONE"
  end
  if not tree.limit and tree.outcome ~= "skip" then return named(tree.name, connect) end
  return {
    name = tree.name, timeout = tree.limit, connect = connect,
    applies = function() return tree.outcome ~= "skip", "skipped" end,
  }
end

local function make(tree, zero)
  if tree.kind == "leaf" then
    tree.zero = zero
    return make_leaf(tree)
  end
  local children = {}
  for i, child in ipairs(tree) do children[i] = make(child, zero) end
  if tree.kind == "seq" then return seq(children) end
  if tree.kind == "race" then return race(children) end
  if tree.kind == "stagger" then return stagger(tree.delay)(children) end
  if tree.kind == "timeout" then return timeout(tree.delay, children[1]) end
  if tree.kind == "retry" then return retry(tree.times, children[1]) end
  if tree.kind == "budget" then return budget { seconds = tree.delay, tries = tree.tries } (children[1]) end
  if tree.kind == "hedge" then return hedge(tree.delay, children[1]) end
  if tree.kind == "named" then return named("a-name", children[1]) end
  if tree.wanted then
    local names = {}
    for name in pairs(tree.wanted) do names[#names + 1] = name end
    if tree.kind == "only" then return only(names, children[1]) end
    local test = tree.applies and names or function(_, strategy) return tree.wanted[strategy.name] end
    return prefer(test, children[1])
  end
  return when(function() return tree.applies, "not wanted" end, children[1])
end

local function check_report(own_report, leaves, events, winner)
  local seen, oks, number = {}, 0, 0
  for _, entry in ipairs(own_report:table().rungs) do
    assert.is_nil(seen[entry.name], entry.name .. " is reported twice")
    seen[entry.name], number = entry, number + 1
    if entry.ok then
      oks = oks + 1
      assert.equal(winner, entry.name)
    end
    assert.is_true(entry.ok or entry.skipped ~= nil or entry.code ~= nil and entry.message ~= nil)
    assert.is_true(events[entry.name] ~= nil, "no event of " .. entry.name)
    assert.equal(entry.tries or 1, math.max(1, events[entry.name]))
  end
  assert.equal(#leaves, number)
  assert.equal(winner and 1 or 0, oks)
  for _, leaf in ipairs(leaves) do assert.truthy(seen[leaf.name]) end
end

-- Runs one random tree. `cancel_at` (or nil) is when the attempt is cancelled.
local function run_tree(seed, how)
  math.randomseed(seed)
  local tree = random_tree(math.random(0, 4), {}, how == "slow")
  local cancel_at = how == "cancel" and math.random() * 6 or nil
  local zero
  local strategy = make(tree, function() return zero end)
  local ctx, here, own_report = attempt { world = reachable() }
  local events = {}
  own_report:events(function(event) events[event.name] = (events[event.name] or 0) + 1 end)
  zero = task.now()
  local plain = ordered(pruned(tree))
  local leaves = leaves_of(plain, {})
  local ended, winner = predict(plain, 0)
  local main = task.spawn(function()
    local pipe, message, code = pipeline.run(strategy, ctx)
    return pipe, message, code, task.now() - zero
  end)
  if cancel_at then
    task.sleep(cancel_at)
    main:cancel()
  end
  local pipe, message, code, took = main:wait()
  if main:status() == "cancelled" then
    assert.equal("cancel", how)
    assert.equal(0, here:open_count())
    check_report(own_report, leaves, events, nil)
  else
    if how ~= "slow" then
      assert.near(ended, took, 1e-5)
      assert.equal(winner and winner.name, own_report.winner)
    end
    assert.equal(pipe and 1 or 0, here:open_count())
    assert.equal(pipe == nil, code ~= nil)
    assert.is_true(pipe ~= nil or message:sub(1, #code + 2) == code .. ": ")
    check_report(own_report, leaves, events, own_report.winner)
  end
  assert.equal(1, #task.list())
end

describe("random trees", function()
  local first = tonumber(os.getenv("P2PD_SEED")) or os.time() % 1000000 * 1000
  local count = tonumber(os.getenv("P2PD_TREES")) or 1000

  for how, promise in pairs {
    plain = "return what the model says, leak nothing, report each rung once",
    cancel = "leak nothing when they are cancelled at a random time",
    slow = "leak nothing when rungs take their time to close",
  } do
    it(promise, run.virtual(function()
      for seed = first, first + count - 1 do
        local ok, err = xpcall(run_tree, function(err)
          if task.is_cancelled(err) then return err end
          return debug.traceback(type(err) == "table" and tostring(err.message) or tostring(err), 2)
        end, seed, how)
        if not ok and task.is_cancelled(err) then error(err, 0) end
        if not ok then error(("P2PD_SEED=%d P2PD_TREES=1 (%s): %s"):format(seed, how, err), 0) end
      end
    end))
  end
end)
