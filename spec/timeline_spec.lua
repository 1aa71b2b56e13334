-- A timeline: what it makes of a report, as lanes, as text, and as a picture.
local cjson = require "cjson"
local context = require "p2pd.context"
local models = require "p2pd.timeline_model"
local pipeline = require "p2pd.pipeline"
local report = require "p2pd.report"
local run = require "spec.support.run"
local task = require "p2pd.task"
local timeline = require "p2pd.timeline"
local world = require "spec.support.world"
local xml = require "spec.support.xml"

local WHY = "neither router lets anybody in uninvited"

-- A report as its table, in which everything happens once.
local function told()
  local function event(ms, what, code)
    return { ms = ms, what = what, local_port = 40001, remote_port = 40002, code = code }
  end
  return {
    ok = true, ms = 400, strategy = "punch", why = WHY,
    rungs = {
      { name = "direct", position = "1.1", ok = false, skipped = "the router lets nobody in" },
      { name = "mine", position = "1.2", ok = false, started_ms = 0, ms = 100, code = "ECONNREFUSED",
        message = "ECONNREFUSED: refused", dials = {
          { to = "192.0.2.7:4000", scope = "external", started_ms = 0, ms = 50, ok = false, code = "ECONNREFUSED" },
          { to = "192.0.2.8:4000", started_ms = 50, ok = false, code = "ECANCELED" },
        } },
      { name = "punch", position = "1.3", ok = true, started_ms = 100, ms = 300,
        messages = { { ms = 100, what = "request" }, { ms = 140, what = "reply" } },
        bursts = { { name = "ipv4 try 1", to = "30.2.1.2", ok = true, started_ms = 200, ms = 200, sent = 2, refused = 1,
          unreachable = 0, connected = 1, accepted = 0, marks = {
            event(200, "sent"), event(200.5, "sent"), event(300, "refused", "ECONNREFUSED"), event(399, "connected"),
          } } } },
      { name = "relay", position = "1.4", ok = false, started_ms = 200, ms = 200, code = "ECANCELED",
        message = "ECANCELED: punch connected first" },
    },
  }
end

local function go(strategy, options)
  options = options or {}
  local own_report, here = report.new(), world.new { hosts = { ["8.8.8.8:4000"] = { after = 0.02 } } }
  for name, means in pairs(options.means or {}) do here.means[name] = means end
  pipeline.run(strategy, context.new {
    peer = world.address { machine_id = "theirs" }, own = world.address { port = 5000 }, role = "connect",
    means = here.means, report = own_report, deadline = options.deadline,
  })
  return own_report
end

