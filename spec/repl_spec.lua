-- The prompt as people use it: the real program in a pseudo-terminal, and what then stands on the screen.
local luv = require "luv"
local program = require "spec.support.program"
local prompts = require "spec.support.prompt"
local texts = require "spec.support.texts"

local CTRL_C, CTRL_D, CTRL_R, CTRL_Z, ENTER = "\3", "\4", "\18", "\26", "\r"
local COLUMNS = 80
local start, has = prompts.start, texts.has

describe("a line", function()
  it("is an expression or a statement", function()
    local it <close> = start()
    assert.are.equal("2", it:enter "1 + 1")
    assert.are.equal("", it:enter "x = 5")
    assert.are.equal('5, "a\\nb", nil', it:enter [[x, "a\nb", nil]])
    assert.are.equal("nil", it:enter "y")
    assert.are.equal("printed", it:enter [[print "printed"]])
    assert.are.equal("", it:enter "  ")
    assert.are.equal("", it:enter "-- nothing")
    assert.are.equal("3", it:enter "return 3")
    assert.are.equal("true", it:enter "p2pd == require 'p2pd'")
  end)

  it("finds the last values in _ and __", function()
    local it <close> = start()
    it:enter "6 * 7"
    assert.are.equal("43", it:enter "_ + 1")
    assert.are.equal("42, 43", it:enter "__, _")
    assert.are.equal("true", it:enter "rawget(_G, '_') == nil")
  end)

  it("leaves its locals to the next ones, and globals to all", function()
    local it <close> = start()
    it:enter "local a, b = 1, { 2 }"
    assert.are.equal("1, {2}", it:enter "a, b")
    it:enter "a = a + 1"
    assert.are.equal("2, nil", it:enter "a, _G.a")
    it:enter "local function f() return a end"
    assert.are.equal("2", it:enter "f()")
    it:enter "g = 1"
    assert.are.equal("1", it:enter "_G.g")
    it:enter "local g = 2"
    assert.are.equal("2, 1", it:enter "g, _G.g")
    it:enter "g = nil"
    assert.are.equal("1", it:enter "g")
    it:enter "for inner = 1, 2 do local deep = inner end"
    assert.are.equal("nil, nil", it:enter "inner, deep")
    assert.are.equal("7", it:enter "local r = 7 return r")
    has(it:enter "local c <close> = setmetatable({}, { __close = function() print 'closed' end })", "closed")
  end)

  it("goes on in the next ones until it is whole", function()
    local it <close> = start()
    it:type("for i = 1, 2 do" .. ENTER)
    it:ends("p2pd> for i = 1, 2 do", "   ..")
    it:type("print(i)" .. ENTER)
    it:ends("   .. print(i)", "   ..")
    it:type("end" .. ENTER)
    it:ends("   .. end", "1", "2", "p2pd>")
    it:type("x = [[" .. ENTER .. "]] .. 'y'" .. ENTER)
    it:ends("   .. ]] .. 'y'", "p2pd>")
    assert.are.equal('"y"', it:enter "x")
    it:type("f(" .. ENTER)
    it:ends("p2pd> f(", "   ..")
    it:type(CTRL_D)
    it:ends("the unfinished input was dropped", "p2pd>")
    it:type("f(" .. ENTER)
    it:ends("p2pd> f(", "   ..")
    it:type(CTRL_C)
    it:ends("   .. ^C", "p2pd>")
  end)

  it("that is wrong or fails is told in one line, and :trace tells more", function()
    local it <close> = start()
    assert.are.equal("nothing has failed yet", it:enter ":trace")
    assert.are.equal("repl:1: syntax error near 'b'", it:enter "a b")
    it:enter "function f() local t = nil return t.x end"
    assert.are.equal("repl:1: attempt to index a nil value (local 't')", it:enter "f() + 1")
    local trace = it:enter ":trace"
    has(trace, "stack traceback:")
    has(trace, "repl:1: in function 'f'")
    assert.falsy(trace:find("p2pd/", 1, true))
    assert.are.equal("error object: {code = 7}", it:enter "error { code = 7 }")
    assert.are.equal("two", it:enter [[error("two\nlines", 0)]])
    assert.are.equal("error object: nil", it:enter "error()")
  end)

  it("may wait", function()
    local it <close> = start()
    assert.are.equal('"woken"', it:enter "p2pd.spawn(function() p2pd.sleep(0.01) return 'woken' end):wait()")
    it:enter "c = p2pd.channel()"
    it:enter "p2pd.spawn(function() p2pd.sleep(0.01) c:send 'sent' end)"
    assert.are.equal('"sent"', it:enter "c:recv()")
  end)

  it("that nothing can wake is ended", function()
    local it <close> = start()
    assert.are.equal("EDEADLOCK: nothing was left that could wake it", it:enter "p2pd.channel():recv()")
    assert.are.equal("1", it:enter "1")
  end)

  it("that takes long tells how long", function()
    local it <close> = start()
    assert.truthy(it:enter("p2pd.sleep(0.55)"):match "^%(%d[%d.]* m?s%)$")
    assert.are.equal("", it:enter "p2pd.sleep(0.01)")
    assert.truthy(it:enter(":time 1 + 1"):match "^2\n%d[%d.]* %S*s$")
  end)

  it("may be pasted with several others", function()
    local it <close> = start()
    it:type("\27[200~local n = 0\nfor i = 1, 3 do\n\tn = n + i\nend\nreturn n\27[201~")
    it:type(ENTER)
    it:ends("6", "p2pd>")
  end)

  it("has a limit, and a long one within it works", function()
    local it <close> = start()
    it:type("\27[200~#'" .. ("x"):rep(50000) .. "'\27[201~" .. ENTER)
    it.child:expect "50000\r\n"
    it.child:expect "p2pd> "
    -- much of it is left to readline, which is slow there
    it:type("\27[200~#'" .. ("x"):rep((1 << 18) + 10) .. "'\27[201~" .. ENTER)
    it.child:expect "a line of more than 262144 bytes was dropped"
    it.child:expect "p2pd> "
    it:type("'still ' .. 'here'" .. ENTER)
    it.child:expect '"still here"'
  end)
end)

