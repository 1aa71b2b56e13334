-- The prompt inside a program that runs: the real programs, one of them in a pseudo-terminal; and what others, or
-- broken ones, say to such a program.
local luv = require "luv"
local consoles = require "spec.support.console"
local frames = require "p2pd.repl.frames"
local program = require "spec.support.program"
local prompts = require "spec.support.prompt"
local texts = require "spec.support.texts"

local CTRL_C, CTRL_D, TAB, ENTER = "\3", "\4", "\t", "\r"
local has = texts.has
local listen, start, fake = consoles.listen, consoles.start, consoles.fake

local function exits(self, status)
  assert.are.equal(status, self.child:wait())
end

describe("a console", function()
  it("evaluates in the program, and leaves it running", function()
    local there <close> = listen():begin()
    local it <close> = start(there)
    has(it:text(), ("attached to process %d (p2pd-lua "):format(there.child.pid))
    assert.are.equal("2", it:enter "1 + 1")
    assert.are.equal(tostring(there.child.pid), it:enter "require 'luv'.os_getpid() // 1 | 0")
    assert.are.equal("true", it:enter "#node:address() > 20")
    assert.are.equal("printed\t1", (it:enter "print('printed', 1)":gsub(" +", "\t")))
    assert.are.equal("ab\n3", it:enter "io.write('a', 'b') return 3")
    assert.are.equal("err", it:enter "io.stderr:write 'err\\n' return nothing.x" :match "^err" )
    assert.are.equal("5, nil", it:enter "local x, y = 5, 'y'" == "" and it:enter "x, _G.x")
    assert.are.equal("5", it:enter "x")
    assert.are.equal("repl:1: oops", it:enter "error 'oops'")
    has(it:enter ":trace", "repl:1: in main chunk")
    assert.are.equal("no pipe is open", it:enter ":pipes")
    it:type("for i = 1, 2 do" .. ENTER)
    it:ends("p2pd> for i = 1, 2 do", "   ..")
    it:type("print(i)" .. ENTER .. "end" .. ENTER)
    it:ends("   .. end", "1", "2", "p2pd>")
    it:type("f(" .. ENTER)
    it:ends("p2pd> f(", "   ..")
    it:type(CTRL_D)
    it:ends("the unfinished input was dropped", "p2pd>")
    it:type("f(" .. ENTER)
    it:ends("p2pd> f(", "   ..")
    it:type(CTRL_C)
    it:ends("   .. ^C", "p2pd>")
    it:type "some"
    it:ends "p2pd> some"
    it:type(CTRL_C)
    it:ends("p2pd> some^C", "p2pd>")
    assert.truthy(it:enter("p2pd.sleep(0.55)"):match "^%(%d[%d.]* m?s%)$")
    it:type(CTRL_D)
    exits(it, 0)
    has(it:text(), "detached; the program goes on")
    assert.is_nil(there.child.status)
    assert.are.equal("", there.child.err:match "printed" or "")
    local again <close> = start(there)
    assert.are.equal("nil", again:enter "x")
    again:type(":quit" .. ENTER)
    exits(again, 0)
  end)

  it("has locals for each of two, and globals for both", function()
    local there <close> = listen():begin()
    local one <close> = start(there)
    local two <close> = start(there)
    one:enter "local x = 'one' shared = 1"
    two:enter "local x = 'two'"
    assert.are.equal('"one", 1', one:enter "x, shared")
    assert.are.equal('"two", 1', two:enter "x, shared")
    one:type("print 'going' p2pd.sleep(100)" .. ENTER)
    one:shows "going" -- the terminal throws away what was typed and not read when Ctrl-C comes
    assert.are.equal("1", two:enter "1")
    one:type(CTRL_C)
    one:ends("^C", "cancelled", "p2pd>")
  end)

  it("cancels what runs there, and not the program", function()
    local there <close> = listen():begin()
    local it <close> = start(there)
    for _, code in ipairs { "p2pd.sleep(100)", "while true do end",
      "while true do pcall(function() while true do end end) end", "p2pd.channel():recv()" } do
      local go = "go" .. #code
      it:type(("print '%s' %s"):format(go, code) .. ENTER)
      it:shows(go)
      it:type(CTRL_C)
      it:ends("^C", "cancelled", "p2pd>")
      assert.are.equal("1", it:enter "1")
    end
    assert.is_nil(there.child.status)
  end)

  it("shows what the background prints and fails of, above the line", function()
    local there <close> = listen():begin()
    local it <close> = start(there)
    it:enter "p2pd.spawn(function() p2pd.sleep(0.2) print 'one' print 'two' end)"
    it:type "'typed' .."
    it:await("the output", function(lines)
      return lines[#lines]:match "> 'typed' %.%.$" and lines[#lines - 1] == "two" and lines[#lines - 2] == "one"
    end)
    it:type(" ' on'" .. ENTER)
    it:await("the result", function(lines) return lines[#lines - 1] == '"typed on"' end)
    it:enter "p2pd.spawn(function() p2pd.sleep(0.05) error 'oops' end)"
    it:await("the failure", function(lines) return lines[#lines - 1]:match "^task %d+ failed: repl:1: oops$" end)
    it:type("for i = 1, 20000 do print(('line %d %s'):format(i, ('x'):rep(60))) end" .. ENTER)
    it.child:expect(("line 20000 %s\r\n"):format(("x"):rep(60)))
    it.child:expect "p2pd> "
    assert.falsy(it.child.out:find("left out", 1, true))
    there.child:kill "sigterm"
    assert.are.equal(143, there.child:wait())
    assert.falsy(there.child.err:find("oops", 1, true))
  end)

  it("completes from what is there, and watches until a key", function()
    local there <close> = listen():begin()
    local it <close> = start(there)
    it:enter "local account = { balance = 1 }"
    it:type("acc" .. TAB)
    it:ends "p2pd> account"
    it:type(".bal" .. TAB .. ENTER)
    it:ends("1", "p2pd>")
    it:type("node:addr" .. TAB)
    it:ends "p2pd> node:address"
    it:type(CTRL_C)
    it:ends("p2pd> node:address^C", "p2pd>")
    it:type(":watch account.balance" .. ENTER)
    it:await("the first", function(lines) return lines[#lines]:match "^%d%d:%d%d:%d%d  1$" end)
    it:type "q"
    it:prompt()
    it:type(":watch 2" .. ENTER)
    it:await("the other", function(lines) return lines[#lines]:match "^%d%d:%d%d:%d%d  2$" end)
    it:type(CTRL_C)
    it:ends("^C", "cancelled", "p2pd>")
    assert.are.equal("3", it:enter "3")
  end)

  it("tells that its program ends, and leaves no socket", function()
    local there <close> = listen():begin()
    assert.are.equal(tonumber("140600", 8), luv.fs_lstat(there.path).mode)
    assert.are.equal(tonumber("40700", 8), luv.fs_lstat(there.path:match "^(.*)/").mode)
    local it <close> = start(there)
    it:type "half a line"
    it:ends "p2pd> half a line"
    there.child:kill "sigterm"
    assert.are.equal(143, there.child:wait())
    exits(it, 0)
    has(it:text(), "the program has ended")
    assert.is_nil(luv.fs_lstat(there.path))
  end)

  it("that ended at once is told, and its socket replaced", function()
    local there <close> = listen():begin()
    local it <close> = start(there)
    local second <close> = program.start {
      program.path, "listen", "--settings", tostring(there.folder) .. "/settings.lua", "--key",
      tostring(there.folder) .. "/other.pem", "--console", there.path, "--bind", "127.0.0.1",
    }
    assert.are.equal(1, second:wait())
    has(second.err, "EADDRINUSE: a program has its console at")
    assert.are.equal("1", it:enter "1")
    there.child:kill "sigkill"
    exits(it, 1)
    has(it:text(), "ECLOSED: the program has gone")
    assert(luv.fs_lstat(there.path))
    local late = program.run { program.path, "attach", there.path }
    has(late.err, "ENOTTY")
    local gone <close> = prompts.start { command = { program.path, "attach", there.path } }
    exits(gone, 1)
    has(gone:text(), "ECONNREFUSED: no program has its console")
  end)
end)

describe("hints in a program that one is attached to", function()
  local function attach(there)
    local it <const> = prompts.start {
      home = tostring(there.folder), command = { program.path, "attach", there.path }, env = { NO_COLOR = false },
    }
    it:prompt()
    return it
  end

  it("are of its names, and of the history here", function()
    local there <close> = listen():begin()
    local it <close> = attach(there)
    it:enter "local account = { deposit = function(self, amount) end }"
    it:type "account:d"
    it:hints("p2pd> account:d", "eposit")
    it:type "\27[C("
    it:hints("p2pd> account:deposit(", "amount)")
    it:type("1)" .. ENTER)
    it:ends("p2pd> account:deposit(1)", "p2pd>")
    it:type "node:connect("
    it:hints("p2pd> node:connect(", "to, options?)")
    it:type(CTRL_C)
    it:prompt()
    it:type "local acc"
    it:hints("p2pd> local acc", "ount")
    it:type "ount ="
    it:hints("p2pd> local account =", " { deposit = function(self, amount) end }")
    it:type(CTRL_C)
    it:prompt()
    assert.are.equal("", it:enter ":hints off")
    it:type "local acc"
    it:ends "p2pd> local acc"
    it:type(CTRL_C)
    it:prompt()
    assert.are.equal("", it:enter ":hints on")
    it:type "local acc"
    it:hints("p2pd> local acc", "ount")
  end)

  it("are waited for by nobody", function()
    local there <close> = listen():begin()
    local it <close> = attach(there)
    it:type "tostr"
    it:hints("p2pd> tostr", "ing")
    it:type(CTRL_C)
    it:prompt()
    there.child:kill "sigstop"
    local began = luv.hrtime()
    for i = 1, 8 do
      it:type(("tostring"):sub(i, i))
      it:ends("p2pd> " .. ("tostring"):sub(1, i))
    end
    assert((luv.hrtime() - began) / 1e9 < 3)
    it:type "\127\127"
    it:ends "p2pd> tostri"
    there.child:kill "sigcont"
    it:hints("p2pd> tostri", "ng")
  end)
end)

describe("a stranger", function()
  -- Connects, and says that; returns all frames that come back before the end, or within a second.
  local function say(path, ...)
    local stream, answer, ended, connected = luv.new_pipe(false), "", false, nil
    stream:connect(path, function(failure) connected = failure or true end)
    assert(program.await(function() return connected end))
    assert.is_true(connected)
    stream:read_start(function(failure, bytes)
      answer, ended = answer .. (bytes or ""), ended or failure or not bytes
    end)
    for _, part in ipairs { ... } do stream:write(part, function() end) end
    program.await(function() return ended end, 1)
    stream:close()
    program.await(function() return not stream:is_active() end)
    local reader, found = frames.reader(), {}
    reader:feed(answer)
    for kind, payload in reader.pop, reader do found[#found + 1] = kind .. " " .. payload end
    return table.concat(found, "|"), ended
  end
  local hello = frames.greeting { width = 80, colours = 0 }

  it("that speaks something else is told so, and harms nobody", function()
    local there <close> = listen():begin()
    local it <close> = start(there)
    local path = there.path
    assert.are.equal("X EFORMAT: the other side speaks another protocol", (say(path, "GET / HTTP/1.1\r\n\r\n")))
    assert.are.equal("X EFORMAT: the other side speaks another protocol", (say(path, frames.encode("H", "x"))))
    assert.are.equal("X EFORMAT: the other side speaks another protocol", (say(path, frames.encode("L", "80\n1"))))
    has((say(path, frames.encode("H", ("x"):rep(2048)))), "X EMSGSIZE: a frame of 2048 bytes, more than 1024")
    has((say(path, frames.encode("H", "p2pd-lua console 7\nwidth=80"))), "X EPROTO: the other side speaks version 7")
    has((say(path, hello, hello)), "X EFORMAT: a second greeting")
    has((say(path, hello, frames.encode("L", "no columns"))), "X EFORMAT: a line without its columns")
    has((say(path, hello, frames.encode("P", "> "))), "X EFORMAT: only a program sends that")
    has((say(path, hello, frames.encode("C", "\0\0\0\1\255\255\255\255"))), "X EFORMAT: a broken completion")
    has((say(path, hello, ("\255"):rep(100000))), "X EFORMAT: the other side speaks another protocol")
    local ten = frames.encode("L", "80\n" .. ("x"):rep(10 * 1024 * 1024))
    has((say(path, hello, ten)), "X EMSGSIZE: a frame of")
    local many = frames.encode("L", "80\nx = 1"):rep(3000)
    has((say(path, hello, frames.encode("L", "80\np2pd.sleep(9)"), many)), "X EMSGSIZE: more was typed than is read")
    assert.are.equal("1", it:enter "1")
  end)

  it("that says half of it keeps nobody waiting", function()
    local there <close> = listen():begin()
    local it <close> = start(there)
    local answer, ended = say(there.path, hello:sub(1, 9))
    assert.are.equal("", answer)
    assert.falsy(ended)
    local parts = {}
    for byte in (hello .. frames.encode("L", "80\n6 * 7")):gmatch "." do parts[#parts + 1] = byte end
    has((say(there.path, table.unpack(parts))), "O 42\n")
    assert.are.equal("1", it:enter "1")
  end)

  it("is one of eight at most", function()
    local there <close> = listen():begin()
    local others = {}
    for i = 1, 8 do
      others[i] = luv.new_pipe(false)
      local connected
      others[i]:connect(there.path, function(failure) connected = failure or true end)
      assert(program.await(function() return connected end))
      others[i]:write(hello)
    end
    assert.are.equal("X EBUSY: 8 are attached already", (say(there.path, hello)))
    for i = 1, 8 do others[i]:close() end
    local it <close> = start(there)
    assert.are.equal("1", it:enter "1")
  end)

  it("that does not read what it asked for costs bounded memory", function()
    local there <close> = listen():begin()
    local it <close> = start(there)
    local slow = luv.new_pipe(false)
    local connected
    slow:connect(there.path, function(failure) connected = failure or true end)
    assert(program.await(function() return connected end))
    slow:write(hello .. frames.encode("L", "80\nfor i = 1, 3e5 do print(('x'):rep(100)) end flooded = true"))
    assert.are.equal("", it:enter "p2pd.sleep(0.3)")
    assert.are.equal("nil", it:enter "flooded") -- the line waits
    local used = tonumber(it:enter("math.floor(require 'luv'.resident_set_memory() / 1048576)"))
    assert.is_true(used < 40, used .. " MiB")
    slow:close()
    assert.are.equal("1", it:enter "1")
  end)

  it("of another user is turned away by both ends", function()
    if luv.getuid() ~= 0 then return pending "it takes root to be somebody else" end
    local nobody = 65534
    local there <close> = listen():begin()
    local home = tostring(there.folder)
    local it <close> = start(there)
    for _, path in ipairs { home, home .. "/own", there.path } do luv.fs_chmod(path, tonumber("777", 8)) end
    local done
    local handle = luv.spawn("/bin/sh", { uid = nobody, gid = nobody, stdio = { nil, nil, nil }, args = {
      "-c", ("exec python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect(\"%s\"); "
        .. "raise SystemExit(len(s.recv(10)))'"):format(there.path),
    } }, function(status) done = status end)
    assert(program.await(function() return done end))
    handle:close()
    assert.are.equal(0, done) -- the end, and not a byte
    there.child:expect("is another user's", "err")
    assert.are.equal("1", it:enter "1")
    local function attach()
      local other <close> = prompts.start { command = { program.path, "attach", there.path } }
      assert.are.equal(1, other.child:wait())
      return other:text():gsub("\n", "")
    end
    has(attach(), "own is open to others")
    luv.fs_chmod(home .. "/own", tonumber("700", 8))
    has(attach(), "console is open to others")
    luv.fs_chmod(there.path, tonumber("600", 8))
    luv.fs_chown(there.path, nobody, nobody)
    has(attach(), "belongs to another")
    luv.fs_chown(home .. "/own", nobody, nobody)
    has(attach(), "belongs to another")
  end)

  it("cannot lead it elsewhere by links, nor have it replace a file", function()
    local folder <close> = program.folder()
    local home = tostring(folder)
    luv.fs_mkdir(home .. "/real", tonumber("700", 8))
    luv.fs_mkdir(home .. "/open", tonumber("755", 8))
    luv.fs_symlink(home .. "/real", home .. "/link")
    luv.fs_symlink(home .. "/victim", home .. "/real/link")
    folder:write("real/file", "precious")
    local code = "local c, m = require 'p2pd.console'.open { path = %q } print(m) if c then c:close() end"
    for path, message in pairs {
      ["/link/console"] = "EPERM: .*/link is no folder, or a symbolic link to one",
      ["/real/link"] = "ELOOP: .* is a symbolic link",
      ["/real/file"] = "EEXIST: .* is no socket",
      ["/open/console"] = "EPERM: .* is open to others; a console needs a folder of its own",
      ["/none/at/all"] = "ENOENT",
      ["/real/"] = "EINVAL",
      ["/real/good"] = "^nil",
    } do
      assert.matches(message, program.run { program.path, "-e", code:format(home .. path) }.out)
    end
    assert.are.equal("precious", folder:read "real/file")
    assert.is_nil(luv.fs_lstat(home .. "/victim"))
    assert.is_nil(luv.fs_lstat(home .. "/real/good"))
    for _, path in ipairs { "/link/console", "/real/link", "/real/file" } do
      local other <close> = prompts.start { command = { program.path, "attach", home .. path } }
      assert.are.equal(1, other.child:wait())
    end
  end)
end)

describe("a program that is none", function()
  local hello = frames.greeting { pid = "\27[2J1", program = "\7" }

  it("is left at once, or told of", function()
    for answer, message in pairs {
      ["HTTP/1.1 400 Bad Request\r\n\r\n"] = "EFORMAT: the other side speaks another protocol",
      [frames.encode("H", "p2pd-lua console 1")] = "EPROTO: the other side speaks version 1",
      [hello .. frames.encode("L", "1")] = "EFORMAT: only who attaches sends that",
      [hello .. frames.encode("O", ("x"):rep(10 * 1024 * 1024))] = "EMSGSIZE: a frame of 10485760 bytes",
      [hello .. "P\0\0\0\0\0\0"] = "EFORMAT: the other side speaks another protocol",
      [hello .. frames.encode("X", "EBUSY: \27[2J8 are there")] = "EBUSY: \\x1B[2J8 are there",
    } do
      local there <close> = fake(answer)
      local it <close> = prompts.start { command = { program.path, "attach", there.path } }
      assert.are.equal(1, it.child:wait())
      has(it:text(), message)
      assert.falsy(it.child.out:find("\27[2J", 1, true))
    end
  end)

  it("that does not answer is left by Ctrl-C", function()
    local there <close> = fake(hello .. frames.encode("P", "p2pd> "))
    local it <close> = prompts.start { command = { program.path, "attach", there.path } }
    it:prompt()
    it:type("1" .. ENTER)
    it:await("the line's end", function() return it.child.out:find("2004l", 1, true) end)
    for _ = 1, 20 do -- one that comes while the line ends may go with it
      it:type(CTRL_C)
      if program.await(function() return it.child.status end, 0.2) then break end
    end
    assert.are.equal(1, it.child:wait())
    has(it:text(), "the program does not answer: detached from it")
  end)
end)
