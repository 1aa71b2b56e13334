-- check: timeout 120
-- The examples that need routers, in a lab: sweep where other flows take the ports that were foreseen, and
-- relay-at-once where only a relay works, and where punching does.
local cjson = require "cjson"
require "p2pd"
local labs = require "spec.support.lab"
local processes = require "spec.support.processes"
local program = require "spec.support.program"

local user = labs.users()[1]
local obstacle = labs.obstacle(user)

describe("in a lab", function()
  setup(function() labs.start(user) end)
  teardown(function()
    user:clear()
    user:nothing_left(false)
    user:stop()
  end)

  local function runs_of(pairs_text, ...)
    local path = user.tmp .. "/examples.json"
    os.remove(path)
    local command = user:command("lab", "matrix", "--pairs", pairs_text, "--json", path, ...)
    command.timeout = 100
    local ended = program.run(command)
    local text = processes.read(path)
    assert(text ~= "", ended.out .. ended.err)
    return cjson.decode(text).runs
  end

  local function test(name, f)
    it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or f)
  end

  test("sweep comes through whoever asks, though others take ports in between", function()
    local runs = runs_of("port-restricted/equal:symmetric/independent:1,symmetric/independent:1:port-restricted/equal",
      "--pipeline", "sweep", "--noise", "300")
    for _, run in ipairs(runs) do assert.equal("sweep", run.strategy, run.text) end
    assert.equal(2, #runs)
  end)

  test("relay-at-once uses a relay where nothing else works, and what is better where that is there soon", function()
    local runs = runs_of("symmetric/random:symmetric/random,port-restricted/equal:port-restricted/equal",
      "--pipeline", "relay-at-once")
    local by = {}
    for _, run in ipairs(runs) do by[run.from] = run end
    assert.equal("relay", by["symmetric/random"].strategy, by["symmetric/random"].text)
    assert.equal("punch", by["port-restricted/equal"].strategy, by["port-restricted/equal"].text)
  end)
end)
