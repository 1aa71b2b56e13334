-- check: timeout 240
-- One pair of routers of each class meets as theory allows (spec/support/referee.lua), whatever an uninvited SYN gets;
-- `make matrix` tries them all. In namespaces, by the programs that users run.
local cjson = require "cjson"
require "p2pd"
local labs = require "spec.support.lab"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local referee = require "spec.support.referee"

-- Both directions of a class are in it once: who connects has other things to do than who is asked.
local PAIRS = {
  { "open", "port-restricted/random" }, { "port-restricted/equal", "open" },
  { "udp-firewall", "restricted/random" }, { "port-restricted/random", "port-restricted/preserving" },
  { "full-cone/random", "symmetric/random" }, { "symmetric/random", "restricted/equal" },
  { "symmetric/independent:7", "port-restricted/random" }, { "port-restricted/equal", "symmetric/independent:1" },
  { "symmetric/dependent:1", "udp-firewall" }, { "restricted/preserving", "symmetric/dependent:1" },
  { "symmetric/independent:1", "symmetric/independent:7" }, { "symmetric/dependent:1", "symmetric/independent:7" },
  { "symmetric/dependent:1", "symmetric/dependent:1" },
  { "port-restricted/equal", "symmetric/random" }, { "symmetric/random", "udp-firewall" },
  { "symmetric/random", "symmetric/random" }, { "symmetric/independent:1", "symmetric/random" },
  { "blocked", "open" }, { "symmetric/equal", "blocked" },
}
local RELAY_BY = 3000 -- ms: "never later than 3 s after the start"; what it takes then comes on top
local SLACK = 1500    -- ms, for machines that have other things to do

local SANITIZED = os.getenv "P2PD_SANITIZED" ~= nil -- all of this is what the sanitizers see in other specs, too

local user = labs.users()[1]
local obstacle = labs.obstacle(user)

describe("a pair of routers", function()
  setup(function() labs.start(user) end)
  teardown(function()
    user:clear()
    user:nothing_left(false)
    user:stop()
  end)

  -- Every `step`th pair.
  local function runs_of(step, ...)
    local names, path = {}, user.tmp .. "/pairs.json"
    for i = 1, #PAIRS, step do names[#names + 1] = PAIRS[i][1] .. ":" .. PAIRS[i][2] end
    local command = user:command("lab", "matrix", "--pairs", table.concat(names, ","), "--json", path, ...)
    command.timeout = 150
    local ended = program.run(command)
    local text = processes.read(path)
    assert(text ~= "", ended.out .. ended.err)
    local runs = cjson.decode(text).runs
    assert.equal(#names, #runs, ended.err)
    os.remove(path)
    return runs
  end

  local function test(name, f)
    it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or f)
  end

  local function meets(run)
    local what = ("%s > %s: %s"):format(run.from, run.to, run.text or run.message)
    assert(run.ok, what)
    local expected = referee.expected(run.from, run.to)
    if expected == "direct" then assert(run.strategy ~= "relay", what) end
    if expected == "relay" then assert.equal("relay", run.strategy, what) end
    assert(run.ms < RELAY_BY + SLACK, what)
    assert(run.report.why, what)
  end

  for _, word in ipairs { "drop", "reset" } do
    test("meets as theory allows where uninvited SYNs get a " .. word, function()
      for _, run in ipairs(runs_of(SANITIZED and 6 or word == "drop" and 1 or 2, "--uninvited", word)) do meets(run) end
    end)
  end

  test("meets beside other people's flows, and when packets are lost", function()
    for _, run in ipairs(runs_of(SANITIZED and 6 or 3, "--loss", "0.02", "--noise", "5")) do
      assert(run.ok, ("%s > %s: %s"):format(run.from, run.to, run.text or run.message))
    end
  end)
end)
