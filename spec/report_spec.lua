local cjson = require "cjson"
local context = require "p2pd.context"
local pipeline = require "p2pd.pipeline"
local report = require "p2pd.report"
local run = require "spec.support.run"
local world = require "spec.support.world"

local SECRET = "0123456789abcdef"

local function go(strategy, options)
  options = options or {}
  local own_report = options.report or report.new()
  local here = world.new { hosts = { ["8.8.8.8:4000"] = { after = 0.0123 } } }
  pipeline.run(strategy, context.new {
    peer = world.address { machine_id = "theirs" }, own = world.address { port = 5000 }, role = "connect",
    attempt = SECRET, means = here.means, report = own_report,
  })
  return own_report, here
end

local function rung(name, f)
  return { name = name, connect = f }
end

local function dials(ctx)
  return ctx:dial { ip = "8.8.8.8", port = 4000, scope = "external" }
end

local function fails(ctx)
  ctx:sleep(0.2)
  return nil, "EONE: it was told to", "EONE"
end

describe("a report", function()
  it("is a table fit for JSON", run.virtual(function()
    local both = pipeline.race { rung("b", dials), rung("c", fails) }
    local tree = pipeline.seq { rung("a", fails), both, rung("d", fails) }
    local own_report = go(tree)
    local result = cjson.decode(cjson.encode(own_report:table()))
    assert.same({
      ok = true, ms = 212.3, strategy = "b",
      rungs = {
        { name = "a", position = "1.1", ok = false, started_ms = 0, ms = 200, code = "EONE",
          message = "EONE: it was told to" },
        { name = "b", position = "1.2.1", ok = true, started_ms = 200, ms = 12.3, dials = {
          { to = "8.8.8.8:4000", scope = "external", started_ms = 200, ms = 12.3, ok = true },
        } },
        { name = "c", position = "1.2.2", ok = false, started_ms = 200, ms = 12.3, code = "ECANCELED",
          message = "ECANCELED: b connected first" },
        { name = "d", position = "1.3", ok = false, skipped = "b connected first" },
      },
    }, result)
  end))

  it("tells each rung as it ends", run.virtual(function()
    local seen = {}
    local own_report = report.new { on_event = function(event) seen[#seen + 1] = event.name end }
    local events = {}
    own_report:events(function(event) events[#events + 1] = event end)
    go(pipeline.seq { rung("a", fails), rung("b", dials), rung("c", fails) }, { report = own_report })
    assert.same({ "a", "b", "c" }, seen)
    assert.same({ event = "rung", name = "a", position = "1.1", ok = false, started_ms = 0, ms = 200, code = "EONE",
      message = "EONE: it was told to" }, events[1])
    assert.same({ event = "rung", name = "c", position = "1.3", ok = false, skipped = "b connected first" }, events[3])
    cjson.encode(events)
  end))

  it("is a tree for a person", run.virtual(function()
    local own_report = go(pipeline.seq { rung("a", fails), rung("b", function(ctx)
      ctx:note("predicted", { 40000, 40002 })
      return dials(ctx)
    end), rung("c", fails) })
    assert.equal([[
connected by b in 212.3 ms
  seq
    a      0 ms  failed after 200 ms  EONE: it was told to
    b    200 ms  connected after 12.3 ms
         200 ms  8.8.8.8:4000 (external): answered after 12.3 ms
                 predicted: 40000, 40002
    c            passed over: b connected first]], own_report:text())
    assert.equal("report (connected by b)", tostring(own_report))
  end))

  it("is readable before and after a failure", run.virtual(function()
    local own_report = report.new()
    assert.truthy(own_report:text():find("^under way"))
    local during
    go(rung("a", function(ctx)
      during = own_report:text()
      return fails(ctx)
    end), { report = own_report })
    assert.truthy(during:find("a .*is at work"))
    local sentence = "not connected, 200 ms: EONE: no way to the peer was found (a: it was told to)"
    assert.truthy(own_report:text():find(sentence, 1, true))
    assert.same({ false, "EONE" }, { own_report:table().ok, own_report:table().code })
  end))

  it("holds no secret, no control character, nothing endless", run.virtual(function()
    local hex = SECRET:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    local token
    local own_report = go(pipeline.seq {
      rung("a", function(ctx)
        local arrival = ctx:expect()
        token = arrival.token
        ctx:note("token", token)
        ctx:note("nested", { deep = { "x" .. token .. "y" } })
        ctx:note("attempt", SECRET)
        ctx:note(hex, "key")
        return nil, "EONE: with " .. token .. " in it", "EONE"
      end),
      rung("b", function() error(token) end),
      rung("c", function() return nil, "EONE: \27[2Jcleared\r\n\127", "EONE" end),
      rung("d", function() return nil, "EONE: " .. ("ä"):rep(10000), "EONE" end),
      rung("e", function() return nil, "EONE: \xff\xfe", "EONE" end),
    })
    local whole = own_report:table()
    local text = own_report:text() .. cjson.encode(whole)
    for _, secret in ipairs { token, SECRET, hex } do assert.is_nil(text:find(secret, 1, true)) end
    assert.equal("(secret)", whole.rungs[1].notes.token)
    assert.equal("x(secret)y", whole.rungs[1].notes.nested.deep[1])
    assert.equal("EONE:  [2Jcleared ", whole.rungs[3].message)
    assert.is_true(#whole.rungs[4].message < 500 and utf8.len(whole.rungs[4].message) ~= nil)
    assert.equal("EONE: ??", whole.rungs[5].message)
    assert.is_nil(own_report:text():find("[^\n\32-\126\128-\255]"))
  end))

  it("keeps notes as they were, whatever they hold", run.virtual(function()
    local endless = {}
    endless.itself = endless
    local own_report = go(rung("a", function(ctx)
      local list = { 1, 2, 3 }
      ctx:note("list", list)
      list[1] = 100
      ctx:note("sparse", { [1000000] = 1 })
      ctx:note("odd", { 0 / 0, 1 / 0, print, true })
      ctx:note("endless", endless)
      return nil, nil
    end))
    local notes = cjson.decode(cjson.encode(own_report:table())).rungs[1].notes
    assert.same({ 1, 2, 3 }, notes.list)
    assert.same({ ["1000000"] = 1 }, notes.sparse)
    assert.is_true(notes.odd[4])
    assert.equal("…", notes.endless.itself.itself.itself.itself)
    assert.equal("EUNREACHABLE: a found no way", own_report:table().rungs[1].message)
  end))

  it("has its listeners' errors told, not the attempt broken", run.virtual(function()
    local own_report = report.new { on_event = function() error({}) end }
    local core = require "p2pd.core"
    local failures = {}
    local spawn = core.task.spawn
    local task = require "p2pd.task"
    task.spawn = function(f, ...) failures[#failures + 1] = f return spawn(function() end, ...) end
    go(rung("a", dials), { report = own_report })
    task.spawn = spawn
    assert.equal("a", own_report.winner)
    assert.same({ error }, failures)
  end))

  it("checks what it is given", function()
    for _, f in ipairs {
      function() report.new { on_events = print } end, function() report.new { on_event = 3 } end,
      function() report.new():events(3) end,
    } do
      local ok, err = pcall(f)
      assert.is_false(ok)
      assert.truthy(err:find("report_spec.lua:", 1, true))
    end
  end)
end)