-- A mean that gives punchers which saw this, counted from their opening on.
local function punchers(events, unlisted)
  return function()
    local began = task.now()
    return {
      close = function() end,
      seen = function()
        return { sent = #events, connected = 1, begun = began, events = events, unlisted = unlisted or 0 }
      end,
    }
  end
end

local function rung(name, f)
  return { name = name, connect = f }
end

describe("the report of a burst", function()
  it("has what the puncher saw, in times of the attempt", run.virtual(function()
    local events = {
      { ms = 0, what = "sent", local_port = 1, remote_port = 2 },
      { ms = 1.26, what = "refused", local_port = 1, remote_port = 2, code = "ECONNREFUSED" },
    }
    local during
    local own_report
    own_report = go({ name = "mine", connect = function(ctx)
      ctx:sleep(0.1)
      local named = ctx:puncher { ip = "8.8.8.8", name = "ipv4 try 1\27" }
      ctx:sleep(0.01)
      during = context.report(ctx):table()
      named:close()
      named:close()
      assert(ctx:puncher { ip = "8.8.8.8" })
      ctx:sleep(0.005)
      return nil, "EONE: over", "EONE"
    end }, { means = { puncher = punchers(events) } })
    local marks = {
      { ms = 100, what = "sent", local_port = 1, remote_port = 2 },
      { ms = 101.3, what = "refused", local_port = 1, remote_port = 2, code = "ECONNREFUSED" },
    }
    local numbers = { sent = 2, refused = 0, unreachable = 0, connected = 1, accepted = 0 }
    local function burst(more)
      for key, value in pairs(numbers) do more[key] = value end
      more.ok, more.to = false, "8.8.8.8"
      return more
    end
    assert.same({ burst { name = "ipv4 try 1 ", started_ms = 100, marks = marks } }, during.rungs[1].bursts)
    assert.same({ 0, nil }, { during.rungs[1].started_ms, during.rungs[1].ms })
    local list = own_report:table().rungs[1].bursts
    assert.same(burst { name = "ipv4 try 1 ", started_ms = 100, ms = 10, marks = marks }, list[1])
    assert.same({ 110, 5, 110 }, { list[2].started_ms, list[2].ms, list[2].marks[1].ms })
    cjson.encode(own_report:table())
  end))

  it("is bounded, and keeps what tells most", run.virtual(function()
    local events = {}
    for i = 1, 256 do events[i] = { ms = i, what = "sent", local_port = i, remote_port = 1 } end
    for i = 1, 192 do events[#events + 1] = { ms = 256 + i, what = "icmp", local_port = i, remote_port = 1 } end
    for i = 1, 3 do events[#events + 1] = { ms = 500 + i, what = "connected", local_port = i, remote_port = 1 } end
    local own_report = go({ name = "mine", connect = function(ctx)
      for _ = 1, 60 do ctx:puncher({ ip = "8.8.8.8" }):close() end
      for _ = 1, 70 do ctx:send { a = 1 } end
    end }, { means = { puncher = punchers(events, 1000) } })
    local it_was, count, last = own_report:table().rungs[1], {}, 0
    assert.same({ 48, 64, 18 }, { #it_was.bursts, #it_was.messages, it_was.unlisted })
    for _, mark in ipairs(it_was.bursts[48].marks) do
      count[mark.what] = (count[mark.what] or 0) + 1
      assert.is_true(mark.ms >= last)
      last = mark.ms
    end
    assert.same({ connected = 3, icmp = 24, sent = 37 }, count)
    assert.equal(451 - 64 + 1000, it_was.bursts[48].unlisted)
  end))

  it("has a rung's messages and its earlier tries", run.virtual(function()
    local own_report = go(pipeline.retry(3, rung("mine", function(ctx)
      ctx:send { a = 1 }
      ctx:sleep(0.1)
      ctx:request({ a = 2 }, 0.05)
      return nil, "EONE: no", "EONE"
    end)))
    local it_was = own_report:table().rungs[1]
    assert.same({ ms = 0, what = "send" }, it_was.messages[1])
    assert.same({ ms = 100, what = "request" }, it_was.messages[2])
    assert.equal(6, #it_was.messages)
    assert.equal(2, #it_was.earlier)
    assert.same({ started_ms = 0, ms = 150, code = "EONE" }, it_was.earlier[1])
    local lane = timeline.model(own_report).lanes[1]
    assert.equal(3, #lane.bars)
    for i = 2, 3 do assert.is_true(lane.bars[i].from >= lane.bars[i - 1].to) end
    assert.equal("EONE after 150 ms, try 3: no", lane.words)
  end))
end)

describe("a timeline's model", function()
  it("has a lane for each rung, dial and burst", function()
    local model = timeline.model(told())
    local rows = {}
    for i, lane in ipairs(model.lanes) do
      local bar = lane.bars[1]
      rows[i] = ("%s%s %s %d %s"):format(lane.inner and "  " or "", lane.label,
        bar and ("%g-%g %s"):format(bar.from, bar.to, bar.state) or "-", #lane.marks, lane.words)
    end
    assert.same({
      "direct - 0 passed over: the router lets nobody in",
      "mine 0-100 failed 0 ECONNREFUSED after 100 ms: refused",
      "  192.0.2.7:4000 0-50 failed 0 ECONNREFUSED (external)",
      "  192.0.2.8:4000 50-100 ended 0 given up",
      "punch 100-400 connected 2 connected after 300 ms",
      "  ipv4 try 1 200-400 connected 4 2 SYNs, 1 refused, 1 connected",
      "relay 200-400 ended 0 given up: punch connected first",
    }, rows)
    assert.same({ "connected by punch in 400 ms", WHY, 400, true },
      { model.title, model.why, model.span, model.ok })
    assert.same({ "connected", "refused", "sent", "heard", "said" }, model.kinds)
    assert.same({ ms = 300, kind = "refused", words = "refused, 40001 > 40002 (ECONNREFUSED)" },
      model.lanes[6].marks[3])
  end)

  it("is the same of a report that went through JSON", function()
    assert.same(timeline.model(told()), timeline.model(cjson.decode(cjson.encode(told()))))
  end)

  it("is of a whole attempt, before, while and after it runs", run.virtual(function()
    assert.same({}, timeline.model(report.new()).lanes)
    local during
    local own_report = go(pipeline.seq { rung("a", function(ctx)
      ctx:sleep(0.1)
      during = timeline.model(context.report(ctx))
      return nil, "EONE: no", "EONE"
    end), rung("b", function(ctx)
      return ctx:dial { ip = "8.8.8.8", port = 4000, scope = "external" }
    end) })
    assert.same({ "under way for 100 ms", "is at work", "was not reached" },
      { during.title, during.lanes[1].words, during.lanes[2].words })
    assert.same({ { from = 0, to = 100, state = "open" } }, during.lanes[1].bars)
    local model = timeline.model(own_report)
    assert.equal("connected by b in 120 ms", model.title)
    assert.same({ "a", "b", "8.8.8.8:4000" }, { model.lanes[1].label, model.lanes[2].label, model.lanes[3].label })
    assert.same({ { from = 100, to = 120, state = "connected" } }, model.lanes[3].bars)
  end))

  it("tells rungs of one name apart, and bounds what is in one", function()
    local dials = {}
    for i = 1, 100 do dials[i] = { to = "x", started_ms = 0, ms = i, ok = false, code = "EONE" } end
    local model = timeline.model { ms = 1, rungs = {
      { name = "a", position = "1.1", started_ms = 0, ms = 1, dials = dials, unlisted = 3 },
      { name = "a", position = "1.2" }, { name = "b", position = "1.3" },
    } }
    assert.equal(3 + 48 + 1, #model.lanes)
    assert.same({ "a (1.1)", "a (1.2)", "b" }, { model.lanes[1].label, model.lanes[51].label, model.lanes[52].label })
    assert.equal("55 more", model.lanes[50].words)
  end)

  it("makes something of anything", function()
    local odd = { 1, "x", {}, false, 0 / 0, 1 / 0, -5, cjson.null, print, ("y"):rep(10000), "\xff\27", { { {} } } }
    local names = { "name", "position", "ok", "started_ms", "ms", "code", "message", "skipped", "tries", "earlier",
      "dials", "bursts", "messages", "unlisted", "to", "marks", "what", "local_port", "sent", "scope" }
    for seed = 1, 300 do
      math.randomseed(seed)
      local function any(depth)
        if depth == 0 or math.random() < 0.4 then return odd[math.random(#odd)] end
        local made = {}
        for _ = 1, math.random(0, 12) do made[names[math.random(#names)]] = any(depth - 1) end
        for i = 1, math.random(0, 3) do made[i] = any(depth - 1) end
        return made
      end
      local given = { ok = any(1), ms = any(1), rungs = { any(4), any(4) }, message = any(1), why = any(1),
        strategy = any(1) }
      local text = timeline.text(given, { width = math.random(0, 200) })
      assert(utf8.len(text) and not text:find "[^\n\32-\126\128-\255]", text)
      xml.elements(timeline.svg(given))
    end
  end)

  it("has numbers at 1, 2 or 5 times a power of ten", function()
    for _, case in ipairs {
      { 400, 5, "0 100 200 300 400", "ms" }, { 412.3, 4, "0 200 400", "ms" }, { 3, 6, "0 0.5 1 1.5 2 2.5 3", "ms" },
      { 0.1, 2, "0 0.05 0.1", "ms" }, { 20000, 4, "0 5 10 15 20", "s" }, { 7, 0, "0", "ms" },
    } do
      local numbers, unit = models.scale(case[1], case[2])
      for i, entry in ipairs(numbers) do numbers[i] = entry.number end
      assert.same({ case[3], case[4] }, { table.concat(numbers, " "), unit })
    end
  end)
end)

describe("a timeline as text", function()
  it("is a line for each lane", function()
    assert.equal([[
connected by punch in 400 ms
neither router lets anybody in uninvited
              ms 0        100      200      300      400
direct           passed over: the router lets nobody in
mine             ━━━━━━━━━━                            ECONNREFUSED after 100 m…
  192.0.2.7:4000 ─────                                 ECONNREFUSED (external)
  192.0.2.8:4000     ──────                            given up
punch                     >━━<━━━━━━━━━━━━━━━━━━━━━━━━ connected after 300 ms
  ipv4 try 1                       |────────x────────* 2 SYNs, 1 refused, 1 con…
relay                              ━━━━━━━━━━━━━━━━━━━ given up: punch connecte…
* connected  x refused  | SYN  < heard  > said]], timeline.text(told(), { width = 80 }))
  end)

  it("fits into the width", function()
    local wide = told()
    wide.rungs[2].name = ("日本"):rep(20)
    wide.rungs[2].message = "EONE: " .. ("ä"):rep(500)
    for _, given in ipairs { told(), wide } do
      for width = 40, 200, 7 do
        for line in timeline.text(given, { width = width }):gmatch "[^\n]+" do
          assert(models.columns(line) <= width, line)
        end
      end
    end
  end)

  it("has colours where they are wanted, and the same text below them", function()
    local plain, coloured = timeline.text(told()), timeline.text(told(), { colours = true })
    assert.is_nil(plain:find "\27")
    assert.truthy(coloured:find("\27[31mx\27[0m", 1, true))
    local bare = coloured:gsub("\27%[%d+m", "")
    assert.equal(plain:gsub("%s+", " "), (bare:gsub("%s+", " ")))
  end)

  it("has no control character of what others say", function()
    local hostile = told()
    hostile.rungs[2].name, hostile.rungs[2].message = "\27[2J\r", "EONE: \27]0;x\7\n\u{202e}\xff"
    hostile.rungs[2].dials[1].to, hostile.why = "\0\n", "\27[31m"
    hostile.rungs[3].bursts[1].name = "\u{9b}2J"
    local text = timeline.text(hostile, { width = 300 })
    assert.is_nil(text:find "[^\n\32-\126\128-\255]")
    assert.is_nil(text:find("\u{9b}", 1, true) or text:find("\u{202e}", 1, true))
    assert.is_truthy(text:find("\\x1B[2J\\r", 1, true))
  end)

  it("checks what it is given", function()
    for _, f in ipairs {
      function() timeline.text() end, function() timeline.svg(7) end, function() timeline.model "x" end,
      function() timeline.text({}, 80) end, function() timeline.text({}, { with = 80 }) end,
      function() timeline.text({}, { width = "80" }) end, function() timeline.text({}, { width = 0 / 0 }) end,
      function() timeline.text({}, { colours = 1 }) end,
    } do
      local ok, err = pcall(f)
      assert.is_false(ok)
      assert.truthy(err:find("timeline_spec.lua:", 1, true), err)
    end
  end)
end)

describe("a timeline as a picture", function()
  local function count(elements, name, class)
    local found = 0
    for _, element in ipairs(elements) do
      local fits = element.name == name and (not class or element.attributes.class == class)
      found = fits and found + 1 or found
    end
    return found
  end

  it("has each bar and mark, with what they are", function()
    local elements = xml.elements(timeline.svg(told()))
    assert.same({ "svg", "http://www.w3.org/2000/svg" }, { elements[1].name, elements[1].attributes.xmlns })
    assert.same({ "title", "connected by punch in 400 ms" }, { elements[2].name, elements[2].text })
    local bars = 0
    for _, state in ipairs { "connected", "failed", "ended" } do
      bars = bars + count(elements, "rect", "bar-" .. state)
    end
    assert.equal(6, bars)
    assert.same({ 3, 2, 2 }, {
      count(elements, "path", "sent"), count(elements, "path", "refused"), count(elements, "path", "connected"),
    })
    local titles = {}
    for _, element in ipairs(elements) do
      if element.name == "title" then titles[element.text] = true end
    end
    assert.is_true(titles["ipv4 try 1: SYN, 40001 > 40002, at 200.5 ms"])
    assert.is_true(titles["punch: 100 ms to 400 ms"])
  end)

  it("lies within its frame", function()
    local elements = xml.elements(timeline.svg(told()))
    local width, height = tonumber(elements[1].attributes.width), tonumber(elements[1].attributes.height)
    for _, element in ipairs(elements) do
      local at = element.attributes
      if at.transform then at.x, at.y = at.transform:match "translate%((%S+) (%S+)%)" end
      if at.x then
        local x, y = tonumber(at.x), tonumber(at.y)
        assert(x >= 0 and x + (tonumber(at.width) or 0) <= width and y >= 0 and y <= height, at.x .. " " .. at.y)
      end
    end
  end)

  it("needs and runs nothing, whatever the report says", function()
    local hostile = told()
    local evil = "</text><script>alert(1)</script><image href='http://x/'/>&amp;\"]]>\u{ffff}\1"
    hostile.rungs[2].name, hostile.rungs[2].message, hostile.why = evil, "EONE: " .. evil, evil
    hostile.rungs[2].dials[1].to, hostile.rungs[3].bursts[1].name = evil, evil
    hostile.rungs[3].bursts[1].marks[3].code, hostile.rungs[3].bursts[1].marks[1].what = evil, evil
    hostile.rungs[1].skipped, hostile.strategy, hostile.rungs[4].code = evil, evil, evil
    hostile.rungs[3].messages[1].what = evil
    local elements = xml.elements(timeline.svg(hostile))
    for _, element in ipairs(elements) do
      assert(({ svg = 1, title = 1, style = 1, rect = 1, text = 1, line = 1, path = 1, g = 1 })[element.name])
      for name in pairs(element.attributes) do assert(not name:find "^on" and not name:find "href", name) end
      if element.name == "style" then assert(not element.text:find "url" and not element.text:find "@import") end
    end
    assert.truthy(elements[2].text:find("<script>alert(1)</script>", 1, true))
  end)

  it("is light and dark", function()
    assert.truthy(timeline.svg(told()):find("prefers-color-scheme: dark", 1, true))
  end)
end)
