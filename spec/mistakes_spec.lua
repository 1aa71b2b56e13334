-- Mistakes in strategies of a user's own: each gets one sentence with its file and line, and the pipeline goes on.
local pair = require "spec.support.pair"
local pipeline = require "p2pd.pipeline"
local processes = require "spec.support.processes"
local p2pd = require "p2pd"
local run = require "spec.support.run"
local task = require "p2pd.task"

local world

local function file(text, name)
  local path = ("%s/%s.lua"):format(world.folder, name or "mine")
  processes.write(path, text)
  return path
end

-- What is left after the place of the file.
local function loads(text)
  local path = file(text)
  local strategy, message, code = pipeline.load(path)
  assert.is_nil(strategy)
  assert.equal("EINVAL", code)
  local rest = message:match("^EINVAL: " .. path:gsub("%p", "%%%0") .. "(:%d+: .*)$")
  assert.truthy(rest, message)
  assert.is_nil(rest:find "\n")
  return rest
end

setup(function() world = pair.new() end)
teardown(function() world:close() end)

describe("a file", function()
  it("that is no strategy says so, with the line", function()
    assert.equal(":3: strategy x has an unknown field, 'conect'; did you mean connect?",
      loads 'return {\n  name = "x",\n  conect = function() end,\n}')
    assert.equal(":2: strategy x: its timeout is a string, not a number",
      loads 'return { name = "x",\n  timeout = "5", connect = print }')
    assert.equal(":1: strategy x: its respond is a boolean, not a function",
      loads 'return { name = "x", respond = true }')
    assert.equal(":3: strategy x has neither connect nor respond", loads '\n\nreturn { name = "x" }')
    assert.truthy(loads "return {\n  connect = print }":find("needs a name", 1, true))
    assert.equal(":4: a strategy is a table, not a nil", loads "-- \n\n\nreturn nil")
    assert.equal(":2: strategy x: its budget has an unknown field, 'sins'; did you mean syns?",
      loads 'return { name = "x", connect = print,\n  budget = { sins = 3 } }')
  end)

  it("that does not run says so, with the line", function()
    assert.truthy(loads "local x = \n=":find "^:2: ")
    assert.truthy(loads "\nlocal x = nil\nreturn x.y":find "^:3: attempt to index a nil value")
    assert.equal(":2: a list of strategies is empty",
      loads "local p2pd = require 'p2pd'\nreturn p2pd.pipeline.seq {}")
    assert.truthy(loads "\nwhile true do end":find "^:2: it ran for 2 s without waiting")
    assert.truthy(loads "local p2pd = require 'p2pd'\n\nreturn p2pd.pipeline.race { 'direkt' }"
      :find "^:3: EINVAL: there is no strategy 'direkt'; did you mean direct?")
  end)
end)

-- What a strategy that is made of a file's text comes to, beside one that connects.
local function attempt(text, timeout)
  local path = file(text)
  local far <close> = assert(world:node "far")
  local near <close> = assert(world:node("near", { listen = false, pipeline = pipeline.seq { path, "direct" } }))
  local pipe <close>, message = near:connect(far:address(), { timeout = timeout })
  if not timeout then assert(pipe, message) end
  local rung = near.last_report:table().rungs[1]
  return rung, message, (path:gsub("%p", "%%%0"))
end

describe("a strategy", function()
  it("that throws, or returns what is no pipe, fails with its place", run(function()
    local rung, _, path = attempt 'return { name = "x",\n connect = function()\n  local x\n  x()\n end }'
    assert.truthy(rung.message:find("^ESCRIPT: " .. path .. ":4: attempt to call a nil value"), rung.message)
    rung, _, path = attempt 'return { name = "x",\n connect = function()\n  error({}, 0)\n end }'
    assert.truthy(rung.message:find("^ESCRIPT: " .. path .. ":3: a table was thrown"), rung.message)
    rung, _, path = attempt 'return { name = "x",\n connect = function() return 42 end }'
    assert.truthy(rung.message:find("^ESCRIPT: " .. path .. ":2: x returned a number, not a pipe"), rung.message)
    rung, _, path = attempt 'return function() return {} end'
    local expected = ("^ESCRIPT: %s:1: mine returned a table that is no open pipe"):format(path)
    assert.truthy(rung.message:find(expected), rung.message)
  end))

  it("that never returns is ended by its timeout, or the attempt's; where it was is told", run(function()
    local rung, _, path = attempt [[return { name = "x", timeout = 0.1,
      connect = function(ctx)
        ctx:sleep(99)
      end }]]
    assert.truthy(rung.message:find("^ETIMEDOUT: it took longer than 0.1 s, at " .. path .. ":3$"), rung.message)
    local message
    rung, message, path = attempt('return function(ctx)\n while true do\n  ctx:sleep(0.01)\n end end', 0.2)
    assert.truthy(rung.message:find("^ETIMEDOUT: it took longer than 0.2 s, at " .. path .. ":3$"), rung.message)
    assert.truthy(message:find(path .. ":3", 1), message)
  end))

  it("that computes and computes is stopped, since nothing else could run", run(function()
    local rung, _, path = attempt 'return function(ctx)\n while true do\n end\nend'
    assert.truthy(rung.message:find("^ESCRIPT: " .. path .. ":[23]: it ran for 2 s without waiting"), rung.message)
  end))

  it("may compute for long when it waits now and then", run(function()
    local rung = attempt [[return { name = "x", connect = function(ctx)
      local began = os.clock()
      while os.clock() - began < 2.3 do
        for _ = 1, 1000000 do end
        ctx:sleep(0)
      end
      return nil, "EDONE: enough"
    end }]]
    assert.equal("EDONE: enough", rung.message)
  end))

  it("that leaves a task behind is told of", run(function()
    local rung, _, path = attempt [[local p2pd = require "p2pd"
      return { name = "x", connect = function(ctx)
        ctx:spawn(p2pd.sleep, 99)
        p2pd.spawn(print)
        left = p2pd.spawn(function()
          p2pd.sleep(99)
        end)
        ctx:sleep(0)
        return nil, "EDONE: enough"
      end }]]
    assert.truthy(rung.notes.left:find("^the task that begins at " .. path .. ":5 lives on"), rung.notes.left)
    assert.equal("EDONE: enough", rung.message)
    _G.left:cancel()
    _G.left = nil
  end))
end)

