-- Hints: what is told of a text, and how it stands behind the line that is typed, in the real program.
local hints = require "p2pd.repl.hints"
local luv = require "luv"
local p2pd = require "p2pd"
local program = require "spec.support.program"
local prompts = require "spec.support.prompt"
local texts = require "spec.support.texts"

local CTRL_A, CTRL_C, CTRL_E, CTRL_F, CTRL_R, TAB, ENTER = "\1", "\3", "\5", "\6", "\18", "\t", "\r"
local RIGHT, LEFT, END, UP = "\27[C", "\27[D", "\27[F", "\27[A"
local has = texts.has

local function start(options)
  options = options or {}
  options.env = options.env or {}
  if options.env.NO_COLOR == nil then options.env.NO_COLOR = false end
  return prompts.start(options)
end

-- Types keys; those of a burst are read before anything is shown.
local function typed(it, text, hint, more)
  it:prompt()
  it:type(text)
  it:hints("p2pd> " .. text, hint)
  if more then it:type(more) end
end

describe("a hint for a text", function()
  local function of(text, names)
    local env = setmetatable(names or {}, { __index = _G })
    return hints.of({
      env = env, lazy = function() return {} end, command_names = function() return { "trace", "pipes" } end,
      help_names = function() return { "p2pd.spawn", "tasks" } end,
    }, text)
  end

  it("of a call are the parameters that are still to come", function()
    local names = { p2pd = p2pd, other = p2pd.spawn, pipeline = p2pd.pipeline, channel = p2pd.channel() }
    for text, hint in pairs {
      ["p2pd.sleep("] = "seconds)",
      ["x = p2pd.timeout("] = "seconds, f, ...)",
      ["p2pd.timeout(1,"] = " f, ...)",
      ["p2pd.timeout(1, "] = "f, ...)",
      ["p2pd.timeout(1, f, 2, 3, "] = "...)",
      ["p2pd.timeout({ 1, 2 }, "] = "f, ...)",
      ["p2pd.timeout(g(1, ')('), "] = "f, ...)",
      ["p2pd.timeout([[(,]], "] = "f, ...)",
      ["p2pd.now("] = ")",
      ["p2pd.now( "] = ")",
      ["print(p2pd.sleep ("] = "seconds)",
      ["p2pd.node("] = "options?)",
      ["node:connect("] = "to, options?)", -- by the name alone: there is no such value
      ["node:connect(x,"] = " options?)",
      ["channel:send("] = "value, timeout?)",
      ["channel.send("] = "self, value, timeout?)",
      ["pipeline.stagger("] = "seconds)",
      [":time p2pd.sleep("] = "seconds)",
    } do
      assert.are.same({ hint, false }, { of(text, names) }, text)
    end
  end)

  it("of a function of one's own are its parameters", function()
    local own = { f = function(first, ...) return first, ... end, o = { m = function(self, x) return self, x end },
      node = { connect = function(a) return a end } }
    for text, hint in pairs {
      ["f("] = "first, ...)", ["f(1, "] = "...)", ["o:m("] = "x)", ["o.m("] = "self, x)", ["node.connect("] = "a)",
    } do
      assert.are.equal(hint, (of(text, own)), text)
    end
  end)

  it("is none where nothing is known, or nothing is called", function()
    for _, text in ipairs {
      "p2pd.sleep(1,", "p2pd.sleep(1", "function f(", "local function p2pd.sleep(", "function p2pd.sleep(", "if (", "{",
      "x = (", "'p2pd.sleep(", "-- p2pd.sleep(", "p2pd.sleep({", "p2pd.sleep({ 1,", "print(", "nothing(", "a.b.c(", "(",
      ")", ")))(", "x,", "f[[(", "node:connect(to, options, ", "..(", "a..b(", "p2pd.sleep()", "'a' 'b", "\\", "\255(",
    } do
      assert.is_nil(of(text, { p2pd = p2pd, f = 1 }), text)
    end
  end)

  it("is the rest of the only name that begins so", function()
    local account = { balance = 1, owner = {}, base = 1 }
    for text, rest in pairs {
      ["acc"] = "ount", ["print(acc"] = "ount", ["account.o"] = "wner", ["account.bal"] = "ance", [":tr"] = "ace",
      [":help p2pd.sp"] = "awn", ["require 'p2pd.tas"] = "k", ["x = 1 ..tostr"] = "ing", ["whi"] = "le",
    } do
      assert.are.same({ rest, true }, { of(text, { account = account }) }, text)
    end
    for _, text in ipairs {
      "a", "account", "account.", "account.ba", "account.x", "'acc", "-- acc", "[[ acc", "\xC3\xA9acc", "1acc", "z", "",
    } do
      assert.is_nil(of(text, { account = account }), text)
    end
  end)

  it("is the rest of the newest such line", function()
    local function recall(text) return text .. " and so on\nand on" end
    assert.are.same({ " and so on", true }, { hints.of_history("ab", recall) })
    assert.are.same({ " and so on", true }, { hints.of_history("\xC3\xA9\xC3\xA9", recall) })
    assert.is_nil(hints.of_history("a", recall))
    assert.is_nil(hints.of_history(" (= ", recall))
    assert.is_nil(hints.of_history("ab", function() end))
    assert.is_nil(hints.of_history("ab", function(text) return text .. "\nmore" end))
  end)

  it("is found quickly, whatever there is, and runs nothing", function()
    local function called() error "called" end
    local trap = setmetatable({}, {
      __index = called, __pairs = called, __tostring = called, __eq = called, __call = called, __len = called,
      __name = setmetatable({}, { __eq = called }),
    })
    local big = {}
    for i = 1, 1e6 do big[i] = i end
    big.only = 1
    local names = { trap = trap, big = big, p2pd = p2pd, deep = {} }
    names.deep.deep = names.deep
    setmetatable(names.deep, { __index = names.deep })
    local typings = {
      "trap.x", "trap.x(", "trap(", "trap:x(", "big.onl", "big.x(", "deep.deep.deep.x(", "deep.x",
      ("("):rep(300), ("f("):rep(100), ("'\\"):rep(200), ("[=["):rep(100), ("--[["):rep(60), ("a."):rep(200) .. "b(",
      ("x"):rep(400), (" "):rep(400) .. ",", (","):rep(400), "p2pd.sleep(" .. ("{},"):rep(150),
    }
    for _, text in ipairs(typings) do of(text, names) end -- what is read once is not measured
    for _, text in ipairs(typings) do
      local began = luv.hrtime()
      for _ = 1, 10 do of(text, names) end
      local ms = (luv.hrtime() - began) / 1e7
      assert(ms < 10, ("%s takes %.1f ms"):format(text:sub(1, 20), ms))
    end
    assert.is_nil(of("big.onl", names))
  end)
end)

