-- check: timeout 120
-- Pipelines that are loaded anew when their files change: by pipeline.watch, by node:watch, and in `listen --watch`.
local cjson = require "cjson"
local luv = require "luv"
local p2pd = require "p2pd"
local pair = require "spec.support.pair"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local run = require "spec.support.run"
local strategies = require "p2pd.strategy"
local texts = require "spec.support.texts"

local has = texts.has

local QUIET = 0.4 -- seconds after which a change would have been told

-- A strategy that answers so, as a file's text.
local function text_of(name)
  return ("return { name = %q, connect = function() return nil, 'ETEST: no', 'ETEST' end }\n"):format(name)
end

-- Watches what is loaded from a file; `next()` gives what is told next.
local function watched(path)
  local news = p2pd.channel(100)
  local watch = assert(p2pd.pipeline.watch(assert(p2pd.pipeline.load(path)), function(each) news:send(each) end))
  local function next_news() return assert(news:recv(5)) end
  local function nothing() assert.is_nil((news:recv(QUIET))) end
  return watch, next_news, nothing
end

local function replace(folder, name, text)
  folder:write(name .. ".new", text)
  assert(os.rename(("%s/%s.new"):format(folder, name), ("%s/%s"):format(folder, name)))
end

describe("a watched file", function()
  it("is loaded again however it changes, and not when others do", run(function()
    local folder <close> = program.folder()
    local path = folder:write("mine.lua", text_of "first")
    local watch <close>, next_news, nothing = watched(path)
    for _, way in ipairs {
      { "written", function(text) folder:write("mine.lua", text) end },
      { "replaced", function(text) replace(folder, "mine.lua", text) end },
      { "written", function(text) folder:write("mine.lua", text) end },
      { "removed and made", function(text)
        assert(os.remove(path))
        folder:write("mine.lua", text)
      end },
      { "linked", function(text)
        folder:write("there.lua", text)
        assert(luv.fs_symlink("there.lua", path .. ".link"))
        assert(os.rename(path .. ".link", path))
      end },
      { "written there", function(text) folder:write("there.lua", text) end },
      { "linked elsewhere", function(text)
        assert(luv.fs_mkdir(tostring(folder) .. "/below", 448))
        folder:write("below/other.lua", text)
        assert(os.remove(path))
        assert(luv.fs_symlink(tostring(folder) .. "/below/other.lua", path))
      end },
      { "replaced below", function(text) replace(folder, "below/other.lua", text) end },
    } do
      local name = way[1]:gsub(" ", "_")
      way[2](text_of(name))
      local news = next_news()
      assert.equal(path .. " was loaded again: " .. name, news.text)
      assert.same({ path }, news.files)
      assert.equal(name, news.pipeline.name)
      assert.equal(news.pipeline, watch.strategy)
      folder:write("there.lua~", "x")
      nothing()
    end
    assert(luv.fs_utime(path, 1, 1)) -- touched
    assert.equal("replaced_below", next_news().pipeline.name)
    nothing()
  end))

  it("is loaded again when its folder is replaced, or reached by another link", run(function()
    local folder <close> = program.folder()
    local here = tostring(folder)
    for _, name in ipairs { "a", "b", "c" } do
      assert(luv.fs_mkdir(here .. "/" .. name, 448))
      folder:write(name .. "/mine.lua", text_of(name))
    end
    assert(luv.fs_symlink("a", here .. "/now"))
    local _ <close>, next_news, nothing = watched(here .. "/now/mine.lua")
    assert(luv.fs_symlink("b", here .. "/new"))
    assert(os.rename(here .. "/new", here .. "/now"))
    assert.equal("b", next_news().pipeline.name)
    folder:write("a/mine.lua", text_of "old")
    nothing()
    assert(os.rename(here .. "/b", here .. "/gone"))
    assert.equal("ENOENT", next_news().code)
    assert(os.rename(here .. "/c", here .. "/b"))
    assert.equal("c", next_news().pipeline.name)
    folder:write("b/mine.lua", text_of "again")
    assert.equal("again", next_news().pipeline.name)
  end))

  it("is loaded once for several quick changes, and before long while they do not end", run(function()
    local folder <close> = program.folder()
    local path = folder:write("mine.lua", text_of "first")
    local _ <close>, next_news, nothing = watched(path)
    for i = 1, 5 do
      folder:write("mine.lua", text_of("quick" .. i))
      p2pd.sleep(0.02)
    end
    assert.equal("quick5", next_news().pipeline.name)
    nothing()
    local told
    local waiting = p2pd.spawn(function() told = next_news() end)
    for i = 1, 100 do
      folder:write("mine.lua", text_of("endless" .. i))
      p2pd.sleep(0.03)
      if told then break end
    end
    waiting:wait()
    assert.matches("^endless%d+$", told.pipeline.name)
    assert.is_not.equal("endless100", told.pipeline.name)
  end))

  it("with a mistake is told with its line, until it is mended", run(function()
    local folder <close> = program.folder()
    local path = folder:write("mine.lua", text_of "first")
    local watch <close>, next_news = watched(path)
    local first = watch.strategy
    for _, case in ipairs {
      { "return {\n  name = 'x'\n  connect = 1 }", "mine.lua:3: '}' expected" },
      { "\nreturn 7", "mine.lua:2: a strategy is a table, not a number" },
      { "local x = nil\nreturn x.y", "mine.lua:2: attempt to index a nil value" },
      { "return {\n  name = 'x',\n  timeout = 'long', connect = print }", "mine.lua:3: strategy x: its timeout is" },
    } do
      folder:write("mine.lua", case[1])
      local news = next_news()
      has(news.text, case[2])
      assert.matches("; the pipeline stays as it was$", news.text)
      assert.is_nil(news.text:find "[\n]")
      assert.is_nil(news.text:find "^EINVAL")
      assert.same({ "EINVAL", path }, { news.code, news.files[1] })
      assert.is_nil(news.pipeline)
      assert.equal(first, watch.strategy)
    end
    assert(os.remove(path))
    assert.equal("ENOENT", next_news().code)
    folder:write("mine.lua", text_of "mended")
    assert.equal("mended", next_news().pipeline.name)
  end))

  it("that waits as it is loaded is given up when it changes once more", run(function()
    local folder <close> = program.folder()
    local path = folder:write("mine.lua", text_of "first")
    local _ <close>, next_news, nothing = watched(path)
    folder:write("mine.lua", "require('p2pd').sleep(1000)\n" .. text_of "late")
    nothing()
    folder:write("mine.lua", text_of "prompt")
    assert.equal("prompt", next_news().pipeline.name)
    folder:write("mine.lua", "require('p2pd').sleep(1000)\n" .. text_of "late")
    p2pd.sleep(0.2) -- closing the watch ends that, too
  end))

  it("is each that was loaded: by a file, by a name, as a module, beside the default ones", run(function()
    local folder <close> = program.folder()
    local here = tostring(folder)
    local before, config, path = luv.os_getenv "XDG_CONFIG_HOME", here .. "/config", package.path
    local _ <close> = setmetatable({}, { __close = function()
      package.path = path
      if before then luv.os_setenv("XDG_CONFIG_HOME", before) else luv.os_unsetenv "XDG_CONFIG_HOME" end
    end })
    luv.os_setenv("XDG_CONFIG_HOME", config)
    for _, name in ipairs { "/config", "/config/p2pd-lua", "/config/p2pd-lua/strategies", "/mods" } do
      assert(luv.fs_mkdir(here .. name, 448))
    end
    package.path = here .. "/?.lua;" .. package.path
    folder:write("config/p2pd-lua/strategies/owned.lua", text_of "owned")
    folder:write("mods/watched.lua", text_of "module")
    local part = folder:write("part.lua", text_of "part")
    local mine = folder:write("mine.lua", ([[
      local pipeline = require("p2pd").pipeline
      return pipeline.seq { "owned", pipeline.race { "mods.watched", %q }, "lan-only" }
    ]]):format(part))
    local watch <close>, next_news = watched(mine)
    local function now() return strategies.leaves(watch.strategy) end
    assert.same({ "owned", "module", "part" }, { table.unpack(now(), 1, 3) })
    folder:write("config/p2pd-lua/strategies/owned.lua", text_of "owned2")
    has(next_news().text, "owned was loaded again: seq{owned2, race{module, part}, ")
    folder:write("mods/watched.lua", text_of "module2")
    has(next_news().text, "mods.watched was loaded again: seq{owned2, race{module2, part}, ")
    folder:write("part.lua", text_of "part2")
    has(next_news().text, "part.lua was loaded again: seq{owned2, race{module2, part2}, ")
    -- What it needs and is not there yet.
    folder:write("mine.lua", "return require('p2pd').pipeline.seq { 'owned', 'later', 'mods.watched' }")
    has(next_news().text, "there is no strategy 'later'")
    folder:write("part.lua", text_of "part3") -- it was a part of what is still in use
    has(next_news().text, "there is no strategy 'later'")
    folder:write("mods/watched.lua", text_of "module3")
    has(next_news().text, "there is no strategy 'later'")
    folder:write("config/p2pd-lua/strategies/later.lua", text_of "later")
    assert.equal("later was loaded again: seq{owned2, later, module3}", next_news().text)
    package.loaded["mods.watched"] = nil
  end))

  it("may give what has another name, too", run(function()
    local folder <close> = program.folder()
    local path = folder:write("mine.lua", "return require('p2pd').pipeline.default()")
    local default = p2pd.pipeline.default()
    local _ <close>, next_news = watched(path)
    assert.equal("default", p2pd.pipeline.origin(default).name)
    folder:write("mine.lua", text_of "changed")
    assert.equal("changed", next_news().pipeline.name)
  end))

  it("that changed before it was watched is loaded at once", run(function()
    local folder <close> = program.folder()
    local path = folder:write("mine.lua", text_of "first")
    local news, pipeline = p2pd.channel(9), assert(p2pd.pipeline.load(path))
    folder:write("mine.lua", text_of "second")
    local _ <close> = assert(p2pd.pipeline.watch(pipeline, function(each) news:send(each) end))
    assert.equal("second", news:recv(5).pipeline.name)
  end))

  it("is one of the user's, and loaded by a name", run(function()
    local function nobody() end
    local default = p2pd.pipeline.default()
    for _, each in ipairs { default, p2pd.pipeline.seq { "direct" } } do
      local watch, _, code = p2pd.pipeline.watch(each, nobody)
      assert.same({ nil, "ENOENT" }, { watch, code })
    end
    assert.has_error(function() p2pd.pipeline.watch(default) end, "a function is expected that gets the news")
    assert.has_error(function() p2pd.pipeline.watch(7, nobody) end)
  end))

  it("is not watched where its folder may not be read", luv.getuid() == 0 and function()
    pending "root may read all folders"
  end or run(function()
    local folder <close> = program.folder()
    local path = folder:write("mine.lua", text_of "first")
    local pipeline = assert(p2pd.pipeline.load(path))
    assert(luv.fs_chmod(tostring(folder), 64)) -- 0100
    local watch, message, code = p2pd.pipeline.watch(pipeline, function() end)
    assert(luv.fs_chmod(tostring(folder), 448))
    assert.same({ nil, "EACCES" }, { watch, code })
    has(message, ("the folder %s cannot be watched"):format(tostring(folder)))
  end))
end)