describe("a peer", function()
  local asks = { name = "asks", timeout = 5, connect = function(ctx)
    local reply, message, code = ctx:request {}
    if not reply then return nil, message, code end
    return nil, "EDONE: " .. reply.word
  end }

  local function ask(options, far_options)
    local far <close>, notices = assert(world:node("far", far_options))
    local near <close> = assert(world:node("near", { listen = false, pipeline = pipeline.seq { asks, "direct" } }))
    local began = task.now()
    local pipe <close> = near:connect(far:address(), options)
    return near.last_report:table().rungs[1], task.now() - began, notices, pipe ~= nil
  end

  it("that lacks the strategy says so at once, and the rung is passed over", run(function()
    local rung, took, _, connected = ask()
    assert.equal("the peer has no strategy 'asks'", rung.skipped)
    assert.is_true(took < 2 and connected)
  end))

  it("whose strategy does not respond says that", run(function()
    local rung = ask(nil, { pipeline = asks })
    assert.equal("the peer's strategy 'asks' has no respond", rung.skipped)
  end))

  it("says nothing to whom allow() does not let in", run(function()
    local rung = ask({ timeout = 1 }, { allow = function() return false end })
    assert.equal("ETIMEDOUT", rung.code)
  end))

  it("says so at most so often", run(function()
    local far <close> = assert(world:node "far")
    local codes, many = {}, {}
    for i = 1, 122 do
      many[i] = { name = "kind" .. i, connect = function(ctx)
        local reply, _, code = ctx:request({}, 3)
        codes[i] = code or reply.code
      end }
    end
    local near <close> = assert(world:node("near", { listen = false, pipeline = pipeline.seq(many) }))
    near:connect(far:address())
    assert.same({ "ENOTSUP", "ENOTSUP", "EAGAIN" }, { codes[1], codes[120], codes[121] })
  end))

  it("is told that a mistake was made, and the user of the node which", run(function()
    local wrong = { name = "asks", respond = function() error "no answer" end }
    local far <close>, notices = assert(world:node("far", { pipeline = wrong }))
    local near <close> = assert(world:node("near", { listen = false, pipeline = asks }))
    assert.is_nil((near:connect(far:address())))
    assert.equal(1, #notices)
    assert.truthy(notices[1]:find "^strategy asks could not answer: spec/mistakes_spec.lua:%d+: no answer$", notices[1])
  end))
end)

describe("node:use", function()
  local function answers(word)
    return {
      name = "word",
      connect = function(ctx)
        local reply, message, code = ctx:request {}
        return nil, reply and ("EWORD: %s"):format(reply.word) or message, code
      end,
      respond = function(ctx, message) ctx:reply(message, { word = word }) end,
    }
  end

  it("swaps the pipeline under a live node: what it answers, and how it connects", run(function()
    local one, two = answers "one", answers "two"
    local far <close> = assert(world:node "far")
    local near <close> = assert(world:node("near", { listen = false }))
    near:use(one)
    local function said() return near.last_report:table().rungs[1] end
    near:connect(far:address())
    assert.equal("the peer has no strategy 'word'", said().skipped)
    local default = far:use(one)
    assert.equal(pipeline.default(), default)
    near:connect(far:address())
    assert.equal("EWORD: one", said().message)
    assert.equal(one, far:use(pipeline.seq { default, two }))
    near:connect(far:address())
    assert.equal("EWORD: two", said().message)
    assert.truthy(near:use "direct")
    assert(near:connect(far:address())):close()
  end))

  it("leaves an attempt that is under way as it began", run(function()
    local far <close> = assert(world:node "far")
    local near <close> = assert(world:node("near", { listen = false }))
    near:use(function(ctx)
      ctx:sleep(0.1)
      return ctx:try(assert(pipeline.load "direct"))
    end)
    local going = p2pd.spawn(near.connect, near, far:address())
    p2pd.sleep(0.02)
    near:use(function() return nil, "ENEW: this is the new one" end)
    local pipe <close> = assert(going:wait())
    assert.equal("direct", pipe.strategy)
    assert.truthy(select(2, near:connect(far:address())):find("this is the new one", 1, true))
  end))

  it("takes names and files, says what is wrong with them, and keeps what it has then", run(function()
    local node <close> = assert(world:node("near", { listen = false }))
    local before = node.pipeline
    local former, message, code = node:use "direkt"
    assert.is_nil(former)
    assert.equal("EINVAL", code)
    assert.truthy(message:find("did you mean direct?", 1, true))
    local ok, err = pcall(function() node:use { name = "x" } end)
    assert.is_false(ok)
    assert.truthy(err:find "mistakes_spec.lua:%d+: strategy x has neither", err)
    assert.equal(before, node.pipeline)
    assert.equal(before, node:use(file('return function() end', "fun")))
    assert.equal("fun", node.pipeline.name)
  end))
end)
