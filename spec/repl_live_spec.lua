-- What runs beside the prompt, as its commands show it: pipes, pipelines, labs, an expression over time; and the file
-- that is run before the first line.
local luv = require "luv"
local program = require "spec.support.program"
local prompts = require "spec.support.prompt"
local texts = require "spec.support.texts"

local CTRL_C, ENTER = "\3", "\r"
local start, has, says = prompts.start, texts.has, prompts.says

-- Nodes that need nobody else.
local NODE = "p2pd.node { settings = { mqtt = {}, stun = {}, turn = {}, ntp = {} }, bind = '127.0.0.1', "
  .. "on_notice = function() end, key = os.getenv 'HOME' .. '/%s.pem', port = 0, map = false, %s }"

describe("pipes", function()
  it("are shown with whom, how, how much and for how long", function()
    local it <close> = start()
    assert.are.equal("no pipe is open", it:enter ":pipes")
    it:enter("a = assert(" .. NODE:format("a", "") .. ")")
    it:enter("b = assert(" .. NODE:format("b", "") .. ")")
    assert.are.equal("no pipe is open", it:enter ":pipes")
    it:enter "pipe = assert(a:connect(b:address(), { strategies = { 'direct' } }))"
    it:enter "other = b:accept()()"
    assert.are.equal("true, 3000", it:enter "pipe:send(('x'):rep(3000)), #other:recv()")
    it:enter "_ = nil"
    local lines = {}
    for line in it:enter(":pipes"):gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.are.equal(2, #lines)
    local text = table.concat(lines, "\n")
    has(text, "  direct   127.0.0.1:")
    has(text, "2.9 KiB out, 0 B in")
    has(text, "0 B out, 2.9 KiB in")
    assert.matches("  %d s$", lines[1])
    it:enter "pipe:close() other:close()"
    assert.are.equal("no pipe is open", it:enter ":pipes")
  end)
end)

describe("a pipeline", function()
  it("is loaded again under a node that runs", function()
    local folder <close> = program.folder()
    local path = folder:write("mine.lua", "return { name = 'one', connect = function() return nil, 'first', 'EX' end }")
    local it <close> = start()
    has(it:enter ":reload", "no node runs")
    it:enter(("path = %q"):format(path))
    it:enter("n = assert(" .. NODE:format("a", "pipeline = assert(p2pd.pipeline.load(path))") .. ")")
    it:enter("m = assert(" .. NODE:format("b", "") .. ")")
    assert.are.equal('"one"', it:enter "n.pipeline.name")
    folder:write("mine.lua", "return { name = 'two', connect = function() return nil, 'second', 'EX' end }")
    local text = it:enter(":reload " .. path)
    says(text, "mine.lua was loaded again")
    assert.falsy(text:find("default", 1, true))
    assert.are.equal('"two"', it:enter "n.pipeline.name")
    folder:write("mine.lua", "return {")
    text = it:enter ":reload"
    says(text, "mine.lua:1: unexpected symbol")
    has(text, "default was loaded again")
    assert.are.equal('"two"', it:enter "n.pipeline.name")
    has(it:enter ":reload punhc", "'punhc' is not loaded")
    it:enter "n:use(function() end)"
    has(it:enter(":reload"), "its pipeline was not loaded by a name")
  end)

  it("that was restricted stays so", function()
    local it <close> = start()
    it:enter "own = assert(p2pd.pipeline.restrict(p2pd.pipeline.default(), { 'direct', 'relay' }))"
    it:enter("n = assert(" .. NODE:format("a", "pipeline = own") .. ")")
    has(it:enter ":reload direct", "default (direct, relay alone) was loaded again")
    assert.are.equal("false, true", it:enter "n.pipeline == own, n.pipeline.name == own.name")
  end)
end)

describe("a lab", function()
  it("is listed when there is one", function()
    local folder <close> = program.folder()
    local it <close> = start { env = { TMPDIR = tostring(folder), XDG_RUNTIME_DIR = tostring(folder) } }
    has(it:enter ":lab", "no lab runs")
    has(it:enter ":lab none", "ENOENT: no lab 'none' runs")
  end)
end)

describe("an expression", function()
  it("is watched until a key is pressed", function()
    local it <close> = start()
    it:enter "n = 0"
    it:type(":watch n" .. ENTER)
    it:await("the first", function(lines) return lines[#lines]:match "^%d%d:%d%d:%d%d  0$" end)
    it:type "q"
    it:prompt()
    assert.falsy(it:text():find("> q", 1, true))
    it:type(":watch n, 'x'" .. ENTER)
    it:await("the second", function(lines)
      return lines[#lines - 1]:match '  0, "x"$' and lines[#lines]:match '  0, "x"$'
    end)
    it:type(CTRL_C)
    it:ends("^C", "cancelled", "p2pd>")
    assert.are.equal(":watch needs an expression", it:enter ":watch")
    has(it:enter ":watch error 'oops'", "oops")
    it:type(":watch print 'busy' while true do end" .. ENTER)
    it:shows "busy"
    it:type(CTRL_C)
    it:ends("^C", "cancelled", "p2pd>")
    assert.are.equal("1", it:enter "1")
  end)
end)

describe("the init file", function()
  local function home_with(text, mode)
    local home = program.folder()
    luv.fs_mkdir(tostring(home) .. "/p2pd-lua", tonumber("700", 8))
    local path = home:write("p2pd-lua/init.lua", text)
    luv.fs_chmod(path, tonumber(mode or "644", 8))
    return home
  end

  it("is run before the first line", function()
    local home <close> = home_with "print 'welcome' function double(x) return 2 * x end p2pd.sleep(0.01)"
    local it <close> = start { home = tostring(home) }
    it:shows "welcome"
    assert.are.equal("6", it:enter "double(3)")
  end)

  it("is refused when others may write it", function()
    local home <close> = home_with("print 'welcome'", "666")
    local it <close> = start { home = tostring(home) }
    says(it:text(), "init.lua is not run: others may write it; `chmod")
    assert.falsy(it:text():find("welcome", 1, true))
    luv.fs_chmod(tostring(home) .. "/p2pd-lua/init.lua", tonumber("600", 8))
    luv.fs_chmod(tostring(home) .. "/p2pd-lua", tonumber("777", 8))
    local again <close> = start { home = tostring(home) }
    says(again:text(), "init.lua is not run: its folder: others may write it")
  end)

  it("may be wrong, fail, or never end", function()
    local wrong <close> = home_with "print 'welcome"
    local it <close> = start { home = tostring(wrong) }
    has(it:text(), "unfinished string")
    local failing <close> = home_with "error 'oops'"
    local other <close> = start { home = tostring(failing) }
    has(other:text(), "init.lua:1: oops")
    assert.are.equal("1", other:enter "1")
    local endless <close> = home_with "print 'go' while true do end"
    local third <close> = start { home = tostring(endless), command = { program.path } }
    third:shows "go"
    third:type(CTRL_C)
    third:ends("^C", "cancelled", "p2pd>")
  end)
end)
