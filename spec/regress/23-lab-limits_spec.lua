-- What labs do with what they cannot see, cannot be, or cannot say; and signals that come while a command starts.
local luv = require "luv"
local child = require "p2pd.lab.child"
local lab = require "p2pd.lab"
local labs = require "spec.support.lab"
local lines = require "p2pd.lab.lines"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local program_path = require "p2pd.program_path"
local requests = require "p2pd.lab.requests"
local run = require "spec.support.run"
local state = require "p2pd.lab.state"
local task = require "p2pd.task"
local topology = require "p2pd.lab.topology"

local obstacle = labs.obstacle(labs.users()[1])
local function test(name, f)
  it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or f)
end

local function has(text, part)
  assert(text:find(part, 1, true), ("'%s' is not in:\n%s"):format(part, text))
end

local function refused(it, status, part)
  assert.equal(status, it.status, it.err)
  has(it.err, part)
  assert.equal(1, select(2, it.err:gsub("\n", "")), it.err)
end

-- Puts something in the place of a module's function, until the scope ends.
local function instead(module, name, f)
  local real = module[name]
  module[name] = f
  return setmetatable({}, { __close = function() module[name] = real end }), real
end

local function with_variables(variables)
  local restored, real
  restored, real = instead(os, "getenv", function(name)
    if variables[name] == nil then return real(name) end
    return variables[name] or nil
  end)
  return restored
end

