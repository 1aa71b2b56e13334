-- What learn makes of what worked before, in virtual time: days of attempts in a world without a network.
local context = require "p2pd.context"
local judging = require "p2pd.pipeline.judging"
local learning = require "p2pd.pipeline.learning"
local luv = require "luv"
local memory = require "p2pd.pipeline.memory"
local pipeline = require "p2pd.pipeline"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local report = require "p2pd.report"
local run = require "spec.support.run"
local task = require "p2pd.task"
local world = require "spec.support.world"

local learn = pipeline.learn
local NAMES = { "direct", "reverse", "punch", "relay" }

local folder, path, before

local function forget()
  luv.fs_unlink(path)
end

-- Of all NAMES as it is now between two networks: how long it takes, below zero: until it fails; nil: it never ends.
local now_there

local function way(name)
  return { name = name, timeout = name == "direct" and 5 or 8, connect = function(ctx)
    local seconds = now_there[name] or math.huge
    ctx:sleep(math.abs(seconds))
    if seconds < 0 then return nil, "EONE: it is so today", "EONE" end
    return ctx:dial { ip = "8.8.8.8", port = 4000 }
  end }
end

local ways = {}
for i, name in ipairs(NAMES) do ways[i] = way(name) end

-- The default pipeline, with these in place of what it has.
local function usual()
  local function replaced(strategy)
    for _, each in ipairs(ways) do
      if each.name == strategy.name then return each end
    end
    local children = {}
    for i, child in ipairs(strategy.children) do children[i] = replaced(child) end
    return strategy.rebuild(children)
  end
  return replaced(pipeline.default())
end

local function go(strategy, options)
  options = options or {}
  now_there = options.there or now_there
  local here = world.new { hosts = { ["8.8.8.8:4000"] = { after = 0 } }, prefixes = options.prefixes }
  local own_report = report.new()
  local peer = { machine_id = "theirs", nat = "port-restricted", external = "8.8.8.8" }
  local own = { port = 5000, external = "9.9.9.9" }
  for key, value in pairs(options.peer or {}) do peer[key] = value end
  for key, value in pairs(options.own or {}) do own[key] = value end
  local ctx = context.new {
    peer = world.address(peer), own = world.address(own), role = "connect", means = here.means, report = own_report,
    deadline = task.now() + (options.timeout or 20),
  }
  local began = task.now()
  local pipe, message, code = pipeline.run(strategy, ctx)
  local rungs = {}
  for _, rung in ipairs(own_report:table().rungs) do
    assert.is_nil(rungs[rung.name])
    rungs[rung.name] = rung
  end
  assert.equal(pipe and 1 or 0, here:open_count())
  return {
    pipe = pipe, message = message, code = code, took = task.now() - began, rungs = rungs, winner = own_report.winner,
  }
end

local function started(result)
  local list = {}
  for _, name in ipairs(NAMES) do list[name] = result.rungs[name].started_ms end
  return list
end

local function score_of(name, place)
  for _, each in ipairs(pipeline.scores()[place or 1].ways) do
    if each.name == name then return each end
  end
end

