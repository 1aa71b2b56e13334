-- The program as people start it: arguments, exit statuses, tracebacks, signals.
local program = require "spec.support.program"
local texts = require "spec.support.texts"

local has, has_not = texts.has, texts.has_not

-- Options first; then `input`, `env` by name.
local function run(options)
  table.insert(options, 1, program.path)
  options.env = options.env or {}
  for _, name in ipairs { "LUA_INIT", "LUA_INIT_5_4", "LUA_PATH", "LUA_PATH_5_4" } do
    if options.env[name] == nil then options.env[name] = false end
  end
  return program.run(options)
end

describe("the arguments", function()
  it("are run in their order", function()
    local it = run {
      "-e", "x = 1", "-ex = x + 1", "-l", "math", "-lluv", "-l", "u=luv", "-e", "print(x, math.pi > 3, luv == u)",
    }
    assert.are.same({ status = 0, out = "2\ttrue\ttrue\n", err = "" }, it)
  end)

  it("reach the script as arg and ...", function()
    local folder <close> = program.folder()
    local path = folder:write("a.lua", "#!/usr/bin/env p2pd-lua\nprint(arg[-2], arg[-1], arg[0], arg[1], arg[2], ...)")
    local it = run { "-W", path, "x", "-y" }
    assert.are.equal(table.concat({ program.path, "-W", path, "x", "-y", "x", "-y" }, "\t") .. "\n", it.out)
  end)

  it("leave standard input to be the script", function()
    assert.are.equal("in\t0\n", run { input = "print('in', select('#', ...))" }.out)
    assert.are.equal("in\ta\n", run { "-", "a", input = "print('in', ...)" }.out)
    assert.are.equal("in\n", run { "-i", input = "print 'in'" }.out:match "[^\n]*\n$")
    assert.are.equal("", run { "-e", "", input = "print 'in'" }.out)
  end)

  it("let a file be called as an option is", function()
    local folder <close> = program.folder()
    folder:write("-x", "print('file', ...)")
    assert.are.equal("file\t1\n", run { "--", "-x", "1", cwd = tostring(folder) }.out)
  end)

  it("print version and help", function()
    assert.truthy(run { "-v" }.out:match "^p2pd%-lua %d+%.%d+%.%d+  Lua 5%.4\n$")
    local help = run { "--help" }
    assert.are.equal(0, help.status)
    has(help.out, "-e CODE")
    has(help.out, "  connect     ")
    assert.are.equal(help.out, run { "-h" }.out)
  end)

  it("are refused with status 2 when they make no sense", function()
    for _, arguments in ipairs { { "--bad" }, { "-x" }, { "-ix" }, { "-e" }, { "-l" }, { "-e", "-v" } } do
      local it = run(arguments)
      assert.are.equal(2, it.status)
      has(it.err, "usage: p2pd-lua")
      assert.are.equal("", it.out)
    end
    local it = run { "conect" }
    assert.are.equal(2, it.status)
    assert.are.equal("p2pd-lua: 'conect' is neither a built-in program nor a file; did you mean connect?\n", it.err)
    assert.are.equal(2, run { "nothing-like-it" }.status)
  end)

  it("name built-in programs before files, and files by their names", function()
    local folder <close> = program.folder()
    folder:write("listen", "print 'mine'")
    folder:write("other", "print 'other'")
    has(run { "listen", "--help", cwd = tostring(folder) }.out, "p2pd-lua listen")
    assert.are.equal("mine\n", run { "./listen", cwd = tostring(folder) }.out)
    assert.are.equal("other\n", run { "other", cwd = tostring(folder) }.out)
  end)

  it("may name a file that is not there, or is no Lua", function()
    local it = run { "none.lua" }
    assert.are.equal(1, it.status)
    has(it.err, "cannot open none.lua")
    local folder <close> = program.folder()
    it = run { folder:write("a.lua", "x = = 1") }
    assert.are.equal(1, it.status)
    has(it.err, "a.lua:1: unexpected symbol near '='")
    has_not(it.err, "traceback")
  end)

  it("honour LUA_INIT and LUA_PATH unless -E is among them", function()
    local folder <close> = program.folder()
    local path = folder:write("init.lua", "print 'file'")
    folder:write("found.lua", "return 'found'")
    assert.are.equal("init\n", run { "-e", "", env = { LUA_INIT = "print 'init'" } }.out)
    assert.are.equal("5.4\n", run { "-e", "", env = { LUA_INIT = "print 'init'", LUA_INIT_5_4 = "print '5.4'" } }.out)
    assert.are.equal("file\n", run { "-e", "", env = { LUA_INIT = "@" .. path } }.out)
    assert.are.equal("", run { "-E", "-e", "", env = { LUA_INIT = "print 'init'" } }.out)
    local env = { LUA_PATH = tostring(folder) .. "/?.lua" }
    assert.are.equal("found\n", run { "-e", "print((require 'found'))", env = env }.out)
    assert.are.equal(1, run { "-E", "-e", "print((require 'found'))", env = env }.status)
    assert.are.equal("found\n", run { "-", "-E", input = "print((require 'found'))", env = env }.out)
  end)

  it("do not load what lies in the current folder by surprise", function()
    local folder <close> = program.folder()
    folder:write("surprise.lua", "print 'surprise'")
    local it = run { "-l", "surprise", cwd = tostring(folder) }
    assert.are.equal(1, it.status)
    has(it.err, "module 'surprise' not found")
    assert.are.equal("", it.out)
  end)

  it("turn warnings on", function()
    assert.are.equal("Lua warning: careful\n", run { "-W", "-e", "warn 'careful'" }.err)
    assert.are.equal("", run { "-e", "warn 'careful'" }.err)
  end)
end)