describe("a value", function()
  it("is shown safely: no control character reaches the terminal", function()
    local it <close> = start()
    it:enter [[bad = "\27]0;title\7\27[31m\x9b31m\r\u{202e}\u{9b}\0end"]]
    local shown = [["\x1B]0;title\x07\x1B[31m\x9B31m\r\u{202E}\u{009B}\x00end"]]
    assert.are.equal(shown, it:enter "bad")
    has(it:enter "{ [bad] = bad }", shown)
    has(it:enter "error(bad, 0)", [[\x1B]0;title\x07]])
    has(it:enter "error(setmetatable({}, { __tostring = function() return bad end }))", [[\x1B]0;title]])
    has(it:enter "setmetatable({}, { __name = bad })", [[\x1B]0;title]])
    has(it:enter ":trace", [[\x1B]0;title]])
    assert.falsy(it.child.out:find("\27]", 1, true))
    assert.falsy(it.child.out:find("\27[31m", 1, true))
    assert.falsy(it.child.out:find("\x9b", 1, true))
  end)

  it("has its keys sorted, and limits", function()
    local it <close> = start()
    assert.are.equal([[{1, 2, [-1] = 0, ["a b"] = 1, ["end"] = 2, x = {y = true}}]],
      it:enter "{ 1, 2, x = { y = true }, ['a b'] = 1, ['end'] = 2, [-1] = 0 }")
    it:enter "t = { name = 't' } t.own = t"
    assert.are.equal('{name = "t", own = <cycle>}', it:enter "t")
    assert.are.equal("{{{{{…}}}}}", it:enter "{ { { { { { } , 1 } } } } }")
    it:enter "big = {} for i = 1, 1e5 do big[i] = i end"
    local lines = it:enter "big"
    has(lines, "… 99940 more")
    assert.are.equal('0, "xxx"', it:enter "#{}, ('x'):rep(3)")
    has(it:enter "('x'):rep(1e6)", "… (1000000 bytes)")
  end)

  it("may have a __tostring that fails, waits or never ends", function()
    local it <close> = start()
    it:enter "function with(f) return setmetatable({}, { __tostring = f }) end"
    assert.are.equal("fine", it:enter "with(function() return 'fine' end)")
    has(it:enter "with(function() error 'bad' end)", "its __tostring failed: repl:1: bad")
    has(it:enter "with(function() p2pd.sleep(1) end)", "cannot wait here")
    local folder <close> = program.folder()
    local begun = tostring(folder) .. "/begun" -- what is printed in there is not seen before it ends
    it:type(("with(function() io.open(%q, 'w'):close() while true do end end)"):format(begun) .. ENTER)
    assert(program.await(function() return luv.fs_stat(begun) end))
    it:type(CTRL_C)
    it:ends("^C", "it cannot be shown: cancelled", "p2pd>")
    assert.are.equal("1", it:enter "1")
  end)

  it("is coloured only where that is wanted", function()
    local plain <close> = start()
    plain:enter "'text'"
    assert.falsy(plain.child.out:find "\27%[%d*m")
    local coloured <close> = start { env = { NO_COLOR = false } }
    coloured:enter "'text'"
    has(coloured.child.out, '\27[32m"text"\27[0m')
    local dumb <close> = start { env = { NO_COLOR = false, TERM = "dumb" } }
    assert.are.equal('"text"', dumb:enter "'text'")
    assert.falsy(dumb.child.out:find("\27", 1, true))
  end)
