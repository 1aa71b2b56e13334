-- Labs as whole programs, as root and without: what they are, what a command finds there, and that nothing is left.
local cjson = require "cjson"
local luv = require "luv"
local labs = require "spec.support.lab"
local p2pd = require "p2pd"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local run = require "spec.support.run"
local texts = require "spec.support.texts"

local has, has_not = texts.has, texts.has_not

local UP_SECONDS = 0.6 -- what is promised
local SANITIZED = os.getenv "P2PD_SANITIZED" ~= nil

local function fine(it)
  assert(it.status == 0, ("status %d: %s%s"):format(it.status, it.out, it.err))
  return it
end

local function refused(it, status, part)
  assert.are.equal(status, it.status, it.err)
  has(it.err, part)
  has_not(it.err, "traceback")
end

local function keeper_of(first)
  return math.tointeger(processes.read(("/proc/%d/task/%d/children"):format(first, first)):match "%d+")
end

for _, user in ipairs(labs.users()) do
  describe("a lab of " .. user.name, function()
    local obstacle = labs.obstacle(user)
    local function test(name, f)
      it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or f)
    end

    setup(function() labs.start(user) end)
    after_each(function() user:clear() end)
    teardown(function() user:stop() end)

    test("comes up with all its servers, says what there is, and goes", function()
      local began = luv.hrtime()
      local up = fine(user:lab("up", "--a", "symmetric/random", "--b", "open", "--json"))
      local seconds = (luv.hrtime() - began) / 1e9
      assert(SANITIZED or seconds < 2 * UP_SECONDS, ("it took %.2f s"):format(seconds)) -- others may run meanwhile
      local there = cjson.decode(up.out)
      assert.are.same({ "lab", 2, 2, 7 }, { there.name, #there.routers, #there.hosts, #there.servers })
      assert.are.equal("symmetric/random", there.routers[1].options.nat)
      for _, server in ipairs(there.servers) do assert.is_true(server.runs, server.name) end
      local said = fine(user:lab "status").out
      for _, part in ipairs { "lab lab\n", "symmetric/random", "192.168.1.10", "30.3.2.10", "server broker2" } do
        has(said, part)
      end
      assert.are.same({ status = 0, out = "", err = "" }, user:lab "down")
      user:nothing_left()
      refused(user:lab "status", 1, "ENOENT: no lab 'lab' runs")
      user:nothing_left()
    end)

    test("runs commands on its hosts", function()
      fine(user:lab("up", "x"))
      local function on(host, ...) return user:lab("exec", "--lab", "x", host, ...) end
      has(fine(on("a", "ping", "-c1", "-W2", "30.1.0.1")).out, "ttl=63")
      has(fine(on("a", "ping", "-6", "-c1", "-W2", "2c0f:30:1::1")).out, "ttl=63")
      assert.are.equal(7, on("a", "--", "sh", "-c", "exit 7").status)
      assert.are.equal(143, on("a", "sh", "-c", "kill $$").status)
      assert.are.equal(127, on("a", "/no/such/program").status)
      -- Its own names, files and folders, and the caller's folder and input.
      local script = "hostname; pwd; echo $P2PD_LAB $P2PD_LAB_HOST; echo $HOME"
      has(fine(on("a", "sh", "-c", script)).out, "a\n/\nx a\n" .. user.state)
      if luv.fs_stat "/etc/machine-id" then -- a container may have none
        assert.are.equal("00000000000000000000000000000001\n", fine(on("a", "cat", "/etc/machine-id")).out)
      end
      local print_id = 'print(require("p2pd.core").identity.machine_id())'
      assert.are_not.equal(fine(on("a", "p2pd-lua", "-e", print_id)).out, fine(on("b", "p2pd-lua", "-e", print_id)).out)
      local words = user:command("lab", "exec", "--lab", "x", "a", "cat")
      words.input = "through and through"
      assert.are.equal("through and through", program.run(words).out)
      -- The settings name the lab's servers.
      local print_brokers = 'for _, b in ipairs(require("p2pd").settings.load().mqtt) do print(b.host) end'
      assert.are.equal("30.1.0.1\n30.1.0.2\n", fine(on("a", "p2pd-lua", "-e", print_brokers)).out)
      fine(user:lab("down", "x"))
      user:nothing_left()
    end)

    test("is not to be reached from its own hosts", function()
      fine(user:lab("up", "--hosts", "x=internet"))
      refused(user:lab("exec", "x", "p2pd-lua", "lab", "down"), 1, "this is host 'x' of lab 'lab'")
      refused(user:lab("exec", "x", "p2pd-lua", "lab", "up"), 1, "this is host 'x' of lab 'lab'")
      fine(user:lab "down")
    end)

    test("gives commands no capabilities, unless they are asked for", function()
      fine(user:lab("up", "--hosts", "x=internet"))
      local caps = fine(user:lab("exec", "x", "grep", "-E", "Cap[PEIA]|NoNewPrivs", "/proc/self/status")).out
      assert.are.equal(4, select(2, caps:gsub("0000000000000000", "")))
      has(caps, "NoNewPrivs:\t1")
      assert.are_not.equal(0, user:lab("exec", "x", "ip", "link", "set", "lo", "down").status)
      fine(user:lab("exec", "--root", "x", "ip", "link", "set", "lo", "down"))
      fine(user:lab "down")
    end)

    test("changes while it runs", function()
      fine(user:lab("up", "--a", "port-restricted/equal", "--router", "c", "nat=full-cone/equal", "addresses=2"))
      local function ping(host) return user:lab("exec", host, "ping", "-c1", "-W1", "30.1.0.1") end
      fine(user:lab("set", "a", "delay_ms=20", "address=30.2.1.77", "nat=symmetric/random"))
      local ms = tonumber(fine(ping "a").out:match "time=([%d.]+)")
      assert(ms >= 40 and ms < 60, ms)
      has(fine(user:lab "status").out, "30.2.1.77")
      fine(user:lab("set", "c", "address=30.2.2.100"))
      fine(ping "c")
      fine(user:lab("cut", "c"))
      assert.are.equal(1, ping("c").status)
      fine(user:lab("mend", "c"))
      fine(ping "c")
      fine(user:lab("restart", "broker1"))
      local timeline = fine(user:lab "timeline").out
      for _, part in ipairs {
        "as 30.2.1.77:", "a   set address=30.2.1.77 delay_ms=20 nat=symmetric/random\n", "the link is cut\n",
        "c   set up=false\n", "lab restart broker1\n",
      } do has(timeline, part) end
      refused(user:lab("set", "a", "nat=open"), 2, "whether a router translates cannot change")
      refused(user:lab("set", "a", "foo=1"), 2, "p2pd-lua lab set: EINVAL: a router has no option 'foo' (known: ")
      refused(user:lab("set", "a", "udp.foo=1"), 2, "'udp' has the unknown field 'foo'")
      refused(user:lab("set", "a", "carrier.loss=1"), 2, "router 'a' has no carrier")
      refused(user:lab("set", "a", "nat=symmetric/preserving@5-5"), 2, "more than the one port of 5-5")
      refused(user:lab("set", "a", "loss=2"), 2, "'loss' is 2; it has to be a number from 0 to 1")
      refused(user:lab("set", "a", "address=1.2.3.4"), 2, "from 30.2.1.2 to 30.2.1.254")
      refused(user:lab("set", "q", "loss=0"), 2, "no router 'q' (it has: a, c)")
      refused(user:lab("restart", "q"), 2, "no server 'q' (it has: broker1, ")
      refused(user:lab("exec", "q", "true"), 2, "no host 'q' (it has: a, c)")
      fine(user:lab "down")
      user:nothing_left()
    end)

    test("has LANs, hosts with two uplinks, carriers and miniupnpd", function()
      fine(user:lab("up", "--router", "a", "nat=port-restricted/equal", "portmap=true", "--router", "b",
        "nat=symmetric/random", "carrier.nat=port-restricted/equal", "--hosts", "a,a2=a,b,m=a+b"))
      local function ping(host, ...) return user:lab("exec", host, "ping", "-c1", "-W2", ...) end
      has(fine(ping("a", "192.168.1.11")).out, "ttl=64")                  -- on the LAN
      has(fine(ping("b", "30.1.0.1")).out, "ttl=62")                      -- two routers
      fine(ping("m", "-I", "192.168.1.12", "30.1.0.1"))
      fine(ping("m", "-I", "192.168.2.11", "30.1.0.1"))
      has(fine(user:lab "timeline").out, "b-carrier out icmp 100.64.2.2:")
      fine(user:lab "down")
      user:nothing_left()
    end)

    test("lives beside others, but of one name there is one", function()
      fine(user:lab("up", "one"))
      fine(user:lab("up", "two"))
      refused(user:lab("up", "two"), 1, "EBUSY: a lab 'two' runs already")
      fine(user:lab("exec", "--lab", "one", "a", "ping", "-c1", "-W2", "30.1.0.1"))
      fine(user:lab("exec", "--lab", "two", "a", "ping", "-c1", "-W2", "30.1.0.1"))
      fine(user:lab("down", "one"))
      fine(user:lab("exec", "--lab", "two", "a", "ping", "-c1", "-W2", "30.1.0.1"))
      fine(user:lab("down", "two"))
      local racers, statuses = {}, {}
      for i = 1, 4 do racers[i] = user:begin("up", "same") end
      for i, racer in ipairs(racers) do
        statuses[i] = racer:wait()
        racer:close()
        if statuses[i] ~= 0 then has(racer.err, "EBUSY") end
      end
      table.sort(statuses)
      assert.are.same({ 0, 1, 1, 1 }, statuses)
      fine(user:lab("down", "same"))
      user:nothing_left()
    end)

    test("is gone when any of its processes is killed, and the next one cleans up", function()
      for _, victim in ipairs { "first", "keeper", "unshare" } do
        fine(user:lab("up", "k"))
        local first = user:first "k"
        local pid = first
        if victim == "keeper" then
          pid = keeper_of(first)
        elseif victim == "unshare" then
          pid = math.tointeger(processes.read(("/proc/%d/stat"):format(first)):match "^.*%) %S+ (%d+)")
        end
        luv.kill(pid, "sigkill")
        user:nothing_left(false)
        fine(user:lab("up", "k"))
        fine(user:lab("down", "k"))
        user:nothing_left()
      end
    end)

    test("leaves nothing behind when a signal comes while it is made", function()
      for i = 0, 14 do
        local child <close> = user:begin("up", "s")
        luv.sleep(2 + 9 * i)
        child:kill(i % 2 == 0 and "sigint" or "sigterm")
        local status = child:wait()
        assert(status == (i % 2 == 0 and 130 or 143) or status == 0, "status " .. status .. child.err)
        has_not(child.err, "traceback")
        if child.out ~= "" then user:lab("down", "s") end -- a signal after its last word may find the lab made
      end
      user:nothing_left()
    end)

    test("of one command ends with it, however that ends", function()
      local script = "echo $P2PD_LAB_HOSTS; exit 5"
      assert.are.same({ status = 5, out = "a b\n", err = "" }, user:lab("run", "--a", "open", "--b", "open", "--", "sh",
        "-c", script))
      user:nothing_left()
      refused(user:lab("run", "--hosts", ",", "true"), 2, "EINVAL: this lab has no host")
      user:nothing_left()
      for signal, status in pairs { sigint = 130, sigterm = 143, sigkill = 137 } do
        local child <close> = user:begin("run", "sh", "-c", "echo there; exec sleep 100")
        child:expect "there"
        -- What the program started is its group in a terminal; here it alone hears of it.
        child:kill(signal)
        assert.are.equal(status, child:wait())
        user:nothing_left(signal ~= "sigkill" or false)
      end
    end)

    test("lets a person work at a terminal", function()
      fine(user:lab "up")
      local child <close> = program.start_in_terminal(user:command("lab", "exec", "a", "p2pd-lua"))
      child:expect "p2pd>"
      child:write "1 + 1\n"
      child:expect "2"
      child:write "print('go' .. 'ing') while true do end\n"
      child:expect "going" -- the terminal throws away what was typed and not read when Ctrl-C comes
      child:write "\x03"
      child:expect "cancelled"
      child:expect "p2pd>"
      child:write "\x04"
      assert.are.equal(0, child:wait())
      fine(user:lab "down")
      user:nothing_left()
    end)

    test("keeps out of folders that are not private", function()
      luv.fs_mkdir(user.state, 493)
      luv.fs_chown(user.state, user.uid, user.uid)
      refused(user:lab "up", 1, "is open to others")
      luv.fs_rmdir(user.state)
      luv.fs_mkdir(user.tmp .. "/elsewhere", 448)
      luv.fs_symlink(user.tmp .. "/elsewhere", user.state)
      refused(user:lab "up", 1, "is no folder")
      luv.fs_unlink(user.state)
      luv.fs_rmdir(user.tmp .. "/elsewhere")
    end)
  end)
end

describe("the program lab", function()
  local function lab(...) return program.run { program.path, "lab", ... } end

  it("tells how it is used", function()
    has(fine(lab "--help").out, "usage: p2pd-lua lab COMMAND")
    for _, name in ipairs { "up", "exec", "run", "status", "set", "cut", "mend", "restart", "timeline", "down" } do
      has(fine(lab(name, "--help")).out, "usage: p2pd-lua lab " .. name)
    end
  end)

  it("refuses what makes no sense with status 2", function()
    refused(lab(), 2, "usage: p2pd-lua lab COMMAND")
    refused(lab "fly", 2, "unknown command 'fly'")
    refused(lab("up", "--x"), 2, "unknown option '--x'")
    refused(lab("up", "one", "two"), 2, "'two' is one operand too many")
    refused(lab("up", "../x"), 2, "'../x' cannot be a lab's name")
    refused(lab("up", "--a", "foo"), 2, "unknown type 'foo'")
    refused(lab("up", "--router", "r", "nat=open", "foo=1"), 2, "a router has no option 'foo'")
    refused(lab("up", "--hosts", "x=r"), 2, "behind 'r', which is no router of this lab")
    refused(lab "exec", 2, "an operand is missing")
    refused(lab("exec", "a"), 2, "a command is missing")
    refused(lab("set", "a", "delay"), 2, "'delay' is no KEY=VALUE")
  end)

  it("says what is missing, and how to get it", function()
    local needs = require "p2pd.lab.needs"
    local program_path = require "p2pd.program_path"
    local plan = assert(require("p2pd.lab.topology").plan { a = { portmap = true } })
    local which = program_path.which
    local restored <close> = setmetatable({}, { -- luacheck: ignore
      __close = function() program_path.which = which end,
    })
    for name, package in pairs { ip = "iproute2", nsenter = "util-linux", nft = "nftables", chronyd = "chrony" } do
      function program_path.which(program_name) return program_name ~= name and which(program_name) or nil end
      local ok, message, code = needs.check(plan)
      assert.are.same({ nil, "ENOENT" }, { ok, code })
      assert.are.equal(("ENOENT: not installed: %s; `apt-get install %s` brings what is missing"):format(name, package),
        message)
    end
  end)

  it("says why namespaces cannot be had", function()
    if luv.getuid() ~= 0 then return pending "only root can take rights away" end
    local folder <close> = program.folder()
    local it = program.run {
      "setpriv", "--bounding-set=-sys_admin", program.path, "lab", "up",
      env = { TMPDIR = tostring(folder), XDG_RUNTIME_DIR = false },
    }
    refused(it, 1, "EPERM: a lab needs namespaces, and this root lacks CAP_SYS_ADMIN")
  end)

  it("says what closes user namespaces to an ordinary user", function()
    if luv.getuid() ~= 0 then return pending "only root can close them" end
    local user = labs.start(labs.users()[2])
    local stopped <close> = setmetatable({}, { __close = function() user:stop() end }) -- luacheck: ignore
    -- A user namespace in which there are no further ones, and where two users are.
    local holder <close> = program.start { "unshare", "--user", "sh", "-c", "echo there; exec sleep 60" }
    holder:expect "there"
    for _, map in ipairs { "uid_map", "gid_map" } do
      processes.write(("/proc/%d/%s"):format(holder.pid, map), "0 0 70000\n")
    end
    local words = user:command("lab", "up")
    local enter = {
      "nsenter", "--user", "--target", tostring(holder.pid), "-S", "0", "-G", "0", "sh", "-c",
      'echo 0 >/proc/sys/user/max_user_namespaces; exec "$0" "$@"',
    }
    local all = table.move(words, 1, #words, #enter + 1, enter)
    all.env = words.env
    refused(program.run(all), 1, "as root, `sysctl user.max_user_namespaces=10000`")
    user:nothing_left()
  end)
end)

describe("p2pd.lab", function()
  local lab = require "p2pd.lab"
  local obstacle = labs.obstacle(labs.users()[1])
  local function test(name, f)
    it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or run(f))
  end

  test("makes labs, and runs programs on their hosts", function()
    local net <close> = assert(lab.up { a = "symmetric/random", b = "port-restricted/equal" })
    local a = assert(net:host "a")
    assert.are.equal("lab " .. net.name, tostring(net))
    assert.are.same({ status = 3, out = "out\n", err = "err\n" },
      a:run { "sh", "-c", "echo out; echo err >&2; exit 3" })
    assert.are.equal("abc", assert(a:run { "cat", input = "abc" }).out)
    assert.are.equal("1", assert(a:run { "sh", "-c", "printf $X", env = { X = "1" } }).out)
    local result, message, code = a:run { "sleep", "10", timeout = 0.1 }
    assert.are.same({ nil, "ETIMEDOUT: sleep took longer than 0.1 s", "ETIMEDOUT" }, { result, message, code })
    assert.are.same({ status = 0, out = "hello x", err = "" }, a:lua("io.write('hello ', (...))", { "x" }))
    local child <close> = assert(a:start { "cat" })
    child:write "line\n"
    assert.are.equal("line", child:lines()())
    child:finish_input()
    assert.are.equal(0, child:wait(5))
    local stats = assert(net:stats "a")
    assert.are.equal(0, stats.mappings)
    assert.has_error(function() a:run { "x", timeout = "y" } end,
      "'timeout' is 'y', not a number of seconds, zero or more")
    assert.has_error(function() a:run { "x", wrong = 1 } end, "unknown option 'wrong' of run")
  end)

  test("lets two nodes meet", function()
    local net <close> = assert(lab.up {
      a = { nat = "open", ipv6 = "none" }, b = { nat = "symmetric/random", ipv6 = "none" },
    })
    net:guard(function()
      local a, b = assert(net:host "a"), assert(net:host "b")
      local listener <close> = assert(a:start { "p2pd-lua", "listen", "--echo" })
      local address = listener:lines()():match "^address (.+)$"
      local it = assert(b:run { "p2pd-lua", "connect", address, input = "good day", timeout = 10 })
      assert.are.same({ 0, "good day" }, { it.status, it.out }, it.err)
    end)
    local timeline, now = assert(net:timeline())
    has(timeline, "30.3.1.10:")
    for line in assert(net:timeline(now)):gmatch "[^\n]+" do -- the listener, which is still there, may send something
      assert(tonumber(line:match "[%d.]+") >= now - 1e-6, line)
    end
  end)

  test("adds the timeline to what fails", function()
    local net <close> = assert(lab.up {})
    assert(assert(net:host "a"):run { "ping", "-c1", "-W2", "30.1.0.1" })
    local ok, err = pcall(net.guard, net, function() error("oh no", 0) end)
    assert.is_false(ok)
    has(err, "oh no\nThe lab's timeline:\n")
    has(err, "a out icmp 192.168.1.10:")
    ok, err = pcall(net.guard, net, function() assert.are.equal(1, 2) end)
    assert.is_false(ok)
    has(tostring(err.message or err), "The lab's timeline:")
    assert.are.same({ 1, 2 }, { net:guard(function(x) return x, 2 end, 1) })
  end)

  test("finds labs, and ends them", function()
    local net <close> = assert(lab.up { name = "here", servers = false, hosts = { x = "internet" } })
    local names = {}
    for _, name in ipairs(assert(lab.list())) do names[name] = true end
    assert.is_true(names.here)
    local same <close> = assert(lab.attach "here")
    assert.are.equal(0, assert(assert(same:host "x"):run { "true" }).status)
    assert.are.equal("EBUSY", select(3, lab.up { name = "here" }))
    assert(same:down())
    assert.are.equal("ECLOSED", select(3, net:status()))
    assert.are.equal("ENOENT", select(3, lab.attach "here"))
  end)

  test("ends a lab with the task that has it", function()
    local going = p2pd.spawn(function()
      local net <close> = assert(lab.up { name = "task" })
      p2pd.sleep(100)
      return net
    end)
    while not lab.attach "task" do p2pd.sleep(0.01) end
    going:cancel()
    going:wait()
    assert.are.equal("ENOENT", select(3, lab.attach "task"))
  end)

  test("ends a lab with the program that made it", function()
    local script = 'local n = assert(require("p2pd.lab").up { name = "orphan" }) print "up" io.stdout:flush() '
      .. 'require("p2pd").sleep(100)'
    local child <close> = program.start { program.path, "-e", script }
    child:expect "up"
    local net = assert(lab.attach "orphan")
    child:kill "sigkill"
    child:wait()
    assert.is_true(program.await(function() return not lab.attach "orphan" end, 3))
    assert.are.equal("ECLOSED", select(3, net:status()))
  end)

  test("says of a lab that is ended by force that it is going, and then that it has gone", function()
    local net <close> = assert(lab.up { name = "forced", servers = false })
    local first = net.identity.pid
    luv.kill(first, "sigstop") -- which ends the lab when its keeper has ended
    luv.kill(keeper_of(first), "sigkill")
    assert.is_true(program.await(function() return select(3, net:status()) == "EAGAIN" end, 3))
    luv.kill(first, "sigkill")
    assert.is_true(program.await(function() return not lab.attach "forced" end, 3))
    assert.is_truthy(luv.fs_stat(net.folder .. "/forced/socket"))
    assert.are.same({ nil, "ECLOSED: the lab 'forced' has gone", "ECLOSED" }, { net:status() })
  end)
end)
