-- check: timeout 180
-- `p2pd-lua lab try`: what it says of two pipelines, in virtual time and in a lab, and how two results compare.
require "p2pd"
local comparison = require "p2pd.lab.comparison"
local grids = require "p2pd.lab.try_grids"
local labs = require "spec.support.lab"
local program = require "spec.support.program"
local page = require "p2pd.lab.try_page"
local processes = require "spec.support.processes"
local results = require "p2pd.lab.matrix_results"
local texts = require "spec.support.texts"
local xml = require "spec.support.xml"

local has = texts.has

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

-- The elements of a page that is well formed and takes nothing from elsewhere, and those of them with an id.
local function elements_of(text)
  local elements, by_id = xml.elements((text:gsub("^<!DOCTYPE html>\n", ""))), {}
  for _, element in ipairs(elements) do
    local id, href = element.attributes.id, element.attributes.href
    assert(not id or not by_id[id], id)
    assert(not href or href:find "^#", href)
    assert(element.name ~= "script" and element.name ~= "link" and element.name ~= "img", element.name)
    if id then by_id[id] = element end
  end
  for _, element in ipairs(elements) do
    local href = element.attributes.href
    assert(not href or href == "#-" or by_id[href:sub(2)], href)
  end
  return elements, by_id
end

-- The texts of the elements with this name and class.
local function texts_of(elements, name, class)
  local list = {}
  for _, element in ipairs(elements) do
    if element.name == name and element.attributes.class == class then list[#list + 1] = element.text end
  end
  return list
end

describe("the page of a comparison", function()
  local function page_of(mine, other, progress)
    local two = { { name = "mine", found = results_of(mine) }, { name = "theirs", found = results_of(other) } }
    for _, one in ipairs(two) do one.made = one.found.runs end
    return page.html(two, comparison.compare(two[1].found, two[2].found, PAIR), { "open", "blocked" }, progress)
  end

  it("tells what differs before the grids, and marks it there", function()
    for sort, case in pairs {
      worse = { { { false } }, { { "relay", 90 } }, "1 pair got worse", "▼" },
      better = { { { "punch", 500 } }, { { "relay", 200 } }, "1 pair got better", "▲" },
      slower = { { { "punch", 200 } }, { { "punch", 100 } }, "1 pair got slower, by 100 ms in the median", "▽" },
      faster = { { { "punch", 100 } }, { { "punch", 300 } }, "1 pair got faster, by 200 ms in the median", "△" },
    } do
      local text = page_of(case[1], case[2])
      local elements, by_id = elements_of(text)
      assert.equal(" " .. case[3], by_id[sort].text)
      assert(text:find(case[3], 1, true) < text:find('class="grid"', 1, true))
      assert.same({ case[4] }, texts_of(elements, "sup")) -- in the first grid alone
      assert.same({ "1" }, texts_of(elements, "b"))
      assert.same({ case[4] .. " " .. sort }, texts_of(elements, "p", "mark-" .. sort))
    end
    assert.same({}, texts_of(elements_of(page_of({ { "punch", 100 } }, { { "punch", 100 } })), "sup"))
  end)

  it("has what is known of a pair that one of the two alone was tried with, and of one that is under way", function()
    local elements, by_id = elements_of(page_of({ { "punch", 100 } }, {}, "1 of 2, 1 under way"))
    assert(by_id["r1-2"])
    has(table.concat(texts_of(elements, "p"), "\n"), "not tried")
    has(table.concat(texts_of(elements, "p"), "\n"), "1 of 2, 1 under way")
    has(page_of({}, {}, "x"), 'http-equiv="refresh"')
    assert.is_nil(page_of({}, {}):find("refresh", 1, true))
  end)

  it("shows whatever is in names and reports, and obeys none of it", function()
    local bad = "</pre><script>alert(1)</script>&amp;'\"\0\27[31m\xff\xef\xbf\xbf"
    local found = results.new(CONDITIONS)
    found:add {
      from = bad, to = "open", round = 1, ok = true, strategy = bad, ms = 1, echo_ms = 2, remote = bad, text = bad,
      timeline = bad, seconds = 1, examined = { from = { nat = bad }, to = { nat = bad, delta = bad, value = bad } },
    }
    found:add { from = "open", to = bad, round = 1, ok = false, message = bad, code = bad, seconds = 1 }
    local two = { { name = bad, found = found, made = found.runs }, { name = bad, found = found, made = found.runs } }
    local pairs_asked = { { from = bad, to = "open" }, { from = "open", to = bad } }
    local sorts = comparison.compare(found, found, pairs_asked)
    sorts.worse = sorts.same
    local text = page.html(two, sorts, { "open", bad }, bad)
    local elements = elements_of(text)
    local safe = "</pre><script>alert(1)</script>&amp;'\"  [31m????"
    assert.equal(safe .. " against " .. safe, texts_of(elements, "h1")[1])
    has(table.concat(texts_of(elements, "pre")), safe)
    elements_of(require("p2pd.lab.matrix_page").html(found, { "open", bad }, bad))
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

  it("writes a page with both grids, what differs, and all reports", function()
    local folder <close> = program.folder()
    local html, mine = tostring(folder) .. "/out.html", folder:write("mine.lua", [[
      local pipeline = require("p2pd").pipeline
      return pipeline.named("slow-and-straight", pipeline.stagger(0.5) { "direct", "reverse", "punch" })
    ]])
    local it = try(mine, "--virtual", "--kinds", "open,full-cone/equal,blocked", "--html", html)
    assert.equal(1, it.status, it.err)
    local text = processes.read(html)
    local elements, by_id = elements_of(text)
    assert.equal(mine .. " against default", texts_of(elements, "h1")[1])
    assert.equal(" 5 pairs got worse", by_id.worse.text)
    assert.matches("^ %d pairs? got slower, by %d+ ms in the median$", by_id.slower.text)
    assert.is_nil(by_id.better)
    has(it.out, "5 pairs got worse:")
    local cells, reports = 0, 0
    for _, element in ipairs(elements) do
      local class = element.attributes.class or ""
      if element.name == "a" and element.attributes.title then cells = cells + 1 end
      if element.name == "section" and class == "report" then reports = reports + 1 end
    end
    assert.same({ 18, 9, 2 }, { cells, reports, #texts_of(elements, "table", "grid") })
    assert.equal(18, #texts_of(elements, "pre"))
    has(texts_of(elements, "pre")[1], "slow-and-straight")
    for _, name in ipairs { "open > full-cone/equal", "blocked > blocked" } do has(text, name:gsub(">", "&gt;")) end
    it = try("default", "--virtual", "--html", html, "--against", "direct") -- more kinds than there is room for words
    assert.equal(0, it.status, it.err)
    elements, by_id = elements_of(processes.read(html))
    assert.same({}, texts_of(elements, "table", "grid"))
    assert.equal(2, #texts_of(elements, "table", "grid small"))
    local shown, hidden = 12, tonumber(texts_of(elements, "summary")[1]:match "^(%d+) more$")
    assert.equal((" %d pairs got better"):format(shown + hidden), by_id.better.text)
    it = try("default", "--virtual", "--pairs", "open:open", "--html", "/no/such/out.html")
    assert.same({ 1, "" }, { it.status, it.out })
    has(it.err, "cannot write /no/such/out.html")
  end)

  it("does not trust a file that it compares with", function()
    local folder <close> = program.folder()
    local json = tostring(folder) .. "/before.json"
    assert.equal(0, try("default", "--virtual", "--pairs", "open:open", "--json", json).status)
    local text = folder:read "before.json"
    for _, case in ipairs { { '"strategy":"direct"', '"strategy":{}' }, { '"remote":"[^"]*"', '"remote":{"a":[1]}' },
      { '"examined":{', '"examined":{"more":7,' }, { '"examined":{"%l+":{', '%0"more":{},' } } do
      local changed, count = text:gsub(case[1], case[2])
      assert(count > 0, case[1])
      folder:write("before.json", changed)
      local it = try("default", "--virtual", "--against", json, "--html", tostring(folder) .. "/out.html")
      assert.equal(0, it.status, it.err)
      assert.is_nil(it.err:find "traceback")
      has(it.out, "in 0 of 0 pairs")
    end
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

  it("says how it is used", function()
    local it = try "--help"
    assert.equal(0, it.status)
    has(it.out, "--html FILE")
    has(it.out, "what differs, and all reports")
  end)

  it("says what is wrong", function()
    for _, case in ipairs {
      { "an operand is missing" }, { "there is no strategy 'magic'", "magic" },
      { "there is no strategy 'magic'", "default", "--against", "magic" },
      { "cannot read the strategy", "/no/such.lua" },
      { "cannot read /no/such.json", "default", "--against", "/no/such.json" },
      { "--resume goes on with a file", "default", "--resume" },
      { "--json and --html are one file", "default", "--json", "/x", "--html", "/x" },
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