describe("a lab that cannot be looked at", function()
  local user
  setup(function()
    if obstacle then return end
    user = labs.start(labs.users()[1])
    assert.equal(0, user:lab("up", "e", "--hosts", "x=internet").status)
  end)
  teardown(function()
    if not user then return end
    user:lab("down", "e")
    user:stop()
  end)

  -- The program, started by way of others.
  local function by(words, ...)
    local command = user:command(...)
    local all = table.move(command, 1, #command, #words + 1, words)
    all.env, all.cwd = command.env, command.cwd
    return program.run(all)
  end

  local function still_runs()
    assert.equal(0, user:lab("exec", "--lab", "e", "x", "true").status)
  end

  test("from another pid namespace is left alone", function()
    local function apart(...)
      local words = { "unshare", "--pid", "--fork", "--mount-proc" }
      if luv.getuid() ~= 0 then table.move({ "--user", "--map-current-user" }, 1, 2, #words + 1, words) end
      return by(words, "lab", ...)
    end
    local sentence = "ENOTSUP: lab 'e' may run, but from here it cannot be reached"
    refused(apart("status", "--lab", "e"), 1, sentence)
    refused(apart("down", "e"), 1, sentence)
    refused(apart("exec", "--lab", "e", "x", "true"), 1, sentence)
    refused(apart("up", "e"), 1, "if it has ended, remove " .. user.state .. "/lab/e")
    still_runs()
  end)

  test("from one of its hosts is left alone", function()
    local words = user:command("lab", "exec", "--lab", "e", "x", "env", "-u", "P2PD_LAB_HOST", "-u", "XDG_RUNTIME_DIR",
      user.program, "lab", "down", "e")
    refused(program.run(words), 1, "ENOTSUP: lab 'e' may run, but from here it cannot be reached")
    still_runs()
  end)

  test("without the right to look is left alone", function()
    if luv.getuid() ~= 0 then return pending "only root can take rights away" end
    local without = { "setpriv", "--bounding-set=-all", "--inh-caps=-all" }
    refused(by(without, "lab", "exec", "--lab", "e", "x", "true"), 1, "EPERM: lab 'e' runs, but from here it cannot be")
    still_runs()
  end)

  it("is known by its view, its pid and its start", function()
    local own = state.identity(processes.read "/proc/self/stat", luv.fs_readlink "/proc/self/ns/pid", state.view())
    assert.equal("alive", state.life(own))
    local function with(key, value)
      local other = {}
      for name, each in pairs(own) do other[name] = each end
      other[key] = value
      return state.life(other)
    end
    assert.equal("unknown", with("view", "1-1"))
    assert.equal("dead", with("start", "1"))
    assert.equal("dead", with("namespace", "1"))
    assert.equal("dead", with("pid", 2 ^ 22 + 1))
    local hidden <close> = instead(require "p2pd.lab.files", "read", function(path) -- luacheck: ignore
      return path == "/proc/self/status" and "\nNSpid:\t5\n" or nil
    end)
    assert.equal("unknown", state.life(own))
  end)
end)

describe("a folder that is no lab's", function()
  it("is left as it is", function()
    local own <close> = program.folder()
    local restored <close> = with_variables { TMPDIR = tostring(own), XDG_RUNTIME_DIR = false } -- luacheck: ignore
    local folder = assert(state.folder())
    luv.fs_mkdir(folder:match "^(.*)/", 448)
    luv.fs_mkdir(folder, 448)
    luv.fs_mkdir(folder .. "/foo", 448)
    own:write(folder:sub(#tostring(own) + 2) .. "/foo/precious", "")
    own:write(folder:sub(#tostring(own) + 2) .. "/bar", "")
    for name, path in pairs { foo = "/foo/precious", bar = "/bar" } do
      local began = luv.hrtime()
      local _, message, code = task.run(lab.up, { name = name, servers = false })
      assert.same({ "EBUSY", ("EBUSY: %s%s is no lab's; remove it, or take another name"):format(folder, path) },
        { code, message })
      assert(luv.hrtime() - began < 1e9)
      assert.equal("ENOENT", select(3, task.run(lab.attach, name)))
      assert.truthy(luv.fs_stat(folder .. path))
    end
  end)

  it("is looked for at an absolute path", function()
    local function folder(tmp)
      local restored <close> = with_variables { TMPDIR = tmp, XDG_RUNTIME_DIR = false } -- luacheck: ignore
      return (assert(state.folder()):match "^(.*)/p2pd%-lua%-%d+/lab$")
    end
    assert.equal("/tmp", folder "")
    assert.equal("/tmp", folder(false))
    assert.equal(luv.cwd() .. "/x", folder "x")
  end)
end)

describe("a command on a host", function()
  local user
  setup(function()
    if obstacle then return end
    user = labs.start(labs.users()[1])
    assert.equal(0, user:lab("up", "--hosts", "x=internet").status)
  end)
  teardown(function()
    if not user then return end
    user:lab "down"
    user:stop()
  end)

  local function on_x(...) return user:lab("exec", "x", ...) end

  local function sleeps(seconds)
    for name in processes.folder "/proc" do
      local words = name:find "^%d+$" and processes.read("/proc/" .. name .. "/cmdline")
      if words == ("sleep\0%s\0"):format(seconds) then return true end
    end
    return false
  end

  test("hears of a signal, however early that comes", function()
    for ms = 4, 24, 2 do
      local running <close> = user:begin("exec", "x", "sleep", "776.5")
      luv.sleep(ms)
      running:kill "sigint"
      assert.equal(130, running:wait())
    end
    assert.is_false(sleeps "776.5")
  end)

  test("ends with who runs it, however early that is killed", function()
    for ms = 4, 24, 2 do
      local running <close> = user:begin("exec", "x", "sleep", "776.6")
      luv.sleep(ms)
      running:kill "sigkill"
      running:wait()
    end
    assert.is_true(program.await(function() return not sleeps "776.6" end, 3))
  end)

  test("has the exit status that it ended with", function()
    assert.equal(130, on_x("sh", "-c", "kill -INT $$").status)
    assert.equal(131, on_x("sh", "-c", "ulimit -c 0; kill -QUIT $$").status)
    assert.equal(1, on_x("sh", "-c", "trap 'exit 1' INT; kill -INT $$; sleep 1").status)
    local running <close> = user:begin("exec", "x", "sh", "-c", "trap 'exit 1' INT; echo there; sleep 9 & wait")
    running:expect "there"
    running:kill "sigint"
    assert.equal(1, running:wait())
    local killed = on_x("sh", "-c", "kill -KILL $$")
    assert.same({ 137, "" }, { killed.status, killed.err })
  end)

  test("reads and writes what its caller would, in its caller's folder and environment", function()
    local words = user:command("lab", "exec", "x", "bash", "-c", "cat; pwd; echo $PWD; printenv 'a.b'; trap")
    words.input, words.cwd, words.env["a.b"], words.env.PWD = "in\n", user.tmp, "odd", user.tmp
    assert.equal(("in\n%s\n%s\nodd\n"):format(user.tmp, user.tmp), program.run(words).out)
  end)

  test("is alone with its host's programs", function()
    local other <close> = user:begin("exec", "x", "sleep", "776.7")
    assert.is_true(program.await(function() return sleeps "776.7" end, 3))
    local it = on_x("sh", "-c", "kill -KILL -1; echo there")
    assert.equal("there\n", it.out)
    assert.equal(137, other:wait())
    assert.equal(0, user:lab("status").status)
    -- Its orphans are taken in.
    assert.equal(0, on_x("sh", "-c", "(sleep 0 & exec true); sleep 0.1; ! ps ax -o stat= | grep -q Z").status)
  end)

  test("serves at any port without rights", function()
    local source = 'local s = require("luv").new_tcp() print(s:bind("30.4.1.2", 443)) s:close()'
    assert.equal("0\n", on_x("p2pd-lua", "-e", source).out)
  end)

  test("is refused in one sentence in a folder that is gone", function()
    local words = user:command("lab", "exec", "x", "true")
    local all = { "sh", "-c", 'mkdir gone; cd gone; rmdir ../gone; exec "$0" "$@"' }
    table.move(words, 1, #words, #all + 1, all)
    all.env, all.cwd = words.env, user.tmp
    refused(program.run(all), 1, "ENOENT: the folder that this program is in is gone")
  end)

  test("is found without a PATH, too", function()
    local words = user:command("lab", "exec", "x", "true")
    words.env.PATH = ""
    assert.equal(0, program.run(words).status)
    local restored <close> = with_variables { PATH = "" } -- luacheck: ignore
    assert.equal("/usr/bin:/bin", program_path.path():sub(1, 13))
  end)
end)

describe("the program lab", function()
  local function lab_to(output, ...)
    return program.run { "sh", "-c", ('exec "$0" lab "$@" %s'):format(output), program.path, ... }
  end

  it("says it when it cannot say what there is", function()
    if obstacle then return pending("no namespaces here: " .. obstacle) end
    refused(lab_to(">/dev/full", "up", "full", "--hosts", "x=internet"), 1, "EIO: cannot write what there is to say")
    assert.equal("ENOENT", select(3, task.run(lab.attach, "full"))) -- nobody would know of it
    assert.equal(0, lab_to("", "up", "full", "--hosts", "x=internet").status)
    refused(lab_to(">/dev/full", "status", "--lab", "full", "--json"), 1, "EIO: cannot write what there is to say")
    assert.equal(0, lab_to("", "down", "full").status)
  end)

  it("does not let a person start the lab's own process", function()
    refused(lab_to("</dev/null", "keeper"), 2, "EINVAL: this is a part of each lab")
    refused(lab_to("", "keeper"), 2, "EINVAL: this is a part of each lab")
  end)
end)

describe("a plan that cannot work", function()
  local function refusal(options, part)
    local plan, message, code = topology.plan(options)
    assert.same({ nil, "EINVAL" }, { plan, code })
    has(message, part)
  end

  local function hosts(count, router)
    local list = {}
    for i = 1, count do list["h" .. i] = router end
    return list
  end

  it("is none", function()
    refusal({ a = { carrier = "symmetric/random" }, routers = { ["a-carrier"] = "open" } }, "called 'a-carrier'")
    refusal({ a = "open", hosts = hosts(246, "a") }, "router 'a' has more than 245 hosts behind it")
    refusal({ hosts = hosts(255, "internet") }, "is one too many: only 254 by name can be on the internet")
    refusal({ hosts = { x = { "internet", "internet" } } }, "host 'x' is on the internet twice")
    local many = {}
    for i = 1, 51 do many[i] = "a" end
    refusal({ a = "open", hosts = { x = many } }, "host 'x' has more than 50 uplinks")
    assert(topology.plan { a = "open", hosts = hosts(245, "a") })
    assert(topology.plan { hosts = hosts(254, "internet") })
  end)

  it("is not that of hosts behind the default routers", function()
    local plan = assert(topology.plan { routers = {}, hosts = { a1 = "a", a2 = { "a" }, b = "b" } })
    assert.equal("192.168.1.11", plan.host.a2.links[1].address)
    assert.equal("port-restricted/equal", plan.router.b.options.nat)
    assert.is_nil(assert(topology.plan { hosts = { a = "a" } }).router.b)
    plan = assert(topology.plan { a = "open", hosts = { x = "b" } })
    assert.equal("port-restricted/equal", plan.router.b.options.nat)
    assert.equal("port-restricted/equal", topology.DEFAULTS.a)
  end)
end)

describe("values that make no sense", function()
  it("are refused, whatever they are", function()
    local function f() end
    for _, options in ipairs {
      { hosts = { x = { "internet", clock_error = 0 / 0 } } }, { hosts = { x = { "internet", clock_error = 1 / 0 } } },
      { hosts = { x = { 0 / 0 } } }, { hosts = { x = { routers = { "internet", y = f } } } }, { a = { seed = 0 / 0 } },
      { a = { ports = { 1 / 0, f } } }, { a = { carrier = f } }, { name = f },
      { hosts = { x = { routers = { "internet", [1e6] = "internet" } } } },
    } do
      local up, message, code = lab.up(options)
      assert.same({ nil, "EINVAL" }, { up, code }, message)
      has(message, "EINVAL: ")
    end
    local loop = {}
    loop.loop = loop
    for _, value in ipairs { 0 / 0, 1 / 0, -1 / 0, f, loop, { [true] = 1 }, { [1.5] = 1 } } do
      local _, message, code = lines.can_carry { loss = value }
      assert.equal("EINVAL", code)
      has(message, "EINVAL: '")
    end
    assert.is_true(lines.can_carry { loss = 0.5, list = { 1, "x", true } })
  end)

  test("are refused by a lab that runs, too", run(function()
    local net <close> = assert(lab.up { a = "symmetric/random", servers = false })
    local function refusal(part, _, message, code)
      assert.equal("EINVAL", code, message)
      has(message, part)
    end
    refusal("'since' is a number of seconds, not 'x'", net:timeline "x")
    refusal("'since' is", net:timeline(0 / 0))
    refusal("'loss' is", net:set("a", { loss = 0 / 0 }))
    refusal("'nat' is a function", net:set("a", { nat = print }))
    refusal("from 30.2.1.2 to 30.2.1.254", net:set("a", { address = "30.2.1.99999999999999999999" }))
    refusal("'name' is a function", net:host(print))
    local a = assert(net:host "a")
    -- A router's end takes its events, and nobody else's.
    local first = net.identity.pid
    local keeper = processes.read(("/proc/%d/task/%d/children"):format(first, first)):match "%d+"
    for pid in processes.read(("/proc/%s/task/%s/children"):format(keeper, keeper)):gmatch "%d+" do
      local is_router = processes.read("/proc/" .. pid .. "/cmdline"):find "lab\0router"
      if is_router then luv.kill(math.tointeger(pid), "sigkill") end
    end
    has(assert(net:timeline()), "a is left out: EIO: router a has ended")
    assert(net:down())
    assert.same({ nil, "ECLOSED: the lab is down", "ECLOSED" }, { a:run { "true" } })
    net.closed = false -- it ended without this object
    for _, call in ipairs { "run", "exec", "start", "argv" } do
      local _, message, code = a[call](a, { "true" })
      assert.equal("ECLOSED", code, message)
    end
    net.closed = true
  end))

  it("of a keeper's client are refused", function()
    local keeper = { plan = { routers = {} }, events = {}, began = 0 }
    local answer = requests.answer(keeper, { ["do"] = "timeline", since = {} })
    assert.equal("EINVAL", answer.code)
  end)
end)

describe("a server that ends at once", function()
  it("is told of at once", run(function()
    local own <close> = program.folder()
    local server = assert(child.start { "sh", "-c", "echo oops; exit 3", name = "it", log = own:write("log", "") })
    local began = luv.hrtime()
    assert.is_nil(server:while_it_runs(10, function() return task.sleep(10) end))
    assert(luv.hrtime() - began < 2e9)
    assert.equal("EIO: it has ended: oops", (server:failure()))
    local other = assert(child.start { "sleep", "9", name = "it", log = own:write("log", "") })
    assert.same({ true, "x" }, { other:while_it_runs(10, function() return true, "x" end) })
    assert.same({ nil, "y" }, { other:while_it_runs(0.01, function() return nil, "y" end) })
    other:kill()
  end))
end)