describe("a hint at the prompt", function()
  it("stands faint behind the cursor, and is no part of the line", function()
    local home <close> = program.folder()
    local it <close> = start { home = tostring(home) }
    typed(it, "p2pd.sleep(", "seconds)", "0)" .. ENTER)
    it:ends("p2pd> p2pd.sleep(0)", "p2pd>")
    typed(it, "tostri", "ng", ENTER)
    it:ends("p2pd> tostri", "nil", "p2pd>")
    typed(it, "p2pd.no", "", "w")
    it:hints("p2pd> p2pd.now", "")
    it:type(CTRL_C)
    it:ends("p2pd> p2pd.now^C", "p2pd>")
    it:type(UP)
    it:hints("p2pd> tostri", "ng")
    it:type(CTRL_C)
    it:ends("p2pd> tostri^C", "p2pd>")
    it:type "\4"
    it.child:wait()
    assert.are.equal("p2pd.sleep(0)\ntostri\n", home:read "state/p2pd-lua/history")
  end)

  it("is taken by what moves to the right or to the end", function()
    local it <close> = start()
    for _, key in ipairs { RIGHT, CTRL_F, CTRL_E, END, "\27OC", "\27OF" } do
      typed(it, " tostri", "ng", key)
      it:hints("p2pd>  tostring", "")
      it:type "(1)\r"
      it:ends("p2pd>  tostring(1)", '"1"', "p2pd>")
    end
    typed(it, "tostri", "ng", TAB)
    it:hints("p2pd> tostring", "") -- as a hint it reads the same, and Ctrl-C throws away a Tab that waits
    it:type(CTRL_C)
    it:ends("p2pd> tostring^C", "p2pd>")
    typed(it, "p2pd.sleep(", "seconds)", RIGHT) -- what one has to write oneself
    it:type "1"
    it:hints("p2pd> p2pd.sleep(1", "")
  end)

  it("is the rest of a line of the history where there is none of names", function()
    local it <close> = start()
    it:enter "xs = 'one'"
    it:enter "xs = 'two'"
    typed(it, "xs", " = 'two'", " ")
    it:hints("p2pd> xs ", "= 'two'")
    it:type(RIGHT)
    it:hints("p2pd> xs = 'two'", "")
    it:type(CTRL_C)
    it:prompt()
    it:enter "tostri = 'a line'"
    it:enter "tostri = nil"
    typed(it, "tostr", "ing", CTRL_C) -- a name first
    it:prompt()
    it:enter " hidden = 1"
    it:enter "my_password = 'x'"
    it:enter "hidden, my_password = nil"
    it:type "my_p"
    it:hints("p2pd> my_p", "")
  end)

  it("is not there in the midst of a line, nor in a search", function()
    local it <close> = start()
    it:enter "sight = 'seen'"
    typed(it, "sight =", " 'seen'", LEFT)
    it:await("no hint", function(lines) return lines[#lines] == "p2pd> sight =" end)
    it:type(CTRL_E)
    it:hints("p2pd> sight =", " 'seen'")
    it:type(CTRL_A)
    it:await("no hint", function(lines) return lines[#lines] == "p2pd> sight =" end)
    it:type "x"
    it:ends("p2pd> xsight =")
    it:type(CTRL_C)
    it:ends("p2pd> xsight =^C", "p2pd>")
    it:type(CTRL_R .. "sig")
    it:await("the search", function(lines) return lines[#lines]:find "`sig': sight = 'seen'$" end)
    it:type(CTRL_E)
    it:hints("p2pd> sight = 'seen'", "")
    it:type(CTRL_C)
    it:prompt()
    typed(it, "sight", " = 'seen'", "\27") -- half a key
    it:await("no hint", function(lines) return lines[#lines] == "p2pd> sight" end)
    it:type "[C"
    it:hints("p2pd> sight = 'seen'", "")
  end)

  it("stays where it is when the background prints", function()
    local it <close> = start()
    it:enter "p2pd.spawn(function() for i = 1, 3 do p2pd.sleep(0.3) print('above ' .. i) end end)"
    it:await("the task", function(lines) return lines[#lines] == "p2pd (1)>" end)
    it:type "p2pd.sleep("
    it:await("the output", function(lines)
      return lines[#lines]:match "> p2pd.sleep%(seconds%)$" and lines[#lines - 1] == "above 3"
    end)
    it:hints("p2pd> p2pd.sleep(", "seconds)") -- the prompt that tells of no task, too
    local lines = it:lines()
    assert.are.same({ "above 1", "above 2", "above 3" }, table.move(lines, #lines - 3, #lines - 1, 1, {}))
    it:type("0)" .. ENTER)
    it:ends("above 3", "p2pd> p2pd.sleep(0)", "p2pd>")
  end)

  it("needs its room in the row", function()
    local it <close> = start { columns = 30 }
    typed(it, "p2pd.sleep(", "seconds)", CTRL_C)
    it:prompt()
    typed(it, "   p2pd.sleep(", "seconds)", CTRL_C)
    it:prompt()
    typed(it, "    p2pd.sleep(", "", CTRL_C)
    it:prompt()
    it:type(("'%s' .. tostr"):format(("x"):rep(30)))
    it:hints("xxxxxxx' .. tostr", "") -- in its second row
    it:type(CTRL_C)
    it:ends("xxxxxxx' .. tostr^C", "p2pd>")
    it:type("p2pd.sleep(")
    it:hints("p2pd> p2pd.sleep(", "seconds)")
    it.child:resize(24, 20)
    it.columns = 20
    it.child:expect("\27[J")
    it:type(RIGHT .. "0)" .. ENTER)
    it.child:expect("0)")
    it.child:expect "p2pd> "
    assert.falsy(it.child.out:match("%[J([^J]*)$"):find("\27[2m", 1, true))
  end)

  it("stands rightly behind text of several bytes, and is not there behind what has no certain place", function()
    local it <close> = start { columns = 40 }
    it:enter "s = 'é日本' .. 'ü'"
    it:type "s = 'é" -- some take two columns, which the screen of the specs does not know
    it.child:expect("'é\27[2m日本' .. 'ü'\27[0m\27[12D")
    it:type "日"
    it.child:expect("日\27[2m本' .. 'ü'\27[0m\27[10D")
    it:type(RIGHT)
    it.child:expect("\27[J本' .. 'ü'")
    it:type(CTRL_C)
    it.child:expect "^C"
    it:prompt()
    it:type "'\22\1' .. tostr"
    it.child:expect "^A' .. tostr"
    it:type "x"
    it.child:expect "x"
    assert.falsy(it.child.out:match("%^A(.*)$"):find("\27[2m", 1, true))
  end)

  it("is nowhere without colours, or when that was wished", function()
    local home <close> = program.folder()
    for _, env in ipairs { { NO_COLOR = "1" }, { TERM = "dumb" } } do
      local it <close> = start { env = env, home = tostring(home) }
      it:enter "1"
      it:type "p2pd.sleep("
      it:ends "p2pd> p2pd.sleep("
      it:type(CTRL_C)
      it:prompt()
      has(it:enter ":hints on", "hints need a terminal with colours")
    end
    local it <close> = start { home = tostring(home) }
    assert.are.equal("hints are on", it:enter ":hints")
    assert.are.equal(":hints is 'on' or 'off', not 'of'", it:enter ":hints of")
    assert.are.equal("", it:enter ":hints off")
    typed(it, "p2pd.sleep(", "", CTRL_C)
    it:prompt()
    assert.are.equal("", it:enter ":hints on")
    typed(it, "p2pd.sleep(", "seconds)", CTRL_C)
    it:prompt()
    luv.fs_mkdir(tostring(home) .. "/p2pd-lua", tonumber("700", 8))
    home:write("p2pd-lua/init.lua", "return { hints = false }")
    local silent <close> = start { home = tostring(home) }
    typed(silent, "p2pd.sleep(", "", CTRL_C)
    home:write("p2pd-lua/init.lua", "return { hint = false }")
    local wrong <close> = start { home = tostring(home) }
    prompts.says(wrong:text(), "init.lua: it may return { hints = true or false } alone")
  end)

  it("does not stay when the line is left", function()
    local it <close> = start { command = { "/bin/sh", "-i" } }
    it:ends "$"
    local ways = {
      { "SIGTERM", "kill -TERM" }, { "SIGHUP", "kill -HUP" }, { "SIGQUIT", "\28" }, { "Ctrl-Z", "\26" },
    }
    for _, way in ipairs(ways) do
      it:type(program.path .. ENTER)
      it:prompt()
      if way[2]:find "kill" then
        it:type(("io.popen(('sleep 0.3; %s %%d'):format(require 'luv'.os_getpid()))"):format(way[2]) .. ENTER)
        it:await("the line's end", function(lines) return lines[#lines] == "p2pd>" end)
      end
      it:type "p2pd.sleep("
      if way[2]:find "kill" then
        it:await(way[1], function(lines) return lines[#lines] == "$" end)
      else
        it:hints("p2pd> p2pd.sleep(", "seconds)")
        it:type(way[2])
        it:await(way[1], function(lines) return lines[#lines] == "$" end)
      end
      has(it.child.out, "\27[2mseconds)")
      assert.falsy(it:text():find("seconds)", 1, true), way[1] .. it:text())
      it:type("clear" .. ENTER)
      it:ends "$"
    end
    it:type("fg" .. ENTER)
    it:await("the line", function(lines) return (lines[#lines] or ""):find "p2pd> p2pd.sleep%(" end)
    it:type("0)" .. ENTER)
    it:prompt()
  end)

  it("that fails breaks nothing", function()
    local it <close> = start()
    it:enter "package.loaded['p2pd.repl.hints'].of = function() error 'oops' end"
    it:type "p2pd.sleep("
    it:hints("p2pd> p2pd.sleep(", "")
    it:type("0)" .. ENTER)
    it:ends("p2pd> p2pd.sleep(0)", "p2pd>")
    assert.are.equal(1, select(2, it:text():gsub("oops", "")))
  end)
end)
