local pipeline = require "p2pd.pipeline"
local run = require "spec.support.run"
local task = require "p2pd.task"
local world = require "spec.support.world"

local attempt, reachable = world.attempt, world.reachable
local seq, race, stagger = pipeline.seq, pipeline.race, pipeline.stagger
local timeout, retry, when = pipeline.timeout, pipeline.retry, pipeline.when

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
