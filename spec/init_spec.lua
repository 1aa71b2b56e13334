-- What `require "p2pd"` gives, in stock Lua as in the program.
local luv = require "luv"
local p2pd = require "p2pd"
local pair = require "spec.support.pair"
local program = require "spec.support.program"
local run = require "spec.support.run"

-- The library in stock Lua, in a process of its own.
local function stock(code)
  return program.run {
    "lua5.4", "-e", code, env = { LUA_CPATH = program.build .. "/?.so;;", LUA_INIT = false, LUA_INIT_5_4 = false },
  }
end

describe("p2pd", function()
  it("has the functions of tasks at hand, and loads its other parts when they are asked for", function()
    local functions = "spawn sleep race timeout channel group run now is_cancelled node"
    for name in functions:gmatch "%S+" do assert.equal("function", type(p2pd[name]), name) end
    for _, name in ipairs { "address", "pipeline", "settings" } do
      assert.equal(require("p2pd." .. name), p2pd[name])
    end
    assert.is_nil(p2pd.nodes)
    assert.is_nil(p2pd[1])
    local it = stock [[
      local before = {}
      for name in pairs(_G) do before[name] = true end
      local p2pd = require "p2pd"
      for name in pairs(_G) do assert(before[name], name) end
      for _, name in ipairs { "pipeline", "settings", "node" } do assert(not package.loaded["p2pd." .. name]) end
      local _ = p2pd.address
      assert(package.loaded["p2pd.address"] == p2pd.address)
    ]]
    assert.same({ status = 0, out = "", err = "" }, it)
  end)

  it("runs tasks in stock Lua, and lets it end", function()
    local it = stock [[
      local p2pd = require "p2pd"
      print(p2pd.run(function(...)
        local began = p2pd.now()
        local task = p2pd.spawn(function() p2pd.sleep(0.02) return "slept" end)
        local text = task:wait()
        assert(p2pd.now() - began >= 0.019)
        return text, ...
      end, 1, nil, 3))
      print(pcall(p2pd.sleep, 1))
      print(pcall(p2pd.run, function() error "thrown" end))
    ]]
    assert.equal(0, it.status, it.err)
    local first, second, third = it.out:match "^([^\n]*)\n([^\n]*)\n([^\n]*)"
    assert.equal("slept\t1\tnil\t3", first)
    assert.matches("^false\t.*not in a task", second)
    assert.matches("^false\t.*thrown", third)
  end)

  it("tells a cancellation from other errors", run(function()
    local caught
    local task = p2pd.spawn(function()
      local ok, err = pcall(p2pd.sleep, 100)
      caught = { ok, p2pd.is_cancelled(err) }
      error(err, 0)
    end)
    p2pd.sleep(0)
    task:cancel()
    assert.equal("ECANCELED", (select(3, task:wait())))
    assert.same({ false, true }, caught)
    for _, other in ipairs { "ECANCELED: the task was cancelled", 7, {}, false } do
      assert.is_false(p2pd.is_cancelled(other))
    end
    assert.is_false(p2pd.is_cancelled(nil))
  end))
end)

describe("a node", function()
  local two
  setup(function() two = pair.new() end)
  teardown(function() two:close() end)

  it("tells which brokers it uses, and has no nicknames yet", run(function()
    local node <close> = assert(two:node "a")
    local state = node:signal_state()
    assert.same({ { offset = 0, host = two.broker.host, port = two.broker.port, ok = true } }, state.brokers)
    assert.equal(0, state.counters.accepted)
    local name, message, code = node:nickname "alice"
    assert.is_nil(name)
    assert.equal("ENOTSUP", code)
    assert.matches("^ENOTSUP: ", message)
    assert.equal(node:id(), assert(p2pd.address.parse(node:address())).node_id)
  end))

  it("listens where it is told, and says when it cannot", run(function()
    local socket = luv.new_tcp()
    assert(socket:bind("127.0.0.1", 0))
    local port = socket:getsockname().port
    socket:listen(1, function() end)
    local node, message, code = two:node("b", { port = port })
    assert.is_nil(node)
    assert.equal("EADDRINUSE", code)
    assert.matches(tostring(port), message, 1, true)
    socket:close()
    p2pd.sleep(0.01)
    local second <close> = assert(two:node("b", { port = port }))
    assert.matches("127.0.0.1,127.0.0.1," .. port, second:address(), 1, true)
  end))

  it("can be opened again after each way in which that fails", run(function()
    for _, options in ipairs {
      { settings = "/none/settings.lua" }, { settings = { mqtt = { {} } } }, { key = "/proc/none/key.pem" },
      { bind = "192.0.2.77" },
    } do
      local node, message, code = two:node("c", options)
      assert.is_nil(node)
      assert.equal(code, message:match "^(E%u+): ")
    end
    local node <close> = assert(two:node "c")
    assert.matches("^node %w+ %(port %d+%)$", tostring(node))
  end))

  it("that is cancelled while it opens leaves nothing", run(function()
    local silent = luv.new_tcp()
    assert(silent:bind("127.0.0.1", 0))
    silent:listen(4, function() end)
    local settings = { mqtt = { { host = "127.0.0.1", port = silent:getsockname().port } }, stun = {}, ntp = {} }
    local opening = p2pd.spawn(function() return two:node("d", { settings = settings }) end)
    p2pd.sleep(0.1)
    opening:cancel()
    assert.equal("ECANCELED", (select(3, opening:wait(5))))
    silent:close()
    local node <close> = assert(two:node "d") -- the lock of its key is free
    assert.is_string(node:address())
  end))
end)
