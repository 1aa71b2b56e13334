-- The built-in programs as whole programs: what they print, how they end, and what they leave behind.
local cjson = require "cjson"
local luv = require "luv"
local mosquitto = require "spec.support.mosquitto"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local texts = require "spec.support.texts"
local xml = require "spec.support.xml"

local has, has_not = texts.has, texts.has_not

local SANITIZED = os.getenv "P2PD_SANITIZED" ~= nil
local MIB = 1024 * 1024
local BULK = 64 * MIB
local MOST_MEMORY = 40 * MIB -- of a program that joins a pipe, however much goes through it

local broker, folder, settings

local function path(name) return tostring(folder) .. "/" .. name end

-- The arguments that all programs take here, with a key of this name, and more.
local function arguments(name, key, ...)
  return { program.path, name, "--settings", settings, "--key", path(key .. ".pem"), "--bind", "127.0.0.1", ... }
end

-- The same behind a shell's redirections, in which "$0" "$@" is the program: for `exec "$0" "$@" <&-`.
local function in_shell(script, list)
  return table.move(list, 1, #list, 4, { "/bin/sh", "-c", script })
end

local function address_of(child, name)
  assert(program.await(function()
    return child[name or "err"]:find "address%S* ?%S+\n" or child[name or "err"]:find '"address":' or child.status
  end))
  local text = child[name or "err"]
  return text:match 'address (%S+)\n' or text:match '"address":"([^"]+)"' or error("no address came: " .. text, 2)
end

local function listen(...)
  local child = program.start(arguments("listen", "listen", ...))
  return child, address_of(child)
end

local function connect(address, ...)
  return program.start(arguments("connect", "connect", address, ...))
end

-- The events of --json: each line has to be one.
local function events(child)
  local list = {}
  for line in child.err:gmatch "[^\n]+" do list[#list + 1] = cjson.decode(line) end
  return list
end

local function event(child, name)
  for _, each in ipairs(events(child)) do
    if each.event == name then return each end
  end
  error(("no event '%s' in:\n%s"):format(name, child.err), 2)
end

-- A port that takes connections and says nothing, and the address of a node that would be there.
local function silent_port()
  local socket, clients = luv.new_tcp(), {}
  assert(socket:bind("127.0.0.1", 0))
  socket:listen(16, function()
    local client = luv.new_tcp()
    socket:accept(client)
    clients[#clients + 1] = client
  end)
  return socket:getsockname().port, setmetatable({}, { __close = function()
    for _, client in ipairs(clients) do client:close() end
    socket:close()
    luv.run "nowait"
  end })
end

local function with_port(address, port)
  return (address:gsub("(127%.0%.0%.1,127%.0%.0%.1,)%d+", "%1" .. port))
end

describe("the programs", function()
  setup(function()
    broker, folder = mosquitto.start(), program.folder()
    settings = folder:write("settings.lua", ("return { mqtt = {{ host = %q, port = %d }}, stun = {}, ntp = {} }\n")
      :format(broker.host, broker.port))
    luv.fs_chmod(settings, 384)
  end)
  teardown(function()
    broker:stop()
    processes.remove(tostring(folder))
  end)

  it("tell how they are used", function()
    for _, name in ipairs { "listen", "connect", "demo" } do
      for _, option in ipairs { "--help", "-h" } do
        local it = program.run { program.path, name, option }
        assert.are.same({ 0, "" }, { it.status, it.err })
        has(it.out, "usage: p2pd-lua " .. name)
        local common = name == "demo" and {} or { "--settings FILE", "--key FILE", "--bind IP" }
        for _, option_there in ipairs { "--json", "--help", table.unpack(common) } do has(it.out, option_there) end
      end
    end
    has(program.run { program.path, "connect", "--help" }.out, "2 usage, 3 broke after connecting")
    local extra = program.run { program.path, "demo", "extra" }
    assert.are.equal(2, extra.status)
    has(extra.err, "one operand too many")
  end)

  it("refuse what makes no sense with status 2, before they make anything", function()
    local key, address = path "unmade.pem", "None-0-0-a-b"
    local strategy = folder:write("bad.lua", "return 7")
    for _, case in ipairs {
      { "listen", "extra", says = "one operand too many" },
      { "listen", "--port", "1.5", says = "--port is a whole number from 1 to 65535, not '1.5'" },
      { "listen", "--port", "0", says = "not '0'" },
      { "listen", "--port", "65536", says = "not '65536'" },
      { "listen", "--port", "x", says = "not 'x'" },
      { "listen", "--port=", says = "not ''" },
      { "listen", "--port", says = "--port needs a N" },
      { "listen", "--bind", "nowhere", says = "--bind is an IP address, not 'nowhere'" },
      { "listen", "--bind", "", says = "not ''" },
      { "listen", "--echo=yes", says = "--echo takes no value" },
      { "listen", "--loud", says = "unknown option '--loud'" },
      { "connect", says = "an operand is missing" },
      { "connect", "--", says = "an operand is missing" },
      { "connect", "", says = "ENOTSUP", status = 1 },
      { "connect", "alice", says = "ENOTSUP", status = 1 },
      { "connect", address, address, says = "one operand too many" },
      { "connect", "0-0-0-x", says = "EINVAL: address" },
      { "connect", "-", says = "EINVAL: address" },
      { "connect", "0-0-0-\xe2\x98\x83-x", says = "EINVAL: node id" },
      { "connect", "0-0-0-\27[31m-x", says = "EINVAL: node id" },
      { "connect", ("1-"):rep(50000), says = "EINVAL" },
      { "connect", "--timeout", "0", address, says = "not '0'" },
      { "connect", "--timeout", "nan", address, says = "not 'nan'" },
      { "connect", "--timeout", "1e99", address, says = "not '1e99'" },
      { "connect", "--strategies", "", address, says = "leaves nothing to try" },
      { "connect", "--strategies", "direct,warp", address, says = "there is no strategy 'warp'" },
      { "connect", "--strategies", "/", address, says = "EIO" },
      { "connect", "--strategies", "./none.lua", address, says = "ENOENT" },
      { "connect", "--strategies", strategy, address, says = "a strategy is a table" },
      { "connect", "--pipeline", strategy, address, says = "a strategy is a table" },
    } do
      local it = program.run { program.path, case[1], "--settings", settings, "--key", key, table.unpack(case, 2) }
      assert(it.status == (case.status or 2), ("%s: status %d\n%s"):format(table.concat(case, " "), it.status, it.err))
      has(it.err:sub(1, 1000), case.says)
      has_not(it.err, "traceback")
      has_not(it.err, "\27")
      assert.are.equal("", it.out)
      if case.status then luv.fs_unlink(key) end -- it was a name, which a node has to look up
      assert.is_nil((luv.fs_stat(key)))
    end
  end)

  it("join two ends and close cleanly", function()
    local near <close>, address = listen()
    near:write "from listen\n"
    local far <close> = connect(address)
    far:write "from connect\n"
    near:expect "from connect\n"
    far:expect "from listen\n"
    near:finish_input()
    far:finish_input()
    assert.are.same({ 0, 0 }, { near:wait(), far:wait() })
    assert.are.same({ "from connect\n", "from listen\n" }, { near.out, far.out })
    assert.matches("^address %S+\npipe by direct with 127%.0%.0%.1:%d+\n$", near.err)
    assert.matches("%+ direct +%d+%.%d ms  connected\n", far.err)
    assert.matches("\npipe by direct with 127%.0%.0%.1:%d+ in %d+%.%d ms\n$", far.err)
  end)

  it("draw the attempt into a file", function()
    local near <close>, address = listen()
    local picture = path "out.svg"
    local far <close> = connect(address, "--timeline", picture)
    near:finish_input()
    far:finish_input()
    assert.are.same({ 0, 0 }, { near:wait(), far:wait() })
    local elements = xml.elements(processes.read(picture))
    assert.are.equal("svg", elements[1].name)
    assert.matches("^connected by direct in %d", elements[2].text)
    local nobody = program.run(arguments("connect", "connect", with_port(address, 9), "--timeline", picture,
      "--strategies", "direct"))
    assert.are.equal(1, nobody.status)
    assert.matches("^not connected, ", xml.elements(processes.read(picture))[2].text)
    local no_folder = program.run(arguments("connect", "unmade", address, "--timeline", path "none/out.svg"))
    assert.are.equal(2, no_folder.status)
    has(no_folder.err, "ENOENT")
  end)

  it("tell each event as a line of JSON", function()
    local near <close>, address = listen "--json"
    local far <close> = connect(address, "--json")
    near:finish_input()
    far:finish_input()
    assert.are.same({ 0, 0 }, { near:wait(), far:wait() })
    assert.are.same({ event = "address", address = address }, event(near, "address"))
    local arrived, opened = event(near, "pipe"), event(far, "pipe")
    assert.are.equal(address:match "%-(%w+)%-%w+$", opened.peer)
    assert.are.equal("127.0.0.1:" .. address:match "127%.0%.0%.1,127%.0%.0%.1,(%d+)", opened.remote)
    assert.are.equal("integer", math.type(math.tointeger(opened.ms)))
    assert.are.same({ "direct", "direct" }, { arrived.strategy, opened.strategy })
    assert.matches("^127%.0%.0%.1:%d+$", arrived.remote)
    assert.are_not.equal(arrived.peer, opened.peer)
    local rungs = {}
    for _, each in ipairs(events(far)) do
      if each.event == "rung" then rungs[each.name] = each end
    end
    assert.is_true(rungs.direct.ok)
    assert.is_number(rungs.direct.ms)
    assert.is_false(rungs.reverse.ok)
    assert.is_string(rungs.reverse.skipped)
  end)

  it("carry each byte value both ways, half-closed by either end first", function()
    local bytes = {}
    for value = 0, 255 do bytes[#bytes + 1] = string.char(value) end
    local all = table.concat(bytes):rep(300) .. "\r\n\0"
    for _, first in ipairs { "listen", "connect" } do
      local near <close>, address = listen()
      local far <close> = connect(address)
      local asks, answers = near, far
      if first == "connect" then asks, answers = far, near end
      asks:write(all)
      asks:finish_input()
      assert(program.await(function() return #answers.out >= #all end))
      assert.is_nil(asks.status) -- it has closed its half and waits for the other's
      assert.is_nil(answers.status)
      answers:write(all:reverse())
      answers:finish_input()
      assert.are.same({ 0, 0 }, { near:wait(), far:wait() })
      assert.is_true(answers.out == all and asks.out == all:reverse())
    end
  end)

  it("turn a second peer away with EBUSY, which harms the first in nothing", function()
    local near <close>, address = listen "--json"
    local far <close> = connect(address)
    far:write "first\n"
    near:expect "first\n"
    local second <close> = program.start(arguments("connect", "second", address, "--json"))
    second:write "second\n"
    assert.are.equal(3, second:wait())
    assert.are.equal("EBUSY", event(second, "failed").code)
    assert.are.equal("", second.out)
    near:expect('"refused"', "err")
    assert.are.equal("EBUSY", event(near, "refused").code)
    far:finish_input()
    near:write "still here"
    near:finish_input()
    assert.are.same({ 0, 0 }, { near:wait(), far:wait() })
    assert.are.same({ "first\n", "still here" }, { near.out, far.out })
  end)

  it("carry 64 MiB each way bit for bit, from and to files and pipes, in little memory", function()
    local big, near_out, far_out = path "big", path "near.out", path "far.out"
    assert(os.execute(("head -c %d /dev/urandom >%s"):format(BULK, big)))
    -- listen reads a pipe and writes a pipe; connect reads a file and writes a file.
    local near <close> = program.start(in_shell(
      ('mkfifo %s.fifo; cat <%s.fifo >%s & exec "$0" "$@" >%s.fifo'):format(near_out, near_out, near_out, near_out),
      arguments("listen", "listen")))
    local address = address_of(near)
    local far <close> = program.start(in_shell(('exec "$0" "$@" <%s >%s'):format(big, far_out),
      arguments("connect", "connect", address)))
    local file = assert(io.open(big, "rb"))
    for part in file:lines(MIB) do near:write(part) end
    file:close()
    local function size(name) return (luv.fs_stat(name) or { size = 0 }).size end
    assert(program.await(function() return size(near_out) >= BULK and size(far_out) >= BULK end, 60), "it stalled")
    if not SANITIZED then
      for _, child in ipairs { near, far } do
        local peak = tonumber(processes.read(("/proc/%d/status"):format(child.pid)):match "VmHWM:%s+(%d+)") * 1024
        assert(peak < MOST_MEMORY, ("%d MiB were used"):format(peak // MIB))
      end
    end
    near:finish_input()
    assert.are.same({ 0, 0 }, { near:wait(), far:wait() })
    for _, name in ipairs { near_out, far_out } do
      assert(os.execute(("cmp %s %s"):format(big, name)))
      luv.fs_unlink(name)
    end
    luv.fs_unlink(big)
  end)

  it("meet by reverse when that is asked for", function()
    local near <close>, address = listen "--json"
    local far <close> = connect(address, "--json", "--strategies", "reverse")
    far:write "x"
    near:expect "x"
    near:finish_input()
    far:finish_input()
    assert.are.same({ 0, 0 }, { near:wait(), far:wait() })
    assert.are.same({ "reverse", "reverse" }, { event(near, "pipe").strategy, event(far, "pipe").strategy })
    has_not(far.err, '"direct"')
  end)

  it("meet by a strategy of the user's own, alone or in a pipeline", function()
    local strategy = [[{
      name = "mine", timeout = 5,
      connect = function(ctx)
        local first = ctx:candidates()[1]
        return ctx:dial { ip = first.ip, port = first.port }
      end,
    }]]
    local mine = folder:write("mine.lua", "return " .. strategy)
    local whole = folder:write("whole.lua", ('return require("p2pd").pipeline.seq { %s, "reverse" }'):format(strategy))
    for option, value in pairs { ["--strategies"] = mine, ["--pipeline"] = whole } do
      local near <close>, address = listen "--json"
      local far <close> = connect(address, "--json", option, value)
      near:finish_input()
      far:finish_input()
      assert.are.same({ 0, 0 }, { near:wait(), far:wait() })
      assert.are.equal("mine", event(far, "pipe").strategy)
      assert.are.equal("mine", event(far, "rung").name)
    end
  end)

  it("say why a strategy of the user's own did not work, and end with 1", function()
    local near <close>, address = listen()
    for text, code in pairs {
      ["error 'oh no'"] = "ESCRIPT", ["return 7"] = "ESCRIPT", ["return nil, 'EAGAIN: later', 'EAGAIN'"] = "EAGAIN",
      ["while true do ctx:sleep(1) end"] = "ETIMEDOUT",
    } do
      local mine = folder:write("mine.lua", ("return { name = 'mine', connect = function(ctx) %s end }"):format(text))
      local far <close> = connect(address, "--json", "--strategies", mine, "--timeout", "0.3")
      assert.are.equal(1, far:wait())
      assert.are.equal(code, event(far, "failed").code)
      assert.are.equal(code, event(far, "rung").code)
    end
    near:kill "sigterm"
    assert.are.equal(143, near:wait())
  end)

  it("end with 1 when nobody is there, or nobody answers in time", function()
    local near <close>, address = listen()
    near:kill "sigterm"
    near:wait()
    local far <close> = connect(address, "--json", "--strategies", "direct")
    assert.are.equal(1, far:wait())
    assert.are.equal("ECONNREFUSED", event(far, "rung").code)
    assert.are.equal("ECONNREFUSED", event(far, "failed").code)
    local port, guard <close> = silent_port() -- luacheck: ignore guard
    local began = luv.hrtime()
    local late <close> = connect(with_port(address, port), "--json", "--timeout", "0.5")
    assert.are.equal(1, late:wait())
    assert.are.equal("ETIMEDOUT", event(late, "failed").code)
    assert.is_true((luv.hrtime() - began) / 1e9 < (SANITIZED and 10 or 2))
  end)

  it("end with 3 when the peer is killed, at either end", function()
    for _, killed in ipairs { "listen", "connect" } do
      local near <close>, address = listen "--json"
      local far <close> = connect(address, "--json")
      far:write "x"
      near:expect "x"
      local victim, other = near, far
      if killed == "connect" then victim, other = far, near end
      victim:kill "sigkill"
      assert.are.equal(3, other:wait())
      assert.matches("^E[A-Z]+$", event(other, "failed").code)
    end
  end)

  it("leave with 130 or 143 on a signal, whatever they are doing, and can start again", function()
    local port, guard <close> = silent_port() -- luacheck: ignore guard
    local statuses = { sigint = 130, sigterm = 143 }
    for signal, status in pairs(statuses) do
      do -- listen, while nobody is there
        local near <close>, address = listen()
        near:kill(signal)
        assert.are.equal(status, near:wait(4))
        assert.are.equal("address " .. address .. "\n", near.err)
        -- connect, while it tries
        local far <close> = connect(with_port(address, port))
        luv.sleep(300)
        far:kill(signal)
        assert.are.equal(status, far:wait(4))
        has_not(far.err, "traceback")
      end
      for _, which in ipairs { "listen", "connect" } do -- while they are joined
        local near <close>, address = listen()
        local far <close> = connect(address)
        far:write "x"
        near:expect "x"
        local ended, other = near, far
        if which == "connect" then ended, other = far, near end
        ended:kill(signal)
        assert.are.equal(status, ended:wait(4))
        has_not(ended.err, "traceback")
        other:finish_input()
        assert.are.equal(0, other:wait(4)) -- the pipe was closed, not broken
      end
    end
  end)

  it("echo to any number of peers", function()
    local near <close> = program.start(arguments("listen", "listen", "--echo", "--json"))
    local address = address_of(near, "out")
    local peers = {}
    for i = 1, 5 do
      peers[i] = program.start(arguments("connect", "peer" .. i, address))
      peers[i]:write("hello " .. i)
    end
    for i, peer in ipairs(peers) do
      peer:expect("hello " .. i)
      peer:finish_input()
      assert.are.equal(0, peer:wait())
      assert.are.equal("hello " .. i, peer.out)
      peer:close()
    end
    near:kill "sigterm"
    assert.are.equal(143, near:wait())
    local counts = { pipe = 0, closed = 0 }
    for _, each in ipairs(events(near)) do counts[each.event] = counts[each.event] + 1 end
    assert.are.same({ pipe = 5, closed = 5 }, counts)
    assert.are.equal("address " .. address .. "\n", near.out)
  end)
end)

describe("standard input and output", function()
  setup(function()
    broker, folder = mosquitto.start(), program.folder()
    settings = folder:write("settings.lua", "return { mqtt = {}, stun = {}, ntp = {} }")
    luv.fs_chmod(settings, 384)
  end)
  teardown(function()
    broker:stop()
    processes.remove(tostring(folder))
  end)

  -- Runs listen behind the redirection with a peer that sends "data" and ends; returns its status and what it said.
  local function against(redirection)
    local near <close> = program.start(in_shell('exec "$0" "$@" ' .. redirection, arguments("listen", "listen")))
    local far <close> = connect(address_of(near))
    far:write "data"
    far:finish_input()
    near:finish_input()
    near:wait()
    far:wait()
    has_not(near.err, "traceback")
    has_not(near.err, "Assertion")
    return near.status, near.out, near.err
  end

  it("may be closed: then nothing is read, and what comes is dropped", function()
    local status, out = against "<&-"
    assert.are.same({ 0, "data" }, { status, out })
    assert.are.equal(0, (against ">&-"))
    assert.are.equal(0, (against "<&- >&-"))
    local near <close>, address = listen()
    near:write "x"
    near:finish_input()
    local far = program.run(in_shell('exec "$0" "$@" <&- >&- 2>&-', arguments("connect", "connect", address)))
    assert.are.same({ 0, 0 }, { far.status, near:wait() })
  end)

  it("may be what cannot be read or written: the connection breaks, with the reason", function()
    local status, _, said = against "</"
    assert.are.equal(3, status)
    has(said, "EISDIR")
    status, _, said = against ">/dev/full"
    assert.are.equal(3, status)
    has(said, "ENOSPC")
  end)

  it("may be devices", function()
    local status, out = against "</dev/null"
    assert.are.same({ 0, "data" }, { status, out })
    assert.are.equal(0, (against ">/dev/null"))
  end)

  it("may be gone while the peer goes on sending: that ends both", function()
    local near <close> = program.start(in_shell('exec "$0" "$@" </dev/zero', arguments("listen", "listen")))
    local far <close> = program.start(in_shell('("$0" "$@" </dev/null; echo "status $?" >&2) | head -c 1',
      arguments("connect", "connect", address_of(near))))
    far:wait()
    has(far.err, "status 3")
    assert.are.equal("\0", far.out)
    assert.are.equal(3, near:wait())
  end)

  it("of listen --echo that cannot take the address end it", function()
    local it = program.run(in_shell('exec "$0" "$@" >/dev/full', arguments("listen", "listen", "--echo")))
    assert.are.equal(1, it.status)
    has(it.err, "the address cannot be written")
  end)
end)
