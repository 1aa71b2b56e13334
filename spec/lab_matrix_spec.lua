-- check: timeout 180
-- `p2pd-lua lab matrix`: a small one, what is kept when it ends early and how it goes on, and the referee's table.
local cjson = require "cjson"
local luv = require "luv"
require "p2pd"
local labs = require "spec.support.lab"
local matrix_pairs = require "p2pd.lab.matrix_pairs"
local page = require "p2pd.lab.matrix_page"
local program = require "spec.support.program"
local referee = require "spec.support.referee"
local results = require "p2pd.lab.matrix_results"
local texts = require "spec.support.texts"

local has, has_not = texts.has, texts.has_not

local KINDS = "open,symmetric/random"
local HASTE = { "--strategies", "direct,reverse", "--timeout", "1.5", "--delay", "2" } -- what fails, fails soon

local function matrix(user, ...)
  local words = { ... }
  return user:command("lab", "matrix", table.unpack(table.move(HASTE, 1, #HASTE, #words + 1, words)))
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

-- The runs in a file, by pair.
local function runs_in(path)
  local found, by = cjson.decode(read(path)), {}
  for _, run in ipairs(found.runs) do by[run.from .. " > " .. run.to] = run end
  return by, #found.runs, found
end

-- The lines that tell of a pair.
local function told(text)
  return select(2, text:gsub("%f[^\n\0]%[%d+ of %d+", ""))
end

for place, user in ipairs(labs.users()) do
  local obstacle = labs.obstacle(user)
  local function test(name, f)
    it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or f)
  end

  describe("a matrix of " .. user.name, function()
    setup(function() labs.start(user) end)
    teardown(function() user:stop() end)

    test("tells who connects to whom, and how", function()
      local json, html = user.tmp .. "/m.json", user.tmp .. "/m.html"
      local it = program.run(matrix(user, "--kinds", KINDS, "--json", json, "--html", html))
      assert.are.equal(1, it.status, it.out .. it.err) -- as one pair does not connect
      assert.are.equal(4, told(it.out), it.out)
      local runs, count, found = runs_in(json)
      assert.are.equal(4, count)
      assert.are.same({ "open", "symmetric/random" }, found.kinds)
      assert.are.same({ "drop", 2, true }, {
        found.conditions.uninvited, found.conditions.delay_ms, found.conditions.turn,
      })
      for pair, strategy in pairs {
        ["open > open"] = "direct", ["symmetric/random > open"] = "direct",
        ["open > symmetric/random"] = "reverse",
      } do
        local run = runs[pair]
        assert.is_true(run.ok, pair)
        assert.are.equal(strategy, run.strategy, pair)
        assert(run.ms >= 8 and run.ms < 1000, run.ms) -- a round trip takes 8 ms
        assert.are.equal(1, run.tries)
        assert.are.equal(strategy, run.report.strategy)
        has(run.text, "connected by " .. strategy)
        has(it.out, ("%s: %s in "):format(pair, strategy))
      end
      local failed = runs["symmetric/random > symmetric/random"]
      assert.is_false(failed.ok)
      assert.are.equal("string", type(failed.timeline))
      assert.are.equal("symmetric", failed.examined.from.nat)
      assert.are.equal("random", failed.examined.to.delta)
      assert.is_nil(failed.unexamined)
      local text = read(html)
      for _, state in ipairs { "direct", "reverse", "failed" } do has(text, ('<a class="%s"'):format(state)) end
      has(text, "connected by reverse")
      has_not(text, "<script")
      user:nothing_left()
    end)

    if place > 1 then return end -- the rest is the same whoever one is

    test("goes on where it was, but not under other conditions", function()
      local json, html = user.tmp .. "/m.json", user.tmp .. "/again.html"
      local before = cjson.decode(read(json))
      local it = program.run(matrix(user, "--kinds", KINDS, "--json", json, "--html", html, "--resume"))
      assert.are.equal(1, it.status)
      assert.are.equal(0, told(it.out), it.out)
      assert.are.same(before, cjson.decode(read(json)))
      has(read(html), "connected by reverse")
      it = program.run(matrix(user, "--pairs", "open:open,open:full-cone/equal", "--json", json, "--resume"))
      assert.are.equal(0, it.status, it.err) -- of the pairs that were asked for, all
      assert.are.equal(1, told(it.out), it.out)
      has(it.out, "[2 of 2] open > full-cone/equal: ")
      assert.are.equal(5, select(2, runs_in(json)))
      it = program.run(matrix(user, "--kinds", KINDS, "--json", json, "--resume", "--loss", "0.5"))
      assert.are.equal(2, it.status)
      has(it.err, "other conditions (loss: 0, not 0.5)")
      it = program.run(matrix(user, "--kinds", "open", "--json", json, "--resume", "--repeat", "2", "--jobs", "1"))
      assert.are.equal(0, it.status, it.err)
      assert.are.equal(1, told(it.out), it.out)
      assert.are.equal(6, select(2, runs_in(json)))
      user:nothing_left()
    end)

    test("keeps what it has at Ctrl-C, and takes its labs down", function()
      local json = user.tmp .. "/c.json"
      local kinds = "open,full-cone/equal"
      local child <close> = program.start(matrix(user, "--kinds", kinds, "--json", json, "--jobs", "2"))
      child:expect "[2 of 4"
      child:kill "sigint"
      assert.are.equal(130, child:wait())
      has_not(child.err, "traceback")
      local _, count = runs_in(json)
      assert(count >= 2 and count < 4, count)
      user:nothing_left()
      for name in luv.fs_scandir_next, luv.fs_scandir(user.tmp) do has_not(name, ".new") end
      local it = program.run(matrix(user, "--kinds", kinds, "--json", json, "--resume"))
      assert.are.equal(4 - count, told(it.out), it.out)
      assert.are.equal(4, select(2, runs_in(json)))
    end)

    test("draws a grid in a terminal that has room for it", function()
      local words = matrix(user, "--kinds", "open")
      words.rows, words.columns = 12, 60
      local child <close> = program.start_in_terminal(words)
      assert.are.equal(0, child:wait(), child.out)
      has(child.out, "\27[30;42mdirect")
      has(child.out, "*")
      has(child.out, "1 of 1\27[K")
      words.rows = 5
      local small <close> = program.start_in_terminal(words)
      assert.are.equal(0, small:wait(), small.out)
      has(small.out, "[1 of 1] open > open: direct in ")
      has_not(small.out, "\27[")
    end)

    test("uses a pipeline of one's own", function()
      local path = user.tmp .. "/mine.lua"
      local file = assert(io.open(path, "w"))
      file:write [[
        return { name = "mine", connect = function(ctx)
          local there = ctx.peer.ipv4[1]
          return ctx:dial { ip = there.external, port = there.port, scope = "external", timeout = 1 }
        end }
      ]]
      file:close()
      local json = user.tmp .. "/mine.json"
      local it = program.run(user:command("lab", "matrix", "--pairs", "open:open,open:symmetric/random", "--pipeline",
        path, "--json", json))
      assert.are.equal(1, it.status, it.err)
      has(it.out, "open > open: mine in ")
      has(it.out, "open > symmetric/random: not connected: ETIMEDOUT")
      local runs = runs_in(json)
      assert.is_nil(runs["open > open"].timeline)
      -- The way of the SYN: through one router, to the other.
      local story = runs["open > symmetric/random"].timeline
      has(story, " c out tcp 30.3.3.10:")
      assert(story:find " b in tcp 30%.3%.3%.10:%d+ > 30%.2%.2%.2:%d+ S dropped: ", story)
      has_not(story, "30.1.0.") -- nor what else there was
    end)

    test("says what is wrong", function()
      for _, case in ipairs {
        { 2, "'moon' has the unknown type 'moon'", "--kinds", "open,moon" },
        { 2, "'symmetric' says not how it chooses ports", "--kinds", "symmetric" },
        { 2, "a list of kinds has none in it", "--kinds", "," },
        { 2, "'open' is no pair of NATs", "--pairs", "open" },
        { 2, "unknown delta 'odd'", "--pairs", "open:symmetric/odd" },
        { 2, "--kinds and --pairs", "--kinds", "open", "--pairs", "open:open" },
        { 2, "--turn and --no-turn", "--turn", "--no-turn" },
        { 2, "--resume goes on with a file", "--resume" },
        { 2, "are one file", "--json", "/x", "--html", "/x" },
        { 2, "--uninvited is one of drop, reset, unreachable, not 'shrug'", "--uninvited", "shrug" },
        { 2, "--loss is a number from 0 to 1", "--loss", "2" },
        { 2, "--jobs is a whole number", "--jobs", "0" },
        { 2, "there is no strategy 'magic'", "--strategies", "magic" },
        { 2, "cannot read the strategy", "--pipeline", "/no/such.lua" },
        { 2, "is no file of `lab matrix`", "--json", "/etc/passwd", "--resume" },
        { 2, "one operand too many", "symmetric" },
        { 1, "cannot write /no/such/m.json", "--kinds", "open", "--json", "/no/such/m.json" },
      } do
        local it = program.run(user:command("lab", "matrix", table.unpack(case, 3)))
        assert.are.equal(case[1], it.status, it.err)
        has(it.err, case[2])
        has_not(it.err, "traceback")
        assert.are.equal("", it.out)
      end
      local words = user:command("lab", "matrix", "--kinds", "open")
      words.env.PATH = "/nowhere"
      local it = program.run(words)
      assert.are.equal(1, it.status, it.err)
      has(it.err, "not installed: unshare, ")
      it = program.run(user:command("lab", "end"))
      assert.are.equal(2, it.status)
      has(it.err, "this is a part of `p2pd-lua lab matrix`")
    end)
  end)
end

describe("pairs as they are written", function()
  it("are read, with their colons", function()
    assert.are.same({
      { from = "symmetric/independent:7", to = "open" }, { from = "open", to = "symmetric/dependent:1" },
    }, matrix_pairs.pairs "symmetric/independent:7:open,open:symmetric/dependent,open:symmetric/dependent:1")
    assert.are.same({ "symmetric/independent:1", "open" }, matrix_pairs.kinds "symmetric/independent,open,open")
    assert.are.equal(27, #matrix_pairs.KINDS)
    assert.are.equal(729, #matrix_pairs.all(matrix_pairs.KINDS))
  end)
end)

describe("the page", function()
  it("shows what came from elsewhere as text", function()
    local found = results.new { uninvited = "drop", loss = 0, noise = 0, delay_ms = 10, turn = true, timeout = 20 }
    found:add { from = "open", to = "open", round = 1, ok = false, message = "<script>alert('&')</script>" }
    found:add {
      from = "open", to = "open", round = 2, ok = true, strategy = "<b>", ms = 5, remote = "<i>", echo_ms = 1,
      text = "</pre>",
    }
    local text = page.html(found, { "open" })
    has(text, "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;")
    has(text, "1 of 2<br/>5")
    for _, part in ipairs { "<script", "<b>", "<i>", "</pre></pre>" } do has_not(text, part) end
  end)
end)

describe("the referee", function()
  it("knows every pair, and that it does not matter who connects", function()
    local count = { direct = 0, luck = 0, relay = 0 }
    for _, pair in ipairs(matrix_pairs.all(matrix_pairs.KINDS)) do
      local theory = referee.expected(pair.from, pair.to)
      assert.are.equal(theory, referee.expected(pair.to, pair.from))
      count[theory] = count[theory] + 1
    end
    -- Of 27: 1 random symmetric, 3 foretold ones, blocked; 9 known with address-and-port filtering, 13 without.
    assert.are.same({ direct = 25 * 25 + 2 * 13, luck = 2 * 9, relay = 2 * 3 + 1 + 2 * 26 + 1 }, count)
  end)

  it("says of these what the words of the issue say", function()
    for pair, theory in pairs {
      ["symmetric/random open"] = "direct", ["symmetric/random restricted/random"] = "direct",
      ["symmetric/random full-cone/independent:7"] = "direct", ["symmetric/random udp-firewall"] = "luck",
      ["symmetric/random port-restricted/random"] = "luck", ["symmetric/random symmetric/equal"] = "luck",
      ["symmetric/preserving symmetric/random"] = "luck",
      ["symmetric/random symmetric/random"] = "relay", ["symmetric/random symmetric/dependent:1"] = "relay",
      ["symmetric/independent:7 symmetric/independent:1"] = "direct", ["blocked open"] = "relay",
      ["symmetric/preserving port-restricted/equal"] = "direct", ["udp-firewall udp-firewall"] = "direct",
    } do
      assert.are.equal(theory, referee.expected(pair:match "^(%S+) (%S+)$"), pair)
    end
    assert.has_error(function() referee.expected("open", "moon") end)
  end)

  it("sees whether the bars are kept", function()
    local function verdict(runs, loss)
      local found = { conditions = { uninvited = "drop", loss = loss or 0, noise = 0, delay_ms = 10 }, runs = runs }
      for _, run in ipairs(runs) do
        run.from, run.to, run.ok, run.ms = run[1], run[2], run[3] ~= nil, 100
        run.strategy, run.tries = run[3], run[4]
      end
      return referee.verdict(found)
    end
    local cone, hard = "port-restricted/equal", "symmetric/random"
    assert.is_true(verdict({ { cone, cone, "punch" }, { hard, hard, "relay" }, { hard, cone, "punch" } }).kept)
    for _, runs in ipairs {
      { { cone, cone, "relay" } }, { { cone, cone } }, { { hard, cone, "relay" } }, { { "blocked", "open" } },
      { { cone, cone, "punch", 2 } },
    } do assert.is_false(verdict(runs).kept) end
    assert.is_true(verdict({ { hard, cone, "relay" } }, 0.02).kept) -- luck has its bar where all is quiet
    has(table.concat(verdict { { cone, cone, "relay" } }, "\n"),
      "Direct where theory allows it without luck: 0 of 1 (0.0 %); the bar is 100 %: NOT KEPT.")
    has(table.concat(verdict { { "open", "open", "direct" } }, "\n"), "Median times: direct 100 ms (of 1, ")
    local found = { conditions = { uninvited = "drop", loss = 0, noise = 0, delay_ms = 10 }, runs = {} }
    assert.is_false(referee.verdict(found, true).kept)
  end)
end)