describe("a script", function()
  local function script(text, ...)
    local folder <close> = program.folder()
    return run { folder:write("s.lua", text), ... }
  end

  it("may return what it likes", function()
    assert.are.equal(0, script("return 7").status)
    assert.are.equal(0, script("return false, 'x'").status)
    assert.are.equal(7, script("os.exit(7)").status)
  end)

  it("that fails shows its own traceback and no more", function()
    local it = script "local function f(t)\n  return t.x.y + 1\nend\nlocal r = f {}\nprint(r)"
    assert.are.equal(1, it.status)
    has(it.err, "s.lua:2: attempt to index a nil value (field 'x')\nstack traceback:\n")
    has(it.err, "s.lua:2: in local 'f'")
    assert.truthy(it.err:match "s%.lua:4: in main chunk\n$")
    has_not(it.err, "main.lua")
  end)

  it("may throw a table, one with a text, or nil", function()
    local it = script "error { code = 1 }"
    assert.are.equal(1, it.status)
    has(it.err, "(error object is a table value)\nstack traceback:")
    has(it.err, "s.lua:1: in main chunk")
    has(script("error(setmetatable({}, { __tostring = function() return 'told' end }))").err, "p2pd-lua: told\n")
    assert.are.equal(1, script("error()").status)
  end)

  it("waits in a metamethod, and is told where it cannot", function()
    local it = script [[
      local p2pd = require "p2pd"
      local t = setmetatable({}, {
        __index = function(_, k) p2pd.sleep(0.001) return k end,
        __add = function() p2pd.sleep(0.001) return "sum" end,
        __tostring = function() p2pd.sleep(0.001) return "text" end,
      })
      print(t.field, t + t)
      print(t)
    ]]
    assert.are.equal("field\tsum\n", it.out)
    assert.are.equal(1, it.status)
    has(it.err, "cannot wait here")
    has(it.err, "__tostring")
  end)

  it("may close things twice", function()
    local it = script [[
      local p2pd = require "p2pd"
      local channel <close> = p2pd.channel()
      channel:close()
      channel:close()
      print(channel:send(1))
      local task = p2pd.spawn(p2pd.sleep, 100)
      task:cancel()
      task:cancel()
      print(task:wait())
      task:cancel()
    ]]
    assert.are.equal("nil\tECLOSED: the channel was closed\tECLOSED\n"
      .. "nil\tECANCELED: the task was cancelled\tECANCELED\n", it.out)
    assert.are.same({ 0, "" }, { it.status, it.err })
  end)

  it("whose tasks fail, or whose callbacks do, ends with status 1", function()
    local it = script "require 'p2pd'.spawn(function() error 'in a task' end) print 'done'"
    assert.are.same({ 1, "done\n" }, { it.status, it.out })
    has(it.err, "a task failed: ")
    has(it.err, "s.lua:1: in a task")
    it = script "local t = require 'luv'.new_timer() t:start(1, 0, function() t:close() error 'in luv' end)"
    assert.are.equal(1, it.status)
    has(it.err, "in a callback: ")
    has(it.err, "s.lua:1: in luv")
  end)

  it("that waits for what cannot come is told so", function()
    local it = script [[
      local p2pd = require "p2pd"
      local c = p2pd.channel()
      p2pd.spawn(function() c:recv() end)
      c:recv()
    ]]
    assert.are.equal(1, it.status)
    has(it.err, "EDEADLOCK")
    has(it.err, "s.lua:4: in main chunk")
    has(it.err, "s.lua:3: in function")
    has_not(it.err, "main.lua")
  end)

  it("goes on while its tasks and handles do", function()
    local it = script [[
      local p2pd = require "p2pd"
      p2pd.spawn(function() p2pd.sleep(0.02) print "task" end)
      local t = require "luv".new_timer()
      t:start(40, 0, function() t:close() print "timer" end)
      print "script"
    ]]
    assert.are.same({ status = 0, out = "script\ntask\ntimer\n", err = "" }, it)
  end)

  it("is not stopped by output that nobody reads", function()
    local it = run { "-e", "io.stdout:write(('x'):rep(1 << 20)) io.stderr:write 'done'" }
    assert.are.same({ 0, 1 << 20, "done" }, { it.status, #it.out, it.err })
    local pipe = program.run { "/bin/sh", "-c", program.path .. " -e 'for i = 1, 1e5 do print(i) end' | head -1" }
    assert.are.equal("1\n", pipe.out)
  end)
end)

describe("a signal", function()
  local bodies = {
    waiting = "p2pd.sleep(100)",
    busy = "while true do end",
    stubborn = "while true do pcall(function() while true do end end) end",
    ["busy in the background"] = "p2pd.spawn(function() while true do end end) p2pd.sleep(100)",
  }
  local statuses = { sigint = 130, sigterm = 143 }
  for how, body in pairs(bodies) do
    for signal, status in pairs(statuses) do
      it(("ends what is %s by %s, with its <close> variables"):format(how, signal), function()
        local code = ([[
          local p2pd = require "p2pd"
          local handler <close> = setmetatable({}, { __close = function()
            p2pd.sleep(0.001)
            io.stderr:write "closed"
          end })
          print "ready"
          io.stdout:flush()
          %s
        ]]):format(body)
        local child <close> = program.start { program.path, "-e", code }
        child:expect "ready"
        child:kill(signal)
        assert.are.equal(status, child:wait())
        assert.are.equal("closed", child.err)
      end)
    end
  end

  it("that comes twice ends it at once", function()
    local child <close> = program.start { program.path, "-e", [[
      local p2pd = require "p2pd"
      local handler <close> = setmetatable({}, { __close = function()
        print "closing"
        io.stdout:flush()
        p2pd.sleep(100)
      end })
      print "ready"
      io.stdout:flush()
      p2pd.sleep(100)
    ]] }
    child:expect "ready"
    child:kill "sigint"
    child:expect "closing"
    child:kill "sigterm"
    assert.are.equal(143, child:wait(4))
  end)
end)

describe("a script that leaves while handles of luv are closing", function()
  -- What is used after it was freed then leads nowhere, every time (mallopt(3)).
  local env = { MALLOC_PERTURB_ = "165" }

  it("leaves by os.exit", function()
    local it = program.run { program.path, "-e", [[
      local luv = require "luv"
      luv.new_timer():start(100000, 0, function() end)
      luv.new_pipe(false):close()
      os.exit(7, true)
    ]], env = env }
    assert.are.same({ status = 7, out = "", err = "" }, it)
  end)

  it("leaves by a signal", function()
    local child <close> = program.start { program.path, "-e", [[
      local handle <close> = setmetatable({}, { __close = function() require("luv").new_timer():close() end })
      print "ready"
      io.stdout:flush()
      while true do end
    ]], env = env }
    child:expect "ready"
    child:kill "sigint"
    assert.are.same({ 130, "" }, { child:wait(), child.err })
  end)
end)
