-- The line being typed, as people use it: the terminal's size, the history, completion.
local luv = require "luv"
local program = require "spec.support.program"
local prompts = require "spec.support.prompt"
local screens = require "spec.support.screen"
local texts = require "spec.support.texts"

local CTRL_C, CTRL_D, CTRL_R, TAB, UP, ENTER = "\3", "\4", "\18", "\t", "\27[A", "\r"
local start, has = prompts.start, texts.has

describe("the terminal", function()
  it("may change its size", function()
    local it <close> = start()
    it:type(("y"):rep(60))
    it:ends("p2pd> " .. ("y"):rep(60))
    it.child:resize(24, 40)
    it.columns = 40
    -- what readline draws anew begins with the prompt; a screen of the new size is fed from there
    it.child:expect("y")
    local function redrawn()
      local last = it.child.out:match ".*()p2pd> "
      return screens.of(it.child.out:sub(last), 40)
    end
    assert(program.await(function()
      local lines = redrawn()
      return lines[1] == "p2pd> " .. ("y"):rep(34) and lines[2] == ("y"):rep(26)
    end), table.concat(redrawn(), "\n"))
    it:type(CTRL_C)
    it.child:expect "^C"
    it:type("#{ " .. ("'zzzzzzzzz', "):rep(2) .. "}" .. ENTER)
    it.child:expect "2\r\n"
    it.child:expect "p2pd> "
    it:type("{ " .. ("'zzzzzzzzz', "):rep(4) .. "}" .. ENTER)
    it.child:expect '{\r\n  "zzzzzzzzz",\r\n'
  end)

  it("may be standard input alone", function()
    local it <close> = start { command = { "/bin/sh", "-i" } }
    it:ends "$"
    it:type(program.path .. " > ~/out" .. ENTER)
    it:prompt()
    it:type("1 + 1" .. ENTER)
    it:ends("p2pd> 1 + 1", "p2pd>")
    it:type(CTRL_D)
    it:await("the shell", function(lines) return lines[#lines] == "$" end)
    it:type("cat ~/out" .. ENTER)
    it:shows "2"
  end)

  it("is free while a line runs: programs and io.read have it", function()
    local it <close> = start()
    it:type("print 'ask' return io.read()" .. ENTER)
    it:shows "ask"
    it:type("an answer" .. ENTER)
    it:ends('"an answer"', "p2pd>")
    assert.are.equal("from below", it:enter "local _ = os.execute 'echo from below'")
    assert.are.equal("no end\n1", it:enter "io.write 'no end' and 1")
    assert.are.equal("no end", it:enter "local _ = io.write 'no end'")
  end)
end)

describe("the history", function()
  local function file(home)
    local found = io.open(tostring(home) .. "/state/p2pd-lua/history")
    if not found then return "" end
    local text = found:read "a"
    found:close()
    return text
  end

  local function leave(it)
    it:prompt()
    it:type(CTRL_D)
    it.child:wait()
  end

  it("is found again by the next session", function()
    local home <close> = program.folder()
    local first <close> = start { home = tostring(home) }
    first:enter "'the ' .. 'first'"
    first:type("function f(" .. ENTER .. ") return 'several' end" .. ENTER)
    first:ends("   .. ) return 'several' end", "p2pd>")
    first:enter "1"
    leave(first)
    assert.are.equal("'the ' .. 'first'\nfunction f(\n\t) return 'several' end\n1\n", file(home))
    local path = tostring(home) .. "/state/p2pd-lua/history"
    assert.are.equal(tonumber("100600", 8), luv.fs_stat(path).mode)
    assert.are.equal(tonumber("40700", 8), luv.fs_stat(path:match "^(.*)/").mode)
    local second <close> = start { home = tostring(home) }
    second:type(UP)
    second:ends "p2pd> 1"
    second:type(UP .. ENTER)
    second:ends("p2pd>")
    assert.are.equal('"several"', second:enter "f()")
    second:type(CTRL_R .. "the")
    second:await("the line", function(lines) return lines[#lines]:find "'the ' .. 'first'" end)
    second:type(ENTER)
    second:ends('"the first"', "p2pd>")
  end)

  it("leaves out secrets, and lines that begin with a space", function()
    local home <close> = program.folder()
    local it <close> = start { home = tostring(home) }
    local secrets = {
      "password = 'x'", "my.Pass_Phrase = 1", "turn = { secret = 'y' }", "key = '-----BEGIN EC PRIVATE KEY-----'",
      " hidden = 1", "token = 'abc'", "apikey = 1",
    }
    it:enter "a = 1"
    for _, line in ipairs(secrets) do it:enter(line) end
    it:type(UP)
    it:ends "p2pd> a = 1"
    it:type(CTRL_C)
    leave(it)
    assert.are.equal("a = 1\n", file(home))
  end)

  it("is bounded, and shared by sessions side by side", function()
    local home <close> = program.folder()
    luv.fs_mkdir(tostring(home) .. "/state", tonumber("700", 8))
    luv.fs_mkdir(tostring(home) .. "/state/p2pd-lua", tonumber("700", 8))
    local lines = {}
    for i = 1, 5000 do lines[i] = ("x = %d\n"):format(i) end
    home:write("state/p2pd-lua/history", table.concat(lines))
    local one <close> = start { home = tostring(home) }
    assert.are.equal(1000, select(2, file(home):gsub("\n", "")))
    local other <close> = start { home = tostring(home) }
    one:enter "from = 'one'"
    other:enter "from = 'other'"
    leave(one)
    leave(other)
    assert.truthy(file(home):match "x = 5000\nfrom = 'one'\nfrom = 'other'\n$")
  end)

  it("that cannot be written is said once, and missed by nobody", function()
    local home <close> = program.folder()
    home:write("state", "no folder")
    local it <close> = start { home = tostring(home) }
    has(it:text(), "the history is not kept: ")
    assert.are.equal("1", it:enter "1")
    assert.are.equal("2", it:enter "2")
    it:type(UP)
    it:ends "p2pd> 2"
  end)
end)

describe("completion", function()
  local function completes(it, typed, wanted)
    it:prompt()
    it:type(typed .. TAB)
    it:ends("p2pd> " .. wanted)
    it:type(CTRL_C)
    it:ends("p2pd> " .. wanted .. "^C", "p2pd>")
  end

  it("knows names, fields, methods, modules and commands", function()
    local it <close> = start()
    it:enter "local account = setmetatable({ balance = 1 }, { __index = { deposit = print, note = 1 } })"
    completes(it, "acc", "account")
    completes(it, "tostr", "tostring")
    completes(it, "whi", "while")
    completes(it, "string.fo", "string.format")
    completes(it, "print(account.bal", "print(account.balance")
    completes(it, "account:d", "account:deposit")
    completes(it, "account.n", "account.note")
    completes(it, "account:n", "account:n") -- no method
    completes(it, "('x'):gma", "('x'):gmatch")
    completes(it, "p2pd.addr", "p2pd.address") -- a part that is not loaded yet
    completes(it, "1 ..tostr", "1 ..tostring")
    completes(it, "require 'p2pd.tas", "require 'p2pd.task")
    completes(it, "'tostr", "'tostr") -- a text
    completes(it, ":he", ":help")
    completes(it, ":help p2pd.spa", ":help p2pd.spawn")
    completes(it, ":time tostr", ":time tostring")
  end)

  it("lists what is possible", function()
    local it <close> = start()
    it:type("string.s" .. TAB .. TAB)
    it:await("the list", function(lines)
      return lines[#lines] == "p2pd> string.s" and lines[#lines - 1]:match "^sub%s*$"
        or (lines[#lines - 1] or ""):match "^split" or table.concat(lines, " "):find "sub"
    end)
  end)

  it("calls nothing", function()
    local it <close> = start()
    it:enter "function called() print 'called' end"
    it:enter "trap = setmetatable({}, { __index = called, __pairs = called, __tostring = called, __eq = called })"
    completes(it, "trap.x", "trap.x")
    completes(it, "trap.x.y", "trap.x.y")
    assert.falsy(it:text():find("\ncalled", 1, true))
  end)
end)