local function median(times)
  table.sort(times)
  return (times[(#times + 1) // 2] + times[#times // 2 + 1]) / 2
end

local function chooser(seed)
  return function(least, most)
    seed = (seed * 1103515245 + 12345) % 2 ^ 31 | 0
    return least + (seed >> 8) % (most - least + 1)
  end
end

describe("learn", function()
  setup(function()
    folder, before = program.folder(), os.getenv "XDG_CACHE_HOME"
    path = tostring(folder) .. "/p2pd-lua/ways.json"
    luv.os_setenv("XDG_CACHE_HOME", tostring(folder))
  end)
  teardown(function()
    if before then luv.os_setenv("XDG_CACHE_HOME", before) else luv.os_unsetenv "XDG_CACHE_HOME" end
    getmetatable(folder).__close(folder)
  end)
  before_each(forget)

  it("throws at the caller's line", function()
    for text, list in pairs { ["is empty"] = {}, ["did you mean direct?"] = { "direkt" }, ["in braces"] = 3 } do
      local ok, err = pcall(function() local _ = learn(list) end)
      assert.is_false(ok)
      assert.truthy(err:find("learning_spec.lua:%d+: .*" .. text:gsub("%p", "%%%0")), err)
    end
  end)

  it("starts each way when the default pipeline would, where nothing is known", run.virtual(function()
    local any = chooser(7)
    for _ = 1, 300 do
      local there = {}
      for _, name in ipairs(NAMES) do
        if any(1, 3) > 1 then there[name] = any(5, 3000) / 1000 * (any(1, 2) == 1 and 1 or -1) end
      end
      local nats = { "open", "full-cone", "port-restricted", "symmetric", "udp-firewall" }
      local options = {
        there = there, peer = { nat = nats[any(1, #nats)] }, own = { nat = nats[any(1, #nats)] },
        prefixes = any(1, 4) == 1 and { { ip = "192.168.1.7", prefix = 24, interface = "eth0" } } or nil,
      }
      if any(1, 4) == 1 then options.peer.internal = "8.8.8.8" end
      if any(1, 4) == 1 then options.own.external = "8.8.8.8" end
      forget()
      local one, other = go(usual(), options), go(learn(ways), options)
      assert.same({ one.winner, started(one) }, { other.winner, started(other) })
      assert.near(one.took, other.took, 1e-6)
    end
  end))

  it("tries first what worked before, and the others when that has had what it usually takes", run.virtual(function()
    local options = { there = { punch = 0.2, direct = -5, relay = 0.3 }, peer = { nat = "open" } }
    assert.near(0.7, go(learn(ways), options).took, 1e-6)
    local result = go(learn(ways), options)
    assert.near(0.2, result.took, 1e-6)
    assert.equal("punch", result.winner)
    assert.is_nil(result.rungs.relay.started_ms)
    now_there.punch = 0.5
    local beside = pipeline.scores()[1].beside
    result = go(learn(ways))
    assert.near(0.5, result.took, 1e-6)
    for _, name in ipairs { "direct", "reverse" } do -- 1.5 times 200 ms, and 20
      local at = result.rungs[name].started_ms
      assert.is_true(name == beside and at == 0 or at == 320 or at == nil, ("%s: %s"):format(name, at))
    end
  end))

  it("uses the relay at once where nothing else has worked, and comes back from it", run.virtual(function()
    local there, times = { relay = 0.3 }, {}
    assert.near(2.7, go(learn(ways), { there = there }).took, 1e-6)
    for i = 1, 12 do times[i] = go(learn(ways)).took end
    assert.is_true(median(times) <= 0.55, median(times))
    there.direct = 0.1
    local won = 0
    for _ = 1, 100 do won = won + (go(learn(ways)).winner == "direct" and 1 or 0) end
    assert.is_true(won >= 40, won)
    assert.equal("direct", pipeline.scores()[1].first)
  end))

  it("finds the only way that is left in the first attempt, however badly it did", run.virtual(function()
    for _, only in ipairs(NAMES) do
      forget()
      for _ = 1, 40 do
        go(learn(ways), { there = {
          direct = only ~= "direct" and 0.1 or -0.1, reverse = only ~= "reverse" and 0.2 or -0.1,
          punch = only ~= "punch" and 0.3 or -0.1, relay = only ~= "relay" and 0.4 or -0.1,
        } })
      end
      local result = go(learn(ways), { there = { [only] = 0.2 } })
      assert.equal(only, result.winner)
      assert.is_true(result.took <= 2.61, ("%s: %s"):format(only, result.took))
      for _ = 1, 4 do result = go(learn(ways)) end
      assert.is_true(result.took <= 0.46, ("%s: %s"):format(only, result.took))
    end
  end))

  it("forgets nothing of the ways when the peer is away", run.virtual(function()
    local options = { there = { direct = 0.1, punch = 0.2 } }
    for _ = 1, 3 do go(learn(ways), options) end
    for _ = 1, 30 do
      local result = go(learn(ways), { there = { direct = -0.1, reverse = -0.1, punch = -0.1, relay = -0.1 } })
      assert.equal("EONE", result.code)
    end
    assert.equal("direct", pipeline.scores()[1].first)
    assert.equal(30, score_of("direct").failed)
  end))

  it("knows pairs of networks apart, by both ends' addresses and the peer's ID", run.virtual(function()
    go(learn(ways), { there = { direct = 0.1 } })
    for _, options in ipairs {
      { own = { external = "9.9.9.10" } }, { own = { internal = "192.168.1.6" } }, { peer = { node_id = "other" } },
      { peer = { external = "8.8.4.4" } },
    } do
      options.there = { relay = 0.1 }
      assert.near(2.5, go(learn(ways), options).took, 1e-6)
    end
    assert.equal(5, #pipeline.scores())
    go(learn(ways), { there = { direct = 0.1 }, peer = { port = 4001 } })
    assert.equal(5, #pipeline.scores())
    assert.equal(2, pipeline.scores()[1].attempts)
  end))

  it("cuts the time to connect over a day in several networks", run.virtual(function()
    local any = chooser(3)
    -- What is there, as one comes back: ways take more or less time, and in the afternoon a router is another.
    local pairs_of_networks = {
      { there = { punch = 0.16, relay = 0.3 }, peer = { nat = "open", node_id = "trap" } },
      { there = { punch = 0.16, relay = 0.3 }, peer = { node_id = "plain" } },
      { there = { relay = 0.25, punch = -8 }, peer = { node_id = "hard" } },
      { there = { direct = 0.09, reverse = 0.14, punch = 0.16 }, peer = { nat = "open", node_id = "open" } },
      { there = { reverse = 0.14, relay = 0.3 }, peer = { nat = "open", node_id = "one way" } },
      { there = { punch = 0.9, relay = 0.3 }, peer = { node_id = "luck" } },
    }
    local function round(strategy, pair, network, late)
      local there = {}
      for name, seconds in pairs(pair.there) do there[name] = seconds * any(90, 130) / 100 end
      if late then there.punch, there.direct = there.direct, there.punch end
      local result = go(strategy, { there = there, peer = pair.peer, own = { external = network } })
      assert.truthy(result.pipe)
      return result.took
    end
    local function day(strategy)
      any = chooser(3)
      local times, firsts = {}, {}
      for attempt = 1, 24 do
        for _, network in ipairs { "9.9.9.9", "9.9.9.10" } do
          for _, pair in ipairs(pairs_of_networks) do
            local took = round(strategy, pair, network, attempt > 16 and network == "9.9.9.10")
            times[#times + 1] = took
            if attempt == 1 then firsts[#firsts + 1] = took end
          end
        end
      end
      local sum = 0
      for _, took in ipairs(times) do sum = sum + took end
      return median(times), sum / #times, firsts
    end
    local usual_median, usual_mean, usual_firsts = day(usual())
    local median_, mean, firsts = day(learn(ways))
    for i, took in ipairs(firsts) do assert.near(usual_firsts[i], took, 1e-3) end
    assert.is_true(median_ <= 0.6 * usual_median, ("%.3f of %.3f"):format(median_, usual_median))
    assert.is_true(mean <= 0.6 * usual_mean, ("%.3f of %.3f"):format(mean, usual_mean))
    if os.getenv "P2PD_SAY" then
      print(("median %.0f > %.0f ms, mean %.0f > %.0f ms"):format(usual_median * 1000, median_ * 1000,
        usual_mean * 1000, mean * 1000))
    end
  end))

  it("is a strategy like any other: in others, around others, and restricted", run.virtual(function()
    local seq, prefer, retry, only = pipeline.seq, pipeline.prefer, pipeline.retry, pipeline.only
    local options = { there = { direct = -0.1, punch = 0.1 } }
    local tree = retry(2, learn { seq { ways[1], learn { ways[2], ways[3] } }, ways[4] })
    assert.equal("punch", go(tree, options).winner)
    assert.equal("punch", go(only({ "punch", "relay" }, tree)).winner)
    assert.equal("punch", go(only("punch", tree)).winner)
    local names = {}
    for _, each in ipairs(pipeline.scores()[1].ways) do names[each.name] = true end
    assert.is_true(names["seq{direct reverse punch}"] and names.reverse and names.punch and names.relay)
    forget()
    for _ = 1, 3 do go(learn(ways), { there = { direct = 0.2, punch = 0.1 } }) end
    local result = go(prefer("direct", learn(ways)))
    assert.equal(0, result.rungs.direct.started_ms)
  end))

  it("passes over what does not apply at no cost, and learns nothing of it", run.virtual(function()
    local applies = true
    local first = { name = "first", connect = ways[3].connect, applies = function() return applies, "not today" end }
    now_there = { punch = 0.1, relay = 0.2 }
    first.connect = function(ctx) ctx:sleep(0.1) return ctx:dial { ip = "8.8.8.8", port = 4000 } end
    local strategy = learn { ways[1], first, ways[3] }
    for _ = 1, 3 do go(strategy) end
    applies = false
    local tries = score_of("first").tries
    local result = go(strategy)
    assert.is_true(result.took <= 0.1 + 1e-6, result.took)
    assert.equal("not today", result.rungs.first.skipped)
    assert.equal(tries, score_of("first").tries)
  end))

  it("ends as it is told to, and keeps what had failed by then", run.virtual(function()
    local result = go(learn(ways), { there = { direct = -0.1 }, timeout = 1 })
    assert.equal("ETIMEDOUT", result.code)
    assert.same({ 1, 1 }, { score_of("direct").failed, score_of("direct").tries })
    assert.is_nil(pipeline.scores()[1].first)
    assert.truthy(pipeline.scores()[1].why:find "default")
  end))
end)

describe("what was learnt", function()
  setup(function()
    folder, before = program.folder(), os.getenv "XDG_CACHE_HOME"
    path = tostring(folder) .. "/p2pd-lua/ways.json"
    luv.os_setenv("XDG_CACHE_HOME", tostring(folder))
  end)
  teardown(function()
    if before then luv.os_setenv("XDG_CACHE_HOME", before) else luv.os_unsetenv "XDG_CACHE_HOME" end
    getmetatable(folder).__close(folder)
  end)
  before_each(forget)

  local function pair(number)
    return { own = "9.9.9.9", node = "node" .. number, peer = "8.8.8.8" }
  end

  local function with_way(entry)
    entry.attempts = entry.attempts + 1
    entry.ways[1] = entry.ways[1] or { name = "punch", tries = 0, connected = 0, failed = 0, seen = {} }
    table.insert(entry.ways[1].seen, { entry.attempts, 100 })
  end

  it("is private, bounded, and the latest first", function()
    for number = 1, 70 do memory.change(pair(number), with_way) end
    assert.equal(64, #memory.all())
    assert.equal("node70", memory.all()[1].node)
    assert.is_nil(memory.get(pair(6)))
    for _ = 1, 20 do memory.change(pair(7), with_way) end
    assert.same({ 21, 8 }, { memory.get(pair(7)).attempts, #memory.get(pair(7)).ways[1].seen })
    assert.equal(384, luv.fs_stat(path).mode & 511) -- 0600
    for number = 1, 64 do
      memory.change(pair(number), function(entry)
        with_way(entry)
        for i = 1, 40 do
          local seen = {}
          for k = 1, 8 do seen[k] = { 1000000 + k, -1000000 } end
          entry.ways[i] = { name = ("x"):rep(90) .. i, tries = 1, connected = 0, failed = 0, seen = seen }
        end
      end)
    end
    assert.is_true(luv.fs_stat(path).size <= 128 * 1024)
    assert.equal(12, #memory.get(pair(64)).ways)
    local left = {}
    for name in processes.folder(tostring(folder) .. "/p2pd-lua") do left[#left + 1] = name end
    assert.same({ "ways.json" }, left)
  end)

  it("counts as nothing where it could not have been written here", function()
    memory.change(pair(1), with_way)
    local good = processes.read(path)
    local function with(text)
      local file = assert(io.open(path, "w"))
      file:write(text)
      file:close()
      return #memory.all()
    end
    assert.equal(1, with(good))
    for _, text in ipairs { "", "{", "3", "[[[[[[[[[[]]]]]]]]]]", '{"a":1}', (" "):rep(129 * 1024) .. good } do
      assert.equal(0, with(text))
    end
    for _, change in ipairs {
      { '"attempts":1', '"attempts":1.5' }, { '"attempts":1', '"attempts":1e99' }, { '"own":"', '"own":"\\u001b[2J' },
      { '"at":%d+', '"at":1' }, { "%[1,100%]", "[1]" }, { "%[1,100%]", '"x"' }, { '"name":"punch"', '"name":7' },
      { '"ways":%[', '"ways":[3,' }, { '"tries":0', '"tries":-1' },
    } do
      local changed, count = good:gsub(change[1], change[2])
      assert.equal(1, count, change[1] .. " in " .. good)
      assert.equal(0, with(changed), changed)
    end
    luv.fs_unlink(path)
    luv.fs_mkdir(path, 448)
    assert.equal(0, #memory.all())
    memory.change(pair(1), with_way) -- cannot be kept, and says nothing
    luv.fs_rmdir(path)
  end)

  it("is told, with what follows from it", run.virtual(function()
    assert.equal("nothing was learnt yet: pipelines with p2pd.pipeline.learn do", learning.text())
    for _ = 1, 5 do go(learn(ways), { there = { direct = -0.05, punch = 0.2 }, own = { internal = "10.0.0.2" } }) end
    local scores = pipeline.scores()[1]
    assert.same({ "9.9.9.9 (10.0.0.2)", "node", "8.8.8.8", 5, "punch" },
      { scores.own, scores.node, scores.peer, scores.attempts, scores.first })
    local punch = score_of "punch"
    assert.same({ 5, 5, 0, 200, 233 }, { punch.tries, punch.connected, punch.failed, punch.usual_ms, punch.counts_ms })
    local text = learning.text()
    for _, part in ipairs {
      "to node at 8.8.8.8, from 9.9.9.9 (10.0.0.2): 5 attempts, the last 0 s ago\n",
      "\n  punch    connected 5 of 5 times, usually in 200 ms, counts as 233\n",
      "\n  first: punch, as punch connected in 5 of the 5 tries that count, usually in 200 ms",
      "; the others follow 320 ms later",
    } do
      assert.truthy(text:find(part, 1, true), text)
    end
    local told = go(learn(ways))
    assert.equal(0, told.rungs[scores.first].started_ms)
    if scores.beside then assert.equal(0, told.rungs[scores.beside].started_ms) end
  end))
end)

describe("judging", function()
  local function known(...)
    local entry = { own = "a", node = "b", peer = "c", attempts = 40, ways = {} }
    for i, each in ipairs { ... } do
      entry.ways[i] = { name = each[1], relayed = each[1] == "relay" or nil, seen = {} }
      for k = 2, #each do entry.ways[i].seen[k - 1] = { 40, each[k] } end
    end
    return entry
  end

  it("weighs time by chance, and a relay's for what it costs", function()
    local punch_often, direct_seldom = { "punch", 200, 220, 180, 200 }, { "direct", 100, -900, -900, -900 }
    assert.equal("punch", judging.judge(known(direct_seldom, punch_often)).best)
    assert.equal("punch", judging.judge(known({ "relay", 150, 150, 150 }, punch_often)).best)
    assert.equal("relay", judging.judge(known({ "relay", 150, 150, 150 }, { "punch", 3000, -900, -900 })).best)
  end)

  it("is the same for the same pair and attempt, and explores what it knows little of, less what failed", function()
    local function beside(entry)
      local count = 0
      for attempt = 40, 1039 do
        entry.attempts = attempt
        for _, one in ipairs(entry.ways) do
          for _, each in ipairs(one.seen) do each[1] = attempt end
        end
        local judged = judging.judge(entry)
        assert.same(judged, judging.judge(entry))
        count = count + (judged.beside and 1 or 0)
      end
      return count
    end
    local good = { "punch", 200, 200, 200, 200, 200, 200, 200, 200 }
    local unknown = beside(known(good, { "direct" }))
    local bad = beside(known(good, { "direct", -9, -9, -9, -9, -9, -9, -9, -9 }))
    assert.is_true(unknown > 300 and unknown < 700, unknown)
    assert.is_true(bad < 30, bad)
    assert.equal(0, beside(known(good, { "relay" })))
  end)

  it("forgets after 32 attempts", function()
    local entry = known { "punch", 200, 200 }
    entry.attempts = 71
    assert.equal("punch", judging.judge(entry).best)
    entry.attempts = 72
    assert.is_nil(judging.judge(entry).best)
  end)
end)
