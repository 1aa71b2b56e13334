-- The examples in scripts/strategies, in a world without a network; sweep in a lab: lab_examples_spec.lua. And where
-- strategies are found by their names.
local context = require "p2pd.context"
local luv = require "luv"
local mosquitto = require "spec.support.mosquitto"
local pipeline = require "p2pd.pipeline"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local report = require "p2pd.report"
local run = require "spec.support.run"
local task = require "p2pd.task"
local world = require "spec.support.world"

local NEAR = { { ip = "192.168.1.7", prefix = 24, interface = "eth0" } }

-- A relay that the peer comes to after so long.
local function with_relay(here, after)
  function here.means.relay()
    return {
      ip = "30.1.0.3", port = 50000, server = "turn", permit = function() return true end, close = function() end,
      wait = function(_, timeout)
        task.sleep(math.min(after, timeout))
        return after <= timeout and {} or nil, "ETIMEDOUT: no", "ETIMEDOUT"
      end,
    }
  end
  function here.means.adopt() return here:pipe "relayed" end
  return here
end

local function go(name, options)
  local strategy = assert(pipeline.load(name))
  local own_report = report.new()
  local ctx = context.new {
    peer = world.address { machine_id = "theirs", nat = "full-cone", external = options.external },
    own = world.address { port = 5000, external = "9.9.9.9", internal = "192.168.1.7" },
    role = "connect", means = options.world.means, report = own_report, deadline = task.now() + 20,
  }
  local began = task.now()
  local pipe, message, code = pipeline.run(strategy, ctx)
  local rungs = {}
  for _, rung in ipairs(own_report:table().rungs) do rungs[rung.name] = rung end
  return {
    pipe = pipe, message = message, code = code, took = task.now() - began, rungs = rungs,
    open = options.world:open_count(), remote = pipe and pipe.remote, winner = own_report.winner,
  }
end

describe("never-relay", function()
  it("goes over the other ways twice, and has no relay in it", run.virtual(function()
    local here = with_relay(world.new { hosts = { ["8.8.8.8:4000"] = { after = 0.1, code = "ECONNREFUSED" } } }, 0)
    local result = go("never-relay", { world = here })
    assert.is_nil(result.pipe)
    assert.is_nil(result.rungs.relay)
    assert.equal(2, result.rungs.direct.tries)
    assert.is_nil(pipeline.responder(assert(pipeline.load "never-relay"), "relay"))
    here.hosts["8.8.8.8:4000"] = { after = 0.1 }
    assert.equal("direct", go("never-relay", { world = here }).winner)
  end))
end)

describe("relay-at-once", function()
  local function attempt(direct, relay)
    return go("relay-at-once", { world = with_relay(world.new { hosts = { ["8.8.8.8:4000"] = direct } }, relay) })
  end

  it("keeps what is better when that comes within the grace time", run.virtual(function()
    local result = attempt({ after = 0.6 }, 0.2)
    assert.same({ "8.8.8.8:4000", 1 }, { result.remote, result.open })
    assert.near(0.6, result.took, 1e-3)
    assert.equal("ELOST", result.rungs.relay.code)
    assert.near(0.1, attempt({ after = 0.1 }, 0.2).took, 1e-3)
  end))

  it("uses the relay when nothing better has come by then, or without it when it fails", run.virtual(function()
    local result = attempt({ after = 0.9 }, 0.2)
    assert.same({ "relayed", 1 }, { result.remote, result.open })
    assert.near(0.7, result.took, 1e-3)
    assert.equal("8.8.8.8:4000", attempt({ after = 2 }, 99).remote)
  end))

  it("fails when all has, and can be restricted as any pipeline", run.virtual(function()
    local result = attempt({ after = 0.1, code = "ECONNREFUSED" }, 99)
    assert.same({ 0 }, { result.open })
    assert.is_string(result.code)
    local rest = assert(pipeline.restrict(assert(pipeline.load "relay-at-once"), { "direct", "relay" }))
    assert.same({ "relay-at-once", "direct", "relay" }, { rest.name, rest.children[1].name, rest.children[2].name })
  end))
end)