end)

describe("output of the background", function()
  local function typed_over(code, ...)
    local it <close> = start()
    it:enter "go = p2pd.channel()"
    it:enter(("p2pd.spawn(function() go:recv() %s end)"):format(code))
    it:enter "p2pd.spawn(function() p2pd.sleep(0.15) go:send(1) end)"
    it:type "'typed' .."
    local shown = { ... }
    it:await("the output", function(lines)
      return lines[#lines]:match "> 'typed' %.%.$" and lines[#lines - 1] == shown[#shown]
    end)
    local lines = it:lines()
    assert.are.same(shown, table.move(lines, #lines - #shown, #lines - 1, 1, {}))
    it:type(" ' on'" .. ENTER)
    it:await("the result", function(now) return now[#now - 1] == '"typed on"' end)
    return it:text()
  end

  it("of print appears above the line", function()
    local text = typed_over("print 'one' print 'two'", "one", "two")
    has(text, "two\np2pd> 'typed' .. ' on'") -- and the prompt tells that nothing is left
  end)

  it("of io.write and io.stderr does, whole lines or not", function()
    typed_over("io.write('a', 1, '\\n') io.write 'b' io.stdout:flush()", "a1", "b")
    typed_over("io.stderr:write('err', 'or', '\\n')", "error")
    typed_over("io.stdout:setvbuf 'no' io.write('c', 'd')", "cd")
    typed_over("warn '@on' warn 'careful'", "Lua warning: careful")
  end)

  it("of failing tasks and callbacks does, in one line", function()
    local text = typed_over("error('oops', 0)", "task 5 failed: oops")
    assert.falsy(text:find("traceback", 1, true))
    typed_over("local t = require 'luv'.new_timer() t:start(1, 0, function() t:close() error 'bad' end)",
      "in a callback: repl:1: bad")
  end)

  it("does when there is much of it", function()
    local shown = {}
    for i = 1, 12 do shown[i] = ("line %d"):format(2988 + i) end
    typed_over("for i = 1, 3000 do print('line ' .. i) end", table.unpack(shown))
  end)

  it("does above a line of several rows", function()
    local it <close> = start()
    local long = ("x"):rep(2 * COLUMNS)
    it:enter "p2pd.spawn(function() p2pd.sleep(0.2) print 'above' p2pd.sleep(0.05) print 'again' end)"
    it:type("#'" .. long)
    it:ends("above", "again", "p2pd> #'" .. ("x"):rep(COLUMNS - 8), ("x"):rep(COLUMNS), ("x"):rep(8))
    it:type("'" .. ENTER)
    it:ends(("x"):rep(8) .. "'", "160", "p2pd>")
  end)

  it("leaves the exit status to the user", function()
    local it <close> = start()
    it:enter "p2pd.spawn(error, 'oops')"
    it:shows "task 3 failed: oops"
    it:type(CTRL_D)
    assert.are.equal(0, it.child:wait())
  end)
end)

describe("Ctrl-C", function()
  it("clears the line that is typed", function()
    local it <close> = start()
    it:type "some thing"
    it:ends "p2pd> some thing"
    it:type(CTRL_C)
    it:ends("p2pd> some thing^C", "p2pd>")
    assert.are.equal("1", it:enter "1")
    it:type(CTRL_R .. "1")
    it:await("the search", function(lines) return lines[#lines]:find "i%-search%)`1'" end)
    it:type(CTRL_C)
    it:prompt()
    assert.are.equal("2", it:enter "2")
    it:type(CTRL_C)
    it:ends("p2pd> ^C", "(Ctrl-D or :quit leaves)", "p2pd>")
  end)

  local bodies = {
    ["what waits"] = "p2pd.sleep(100)",
    ["what is busy"] = "while true do end",
    ["what is stubborn"] = "while true do pcall(function() while true do end end) end",
    ["what waits in a pattern's function"] = "(('x'):gsub('.', function() while true do end end))",
  }
  for what, body in pairs(bodies) do
    it("cancels " .. what .. ", and not the background", function()
      local it <close> = start()
      it:enter "ticks = 0"
      it:enter "p2pd.spawn(function() while true do p2pd.sleep(0.005) ticks = ticks + 1 end end)"
      it:type(("print 'go' %s"):format(body) .. ENTER)
      it:shows "go"
      it:type(CTRL_C)
      it:ends("go", "^C", "cancelled", "p2pd (1)>")
      assert.are.equal("true", it:enter "local before = ticks p2pd.sleep(0.1) return ticks > before")
    end)
  end

  it("runs the <close> variables of what it cancels", function()
    local it <close> = start()
    it:enter "guard = setmetatable({}, { __close = function() p2pd.sleep(0.01) print 'closed' end })"
    it:type("local c <close> = guard print 'go' p2pd.sleep(100)" .. ENTER)
    it:shows "go"
    it:type(CTRL_C)
    it:shows "closed"
    it:shows "cancelled"
  end)

  it("twice breaks into a busy background", function()
    local it <close> = start()
    it:type("p2pd.spawn(function() print 'go' while true do end end)" .. ENTER)
    it:shows "go"
    it:type(CTRL_C)
    it:await("the first", function(lines) return lines[#lines]:find("^C", 1, true) end)
    local function at_prompt()
      local lines = it:lines()
      return lines[#lines] == "p2pd>"
    end
    for _ = 1, 20 do -- two that come before the system delivers the first are one
      it:type(CTRL_C)
      if program.await(at_prompt, 1) then break end
    end
    assert.are.equal("2", it:enter "1 + 1")
  end)
end)

describe("leaving", function()
  it("is Ctrl-D, :quit, or the end of the terminal", function()
    for _, keys in ipairs { CTRL_D, ":quit" .. ENTER, ":q" .. ENTER, "os.exit(0)" .. ENTER } do
      local it <close> = start()
      it:type(keys)
      assert.are.equal(0, it.child:wait())
    end
  end)

  it("cancels what runs in the background, and waits for it", function()
    local it <close> = start()
    it:enter([[p2pd.spawn(function() local c <close> = setmetatable({}, { __close = function() p2pd.sleep(0.01) ]]
      .. [[print "closed" end }) p2pd.sleep(100) end)]])
    it:enter "require 'luv'.new_timer():start(100000, 0, print)"
    it:type(CTRL_D)
    assert.are.equal(0, it.child:wait())
    has(it.child.out, "closed")
  end)

  -- In a shell, so that the terminal outlives the program.
  local function in_shell()
    local it = start { command = { "/bin/sh", "-i" } }
    it:ends "$"
    it:type(("stty -a > ~/before; %s; echo $?"):format(program.path))
    it:type("; stty -a > ~/after; cmp ~/before ~/after && echo same" .. ENTER)
    it:prompt()
    return it
  end

  local ways = {
    { "by Ctrl-D", 0, function(it) it:type(CTRL_D) end },
    { "by os.exit", 3, function(it) it:type("os.exit(3)" .. ENTER) end },
    { "by os.exit in the background", 4, function(it)
      it:enter "p2pd.spawn(function() p2pd.sleep(0.05) os.exit(4) end)"
      it:type "half a line"
    end },
    { "by SIGTERM while a line is typed", 143, function(it) it:enter(it.own_kill:format "TERM") end },
    { "by SIGTERM while a line is busy", 143, function(it)
      it:type(it.own_kill:format "TERM" .. " while true do end" .. ENTER)
    end },
    { "by SIGQUIT", 131, function(it) it:type "half" it:ends "p2pd> half" it:type "\28" end },
    { "by SIGHUP", 129, function(it) it:enter(it.own_kill:format "HUP") end },
    { "by abort", 134, function(it) it:enter(it.own_kill:format "ABRT") end },
  }
  for _, way in ipairs(ways) do
    it(way[1] .. " gives the terminal back as it was", function()
      local it <close> = in_shell()
      it.own_kill = "io.popen(('sleep 0.1; kill -%s %%d'):format(require 'luv'.os_getpid()))"
      local ok, message = pcall(way[3], it)
      assert(ok or message:find "next prompt", message)
      it:await("the shell", function(lines) return lines[#lines] == "$" end)
      local text = it:text()
      assert.truthy(text:find("\n" .. way[2] .. "\n", 1, true), text)
      assert.truthy(text:find("\nsame\n", 1, true), text)
      local _, marked = it.child.out:gsub("\27%[%?2004h", "")
      local _, unmarked = it.child.out:gsub("\27%[%?2004l", "")
      assert.are.equal(marked, unmarked)
    end)
  end

  it("for a while by Ctrl-Z gives the terminal back too", function()
    local it <close> = start { command = { "/bin/sh", "-i" } }
    it:ends "$"
    it:type("stty -a > ~/before; " .. program.path .. ENTER)
    it:prompt()
    it:type "'be' .."
    it:ends "p2pd> 'be' .."
    it:type(CTRL_Z)
    it:await("the shell", function(lines) return lines[#lines] == "$" end)
    it:type("stty -a > ~/after; cmp ~/before ~/after && echo same" .. ENTER)
    it:shows "same"
    it:type("fg" .. ENTER)
    it:ends "p2pd> 'be' .."
    it:type(" 'gun'" .. ENTER)
    it:ends('"begun"', "p2pd>")
    it:type(CTRL_D)
    it:await("the shell", function(lines) return lines[#lines] == "$" end)
  end)
end)

describe("a command", function()
  it("that is unknown is answered with what was meant", function()
    local it <close> = start()
    assert.are.equal("there is no command ':hepl'; did you mean :help?", it:enter ":hepl")
    assert.are.equal("there is no command ':xyz'; :help lists them", it:enter ":xyz")
    assert.are.equal("", it:enter "::label::")
  end)

  it("helps", function()
    local it <close> = start()
    local help = it:enter ":help"
    for _, name in ipairs { "help", "quit", "trace", "why", "tasks", "time", "reload" } do has(help, ":" .. name) end
    local spawn = it:enter ":help p2pd.spawn"
    has(spawn, "p2pd.spawn(f, ...)")
    has(spawn, "p2pd.Task")
    has(it:enter ":help channel:recv", "Takes the oldest value out")
    has(it:enter ":help p2pd.Channel", "channel:send(value, timeout)")
    has(it:enter ":help tasks", "# Tasks")
    has(it:enter ":help p2pd.spwan", "did you mean p2pd.spawn")
  end)

  it("lists the tasks", function()
    local it <close> = start()
    assert.are.equal("no task runs in the background", it:enter ":tasks")
    it:enter "p2pd.spawn(function() p2pd.sleep(100) end)"
    assert.truthy(it:enter(":tasks"):match "^  task %d+ %(parked%) +repl:1$")
    has(it:text(), "p2pd (1)> :tasks")
  end)

  it("reloads a module", function()
    local folder <close> = program.folder()
    local path = folder:write("mod.lua", "return { version = 1 }")
    local it <close> = start { env = { LUA_PATH = tostring(folder) .. "/?.lua" } }
    it:enter "m = require 'mod'"
    it:enter "local l = m"
    folder:write("mod.lua", "return { version = 2 }")
    assert.are.equal("mod was loaded again", it:enter ":reload mod")
    assert.are.equal("2, 2", it:enter "m.version, l.version")
    folder:write("mod.lua", "return {")
    has(it:enter ":reload mod", "error loading module 'mod'")
    assert.are.equal("2, true", it:enter "m.version, require 'mod' == m")
    has(it:enter ":reload mdo", "'mdo' is not loaded; did you mean mod?")
    has(it:enter ":reload p2pd.core", "stays as it is")
    os.remove(path)
  end)

  it("tells why a connection came or did not", function()
    local it <close> = start()
    assert.are.equal("nothing was connected yet", it:enter ":why")
    it:enter "package.loaded['p2pd.node'] = { last_report = { text = function() return 'direct: refused' end } }"
    assert.are.equal("direct: refused", it:enter ":why")
  end)

  it("shows a connection over time", function()
    local it <close> = start()
    assert.are.equal("nothing was connected yet", it:enter ":timeline")
    it:enter("told = { ok = true, ms = 40, strategy = 'direct', rungs = { { name = 'direct', ok = true, "
      .. "started_ms = 0, ms = 40 }, { name = '\\27[2J', skipped = 'no' } } }")
    it:enter "package.loaded['p2pd.node'] = { last_report = { table = function() return told end } }"
    local lines = {}
    for line in it:enter(":timeline"):gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.are.equal("connected by direct in 40 ms", lines[1])
    assert.matches("^ +ms 0 .* 40$", lines[2])
    assert.matches("^direct  [━]+ connected after 40 ms$", lines[3])
    assert.matches("^\\x1B%[2J +passed over: no$", lines[4])
  end)
end)

describe("a script before the prompt", function()
  it("leaves its state", function()
    local folder <close> = program.folder()
    local path = folder:write("s.lua", "found = { ... } p2pd = require 'p2pd' p2pd.sleep(0.01) print 'ran'")
    local it <close> = start { "-i", path, "x" }
    has(it:text(), "\nran\n")
    assert.are.equal('{"x"}, "x"', it:enter "found, arg[1]")
  end)

  it("may fail, or not be there", function()
    local folder <close> = program.folder()
    local path = folder:write("s.lua", "before = 1 error 'oops'")
    local it <close> = start { "-i", path }
    has(it:text(), "s.lua:1: oops")
    has(it:text(), "stack traceback:")
    assert.are.equal("1", it:enter "before")
    local none <close> = start { "-i", tostring(folder) .. "/none.lua" }
    has(none:text(), "cannot open")
    assert.are.equal("1", none:enter "1")
  end)

  it("can be interrupted", function()
    local it <close> = start { command = { program.path, "-i", "-e", "x = 1", "/dev/fd/9" } }
    it:prompt()
    assert.are.equal("1", it:enter "x")
    local folder <close> = program.folder()
    local path = folder:write("s.lua", "print 'go' while true do end")
    local busy <close> = start { command = { program.path, "-i", path } }
    busy:shows "go"
    busy:type(CTRL_C)
    busy:ends("^C", "cancelled", "p2pd>")
  end)
end)
