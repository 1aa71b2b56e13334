-- What ends with a lab, with a command on its hosts, and with an attempt to make one; and folders that others remove.
local luv = require "luv"
local lab = require "p2pd.lab"
local labs = require "spec.support.lab"
local p2pd = require "p2pd"
local probe = require "p2pd.lab.probe"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local run = require "spec.support.run"
local state = require "p2pd.lab.state"
local task = require "p2pd.task"

local obstacle = labs.obstacle(labs.users()[1])
local function test(name, f)
  it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or run(f))
end

-- Puts something in the place of a module's function, until the scope ends.
local function instead(module, name, f)
  local real = module[name]
  module[name] = f
  return setmetatable({}, { __close = function() module[name] = real end }), real
end

-- How many run `sleep` for that long.
local function sleepers(seconds)
  local count = 0
  for name in processes.folder "/proc" do
    local is_pid = name:find "^%d+$"
    if is_pid and processes.read("/proc/" .. name .. "/cmdline") == ("sleep\0%s\0"):format(seconds) then
      count = count + 1
    end
  end
  return count
end

local function one_runs(seconds)
  assert(program.await(function() return sleepers(seconds) == 1 end, 3), "sleep " .. seconds .. " does not run")
end

local function all_end(seconds)
  assert(program.await(function() return sleepers(seconds) == 0 end, 3), "sleep " .. seconds .. " goes on")
end

describe("a command on a host", function()
  local net, host
  setup(function()
    if not obstacle then
      net = task.run(lab.up, { hosts = { x = "internet" }, servers = false, stay = true })
      host = task.run(net.host, net, "x")
    end
  end)
  teardown(function()
    if net then task.run(net.down, net) end
  end)

  test("ends with all that it has started when it takes too long", function()
    for i, script in ipairs {
      "sleep %s & wait", "sleep %s >/dev/null 2>&1 & wait", "sleep %s & exit 0", "set -m; sleep %s & wait",
      "trap '' TERM; sleep %s & wait; wait",
    } do
      local seconds = ("777.2%d"):format(i)
      local _, message, code = host:run { "sh", "-c", script:format(seconds), timeout = 0.2 }
      assert.equal("ETIMEDOUT", code, message)
      all_end(seconds)
    end
  end)

  test("ends with all that it has started when its scope is left", function()
    do
      local child <close> = assert(host:start { "sh", "-c", "sleep 777.31 & echo there; wait" })
      assert.equal("there", child:lines()())
      one_runs "777.31"
    end
    all_end "777.31"
    -- What has ended by itself may leave something behind.
    assert.equal(0, assert(host:run { "sh", "-c", "sleep 777.32 >/dev/null 2>&1 &" }).status)
    one_runs "777.32"
    assert(host:run { "pkill", "-f", "sleep 777.32" })
  end)

  test("ends as it likes when it is told to", function()
    local script = "trap 'exit 5' TERM; echo there; while :; do sleep 0.01; done"
    local child <close> = assert(host:start { "sh", "-c", script })
    assert.equal("there", child:lines()())
    child:close()
    assert.equal(5, child:exit_status())
    assert.equal(143, assert(host:run { "sh", "-c", "kill $$" }).status)
  end)

  test("ends with the task that runs it", function()
    for _, call in ipairs { "exec", "run" } do
      local running = p2pd.spawn(function() return host[call](host, { "sleep", "777.4" }) end)
      one_runs "777.4"
      running:cancel()
      running:wait()
      all_end "777.4"
    end
  end)

  test("takes what its call has a use for", function()
    local function refused(call, command, part)
      local ok, err = pcall(host[call], host, command)
      assert.is_false(ok)
      assert(err:find(part, 1, true), err)
    end
    refused("run", { "true", cwd = 5 }, "'cwd' is 5, not a string")
    refused("run", { "true", root = 0 }, "'root' is 0, not true or false")
    refused("run", { "true", env = 5 }, "'env' is 5, not a table of strings by names")
    refused("run", { "true", env = { "X=1" } }, "'env' is a table with others, not a table of strings by names")
    refused("run", { "true", env = { ["--help"] = "1" } }, "'env' is a table with others")
    refused("run", { "true", timeout = -1 }, "'timeout' is -1, not a number of seconds, zero or more")
    refused("run", { "true", input = 5 }, "'input' is 5, not a string")
    refused("run", { "echo", {} }, "argument 1 is a table, not a string")
    refused("run", { "echo", [3] = "x" }, "unknown option '3' of run")
    refused("run", {}, "a command is a table")
    refused("start", { "true", timeout = 1 }, "unknown option 'timeout' of start")
    refused("exec", { "true", input = "x" }, "unknown option 'input' of exec")
    refused("exec", { "true", timeout = 1 }, "unknown option 'timeout' of exec")
    refused("argv", { "true", timeout = 1 }, "unknown option 'timeout' of argv")
    assert.has_error(function() host:lua("", { input = "x" }) end, "unknown option 'input' of lua")
    assert.equal("5 6\n", assert(host:run { "echo", 5, 6, cwd = "/", root = false, timeout = 5 }).out)
    local _, err = pcall(function() return (host:run { "true", x = 1 }) end)
    assert(err:find "^%S*22%-lab%-ending_spec%.lua:%d+: ", err)
  end)
end)