describe("fastest-of-three", function()
  it("keeps the one with the quickest handshakes", run.virtual(function()
    local here = world.new {}
    local times, count = { 0.09, 0.03, 0.05 }, 0
    function here.means.dial(how)
      count = count + 1
      local took = times[count]
      task.sleep(math.min(took, how.timeout))
      if took > how.timeout then return nil, "ETIMEDOUT: no", "ETIMEDOUT" end
      return here:pipe("number " .. count)
    end
    local result = go("fastest-of-three", { world = here })
    assert.same({ "number 2", 1, 3 }, { result.remote, result.open, count })
    assert.near(0.15, result.took, 1e-3) -- the third has no longer than the best
    times, count = { 0.01, 9, 9 }, 0
    assert.equal("number 1", go("fastest-of-three", { world = here }).remote)
    times, count = { 9, 9, 9 }, 0
    assert.equal("ETIMEDOUT", go("fastest-of-three", { world = here }).code)
  end))
end)

describe("lan-only", function()
  it("dials what is in this network alone", run.virtual(function()
    local here = world.new { prefixes = NEAR, hosts = {
      ["8.8.8.8:4000"] = { after = 0 }, ["192.168.1.5:4000"] = { after = 0.01 },
    } }
    local result = go("lan-only", { world = here, external = "9.9.9.9" })
    assert.same({ "192.168.1.5:4000", 1 }, { result.remote, #here.dialed })
    result = go("lan-only", { world = here })
    assert.equal("the peer is in another network", result.rungs["lan-only"].skipped)
    assert.equal(1, #here.dialed)
  end))
end)

describe("sweep", function()
  -- Both ends of it, with no network between: what one asks is answered by the other.
  local function shots_of(own_facts, samples)
    local fired
    local here = world.new { on_request = function(said)
      assert.equal("sweep", said.kind)
      return { kind = "reply", ip = "8.8.8.8", port = 7000, step = own_facts.nat == "symmetric" and 0 or 2, age = 0.02 }
    end }
    function here.means.facts() return own_facts end
    function here.means.hold()
      return { external_ip = "9.9.9.9", external_port = 6000, local_port = 6000, close = function() end }
    end
    function here.means.sample() samples.close = function() end return samples end
    function here.means.puncher(options)
      return {
        fire = function(_, shots) fired = { shots = shots, syns = options.syns } end,
        wait = function() return nil, "ETIMEDOUT: no", "ETIMEDOUT" end,
        close = function() end, seen = function() return { sent = 0 } end,
      }
    end
    local result = go("sweep", { world = here })
    assert.equal(4, result.rungs.sweep.tries)
    return fired, here.requests[1]
  end

  it("fires at all ports ahead, where its own is sure", run.virtual(function()
    local fired, said = shots_of({ nat = "port-restricted", delta = "equal", value = 0, ip = "9.9.9.9" })
    assert.same({ 6000, 0 }, { said.port, said.step })
    assert.same({ 7000, 7002, 7004, 6000 }, { fired.shots[1].remote_port, fired.shots[2].remote_port,
      fired.shots[3].remote_port, fired.shots[3].local_port })
    assert.is_true(fired.syns >= #fired.shots)
  end))

  it("fires once, and tells the foreseen port, where that is not", run.virtual(function()
    local fired, said = shots_of({ nat = "symmetric", delta = "independent", value = 2, ip = "9.9.9.9" }, {
      { local_port = 3000, external_port = 5000 }, { local_port = 3001, external_port = 5002 },
    })
    assert.same({ 5004, 2 }, { said.port, said.step })
    assert.same({ 1, 3002, 7000 }, { #fired.shots, fired.shots[1].local_port, fired.shots[1].remote_port })
  end))
end)

describe("each example", function()
  it("is short, has a name, and says in its first words what it is", function()
    local count = 0
    for _, each in ipairs(pipeline.list()) do
      local text = assert(pipeline.text(each.name))
      assert.truthy(text:find("^%-%- " .. each.name:gsub("%-", "%%-") .. ": "), each.name)
      if each.from == "example" then
        count = count + 1
        assert.is_true(select(2, text:gsub("\n", "")) < 60)
        assert.truthy(pipeline.load(each.name))
      end
    end
    assert.equal(6, count)
  end)
end)

-- Names ---------------------------------------------------------------------------------------------------------------

local MINE = [[
return {
  name = "mine",
  connect = function(ctx)
    local reply, message, code = ctx:request {}
    if not reply then return nil, message, code end
    return ctx:try(require("p2pd").pipeline.load "direct")
  end,
  respond = function(ctx, message) ctx:reply(message, {}) end,
}
]]

describe("a strategy of the user's own folder", function()
  local broker, folder, home, settings

  setup(function()
    broker = mosquitto.start()
    folder = processes.new_folder()
    home = folder .. "/p2pd-lua/strategies"
    luv.fs_mkdir(folder .. "/p2pd-lua", 448)
    luv.fs_mkdir(home, 448)
    settings = folder .. "/settings.lua"
    processes.write(settings, ("return { mqtt = {{ host = %q, port = %d }}, stun = {}, ntp = {}, turn = {} }\n")
      :format(broker.host, broker.port))
    luv.fs_chmod(settings, 384)
  end)
  teardown(function()
    broker:stop()
    processes.remove(folder)
  end)

  before_each(function()
    processes.write(home .. "/mine.lua", MINE)
    luv.fs_chmod(home .. "/mine.lua", 384)
    luv.fs_chmod(home, 448)
  end)

  local function start(name, key, ...)
    return program.start { env = { XDG_CONFIG_HOME = folder }, program.path, name, "--settings", settings,
      "--key", ("%s/%s.pem"):format(folder, key), "--bind", "127.0.0.1", ... }
  end

  local function listen(...)
    local child = start("listen", "far", "--echo", ...)
    assert(program.await(function() return child.out:find "address %S+\n" or child.status end))
    return child, assert(child.out:match "address (%S+)\n", child.err)
  end

  local function connect(address, ...)
    local child = start("connect", "near", address, "--json", ...)
    child:write "hello\n"
    child:finish_input()
    assert(program.await(function() return child.status end))
    return child
  end

  it("is known by its name to connect and listen", function()
    local far <close>, address = listen("--strategies", "direct,mine")
    local child = connect(address, "--strategies", "mine,relay")
    assert.same({ 0, "hello\n" }, { child.status, child.out }, child.err)
    assert.truthy(child.err:find('"strategy":"direct"', 1, true), child.err)
    child = connect(address, "--pipeline", "mine")
    assert.equal(0, child.status, child.err)
    local _ = far
  end)

  it("is passed over where the peer has none of that name", function()
    local far <close>, address = listen()
    local child = connect(address, "--strategies", "mine,direct")
    assert.equal(0, child.status, child.err)
    local _ = far
  end)

  it("is refused when others may write it, or its folder", function()
    local function refused()
      local child = connect("whatever", "--strategies", "mine")
      assert.equal(2, child.status)
      return child.err
    end
    luv.fs_chmod(home .. "/mine.lua", 438)
    assert.truthy(refused():find("mine.lua: others may write it; `chmod go-w` it", 1, true))
    luv.fs_chmod(home .. "/mine.lua", 384)
    luv.fs_chmod(home, 511)
    assert.truthy(refused():find("strategies: others may write it", 1, true))
  end)

  it("is listed, and cannot take the name of one that is built in", function()
    processes.write(home .. "/direct.lua", "return 3")
    local ended = program.run { program.path, "strategies", env = { XDG_CONFIG_HOME = folder } }
    os.remove(home .. "/direct.lua")
    assert.truthy(ended.out:find "\nmine +own", ended.out)
    assert.truthy(ended.out:find("direct           own       its name is taken: one that is built in has it", 1, true))
    local copy = folder .. "/copy.lua"
    ended = program.run { program.path, "strategies", "default", env = { XDG_CONFIG_HOME = folder } }
    processes.write(copy, ended.out)
    assert.equal(pipeline.default().name, assert(pipeline.load(copy)).name)
    ended = program.run { program.path, "strategies", "mime", env = { XDG_CONFIG_HOME = folder } }
    assert.truthy(ended.err:find("did you mean mine?", 1, true), ended.err)
  end)
end)