describe("a node that watches its files", function()
  local two
  setup(function() two = pair.new() end)
  teardown(function() two:close() end)

  it("uses what they are now, and what it was given later; nothing is left when it is closed", run(function()
    local folder <close> = program.folder()
    local path, other = folder:write("mine.lua", text_of "first"), folder:write("other.lua", text_of "other")
    local node <close>, notices = two:node "a"
    assert.same({ nil, "ENOENT" }, { node:watch(), (select(3, node:watch())) })
    assert(node:use(path))
    assert(node:watch())
    folder:write("mine.lua", "return {")
    assert(program.await(function() return #notices == 1 end))
    has(notices[1], "mine.lua:1: ")
    assert.equal("first", node.pipeline.name)
    folder:write("mine.lua", text_of "second")
    assert(program.await(function() return node.pipeline.name == "second" end))
    assert.same({ path .. " was loaded again: second" }, { table.unpack(notices, 2) })
    assert(node:use(other))
    folder:write("mine.lua", text_of "third")
    p2pd.sleep(QUIET)
    assert.equal("other", node.pipeline.name)
    local told = p2pd.channel(9)
    assert(node:watch(function(news)
      told:send(news.text)
      error "which does no harm"
    end))
    folder:write("other.lua", text_of "another")
    assert.equal(other .. " was loaded again: another", told:recv(5))
    assert.equal("another", node.pipeline.name)
    node:use(p2pd.pipeline.seq { "direct" })
    folder:write("other.lua", text_of "unused")
    p2pd.sleep(QUIET)
    assert.equal("seq", node.pipeline.name)
    assert.equal(2, #notices)
    assert.has_error(function() node:watch(7) end)
    node:close()
    assert.equal("ECLOSED", (select(3, node:watch())))
  end))
end)

-- What each side's file does: one asks for a word, the other one tells it, after a while if it is to.
local ASKS = [[
  return { name = "word", timeout = 15, connect = function(ctx)
    local reply, message, code = ctx:request({ slow = %s }, 10)
    if not reply then return nil, message, code end
    return nil, "ETEST: the peer says " .. tostring(reply.word), "ETEST"
  end }
]]
local ANSWERS = [[
  return { name = "word", connect = function() return nil, "ETEST: no", "ETEST" end, respond = function(ctx, message)
    if message.slow then
      io.stderr:write "was asked\n"
      ctx:sleep(1.5)
    end
    ctx:reply(message, { word = %q })
  end }
]]

describe("listen --watch", function()
  local two, folder, settings
  setup(function()
    two, folder = pair.new(), program.folder()
    settings = two:settings_file()
  end)
  teardown(function()
    two:close()
    processes.remove(tostring(folder))
  end)

  local function command(name, ...)
    local all = { program.path, name, "--settings", settings, "--key", ("%s/%s.pem"):format(folder, name), "--bind",
      "127.0.0.1", ... }
    all.cwd = tostring(folder)
    return all
  end

  local function listen(...)
    local child = program.start(command("listen", "--echo", "--watch", ...))
    child:expect "\n"
    return child, child.out:match "^address (%S+)\n"
  end

  local function ask(address, slow)
    local name = slow and "slow.lua" or "quick.lua"
    folder:write(name, ASKS:format(slow and "true" or "nil"))
    return program.start(command("connect", address, "--strategies", "./" .. name))
  end

  local function answer(child, word)
    assert.equal(1, child:wait())
    has(child.err, "the peer says " .. word)
  end

  it("answers by the files as they are; attempts under way go on as they began", function()
    folder:write("mine.lua", ANSWERS:format "one")
    local child <close>, address = listen("--strategies", "direct,./mine.lua")
    local first <close> = ask(address)
    answer(first, "one")
    local slow <close> = ask(address, true)
    child:expect("was asked", "err")
    replace(folder, "mine.lua", ANSWERS:format "two")
    child:expect("p2pd-lua: ./mine.lua was loaded again: stagger(0.25){direct, word}\n", "err")
    local second <close> = ask(address)
    answer(second, "two")
    answer(slow, "one")
    folder:write("mine.lua", "return {\n  name = 'word',\n  respond = functoin() end }")
    child:expect("p2pd-lua: ./mine.lua:3: ", "err")
    child:expect("; the pipeline stays as it was\n", "err")
    local third <close> = ask(address)
    answer(third, "two")
    folder:write("mine.lua", ANSWERS:format "three")
    assert(program.await(function() return select(2, child.err:gsub("was loaded again", "")) == 2 end))
    local fourth <close> = ask(address)
    answer(fourth, "three")
    child:kill "sigterm"
    assert.equal(143, child:wait())
    assert.is_nil(child.err:find "traceback")
  end)

  it("tells it as lines of JSON", function()
    folder:write("mine.lua", text_of "one")
    local child <close> = listen("--json", "--pipeline", "mine.lua")
    folder:write("mine.lua", text_of "two")
    child:expect("\"event\":\"pipeline\"", "err")
    folder:write("mine.lua", "return")
    child:expect("\"message\":", "err")
    local events = {}
    for line in child.err:gmatch "[^\n]+" do
      local event = cjson.decode(line)
      if event.event == "pipeline" then events[#events + 1] = event end
    end
    assert.same({
      { event = "pipeline", files = { "mine.lua" }, pipeline = "two" },
      { event = "pipeline", files = { "mine.lua" }, code = "EINVAL",
        message = "EINVAL: mine.lua:1: a strategy is a table, not a nil" },
    }, events)
  end)

  it("is of use with files of the user's alone", function()
    for _, more in ipairs { {}, { "--strategies", "direct,relay" }, { "--pipeline", "never-relay" } } do
      local it = program.run(command("listen", "--watch", table.unpack(more)))
      assert.same({ 2, "" }, { it.status, it.out })
      assert.equal("p2pd-lua listen: EINVAL: --watch is for files of yours, and neither --pipeline nor --strategies "
        .. "names one\n", it.err)
    end
    local it = program.run(command("connect", "--watch", "0-0-0-x"))
    assert.equal(2, it.status)
    has(it.err, "unknown option '--watch'")
  end)
end)