describe("making a lab", function()
  test("fails when the second attempt does, and does not wait for the first", function()
    local attempts, taken = 0, nil
    local clean <close> = instead(state, "clean", function(found) -- luacheck: ignore
      luv.fs_rmdir(found.path)
      return true
    end)
    local restored <close>, real = instead(state, "begin", function(folder, view) -- luacheck: ignore
      attempts = attempts + 1
      if attempts == 2 then return nil, "EIO: no second one", "EIO" end
      taken = folder .. "/second"
      local path, message, code = state.real_begin(folder, view)
      luv.fs_mkdir(taken, 448)
      luv.fs_mkdir(taken .. "/x", 448) -- so the name is another's when the keeper wants it
      return path, message, code
    end)
    state.real_begin = real
    local _, message = lab.up { name = "second", servers = false, hosts = { x = "internet" } }
    state.real_begin = nil
    luv.fs_rmdir(taken .. "/x")
    luv.fs_rmdir(taken)
    assert.same({ 2, "EIO: no second one" }, { attempts, message })
  end)

  it("makes the folder of labs anew when another's end has removed it", function()
    local own <close> = program.folder()
    local folder = tostring(own) .. "/p2pd-lua/lab"
    local real = luv.fs_mkdtemp
    local removed = 0
    local restored <close> = instead(luv, "fs_mkdtemp", function(template) -- luacheck: ignore
      removed = removed + 1
      if removed < 3 then state.tidy(folder) end
      return real(template)
    end)
    local path = assert(state.begin(folder, assert(state.view())))
    assert.equal(3, removed)
    assert.truthy(luv.fs_stat(path .. "/inside"))
  end)

  it("is not disturbed by who only looks", function()
    local own <close> = program.folder()
    local restored <close> = instead(os, "getenv", function(name) -- luacheck: ignore
      return name == "TMPDIR" and tostring(own) or nil
    end)
    task.run(function()
      assert.same({}, assert(lab.list()))
      assert.equal("ENOENT", select(3, lab.attach "x"))
    end)
    assert.is_nil(luv.fs_scandir_next(assert(luv.fs_scandir(tostring(own)))))
  end)

  it("needs the programs that are asked for, and no others", function()
    local needs = require "p2pd.lab.needs"
    local program_path = require "p2pd.program_path"
    local topology = require "p2pd.lab.topology"
    local which = program_path.which
    local missing = { mosquitto = true, turnserver = true, chronyd = true, miniupnpd = true, nft = true }
    local restored <close> = instead(program_path, "which", function(name) -- luacheck: ignore
      return not missing[name] and which(name) or nil
    end)
    local function check(options) return needs.check(assert(topology.plan(options))) end
    assert.is_true(check { servers = false })
    assert.equal("ENOENT: not installed: nft, miniupnpd; `apt-get install nftables miniupnpd-nftables` brings what is "
      .. "missing", select(2, check { a = { portmap = true }, servers = false }))
    assert.equal("ENOENT: not installed: turnserver, mosquitto, chronyd; `apt-get install coturn mosquitto chrony` "
      .. "brings what is missing", select(2, check {}))
  end)
end)

describe("a probe", function()
  it("ends when its time is over, also between two looks at the clock", run(function()
    local server = luv.new_tcp()
    server:bind("127.0.0.1", 0)
    server:listen(8, function() end) -- never answers
    local port, late = server:getsockname().port, 0
    local real = task.now
    local restored <close> = instead(task, "now", function() -- luacheck: ignore
      late = late + 0.4
      return real() + late
    end)
    assert.equal("ETIMEDOUT", select(3, probe.ask("mqtt", "127.0.0.1", port, 1)))
    server:close()
  end))
end)
