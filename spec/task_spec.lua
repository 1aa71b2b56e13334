local core = require "p2pd.core"
local luv = require "luv"
local p2pd = require "p2pd"
local run = require "spec.support.run"
local task = require "p2pd.task"

local sleep, spawn = task.sleep, task.spawn

local function on_close(f)
  return setmetatable({}, { __close = f })
end

local function error_of(f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  return err
end

-- Runs the function with what the runtime prints about failures sent to a file; returns that text.
local function stderr_of(code)
  local script, out = os.tmpname(), os.tmpname()
  local file = assert(io.open(script, "w"))
  file:write(code)
  file:close()
  local paths = ("LUA_PATH='%s' LUA_CPATH='%s'"):format(package.path, package.cpath)
  local ok, _, status = os.execute(("%s lua5.4 %s > %s 2>&1 < /dev/null"):format(paths, script, out))
  file = assert(io.open(out))
  local text = file:read("a")
  file:close()
  os.remove(script)
  os.remove(out)
  return text, ok and 0 or status
end

describe("spawn", function()
  it("starts a task when the caller parks, and wait returns what it returns", run.virtual(function()
    local started = false
    local child = spawn(function(...)
      started = true
      sleep(1)
      return ..., nil, 3
    end, "a")
    assert.is_false(started)
    assert.equal("ready", child:status())
    assert.same({ "a", nil, 3, n = 3 }, table.pack(child:wait()))
    assert.equal("done", child:status())
    assert.same({ "a", nil, 3, n = 3 }, table.pack(child:wait()))
  end))

  it("checks its arguments at the caller's line", run.virtual(function()
    for _, f in ipairs { function() spawn(3) end, function() sleep("x") end, function() sleep(-1) end,
      function() sleep(0 / 0) end, function() task.timeout(-1, print) end, function() task.race {} end,
      function() task.race { 3 } end, function() task.channel(0) end, function() task.channel():send(nil) end } do
      assert.truthy(error_of(f):find("task_spec.lua:", 1, true))
    end
  end))

  it("names tasks and says what they do", run.virtual(function()
    local child = spawn(sleep, 1)
    sleep(0.5)
    assert.truthy(tostring(child):find("^task %d+ %(parked%)$"))
    assert.truthy(child:traceback():find("sleep", 1, true))
    assert.equal(child, task.list()[1])
    assert.is_nil((child:wait(0.1)))
    assert.equal("ETIMEDOUT", select(3, child:wait(0.1)))
    child:wait()
  end))

  it("runs thousands", run(function()
    local sum, tasks = 0, {}
    for i = 1, 10000 do
      tasks[i] = spawn(function()
        sleep(i % 7 / 1000)
        sum = sum + i
        return i
      end)
    end
    for i, each in ipairs(tasks) do assert.equal(i, each:wait()) end
    assert.equal(50005000, sum)
  end))

  it("runs thousands in virtual time, in the order of their times", run.virtual(function()
    local order, started = {}, task.now()
    for i = 1, 5000 do
      spawn(function()
        sleep((i * 7919 % 5000) + 1)
        order[#order + 1] = task.now() - started
      end)
    end
    sleep(6000)
    assert.equal(5000, #order)
    for i = 1, 5000 do assert.near(i, order[i], 1e-6) end
  end))
end)

describe("an error", function()
  it("is raised where the task is waited for, with the child's traceback", run.virtual(function()
    local function deep() error("deep inside") end
    local child = spawn(function() sleep(1) deep() end)
    local parent = spawn(function() child:wait() end):observe()
    assert.truthy(error_of(parent.wait, parent):find("task_spec.lua:%d+: deep inside"))
    assert.equal("failed", parent:status())
    assert.truthy(child:traceback():find("in local 'deep'", 1, true) or child:traceback():find("'deep'", 1, true))
    assert.truthy(parent:traceback():find("'deep'", 1, true))
  end))

  it("may be any value", run.virtual(function()
    local thrown = { code = 3 }
    for _, value in ipairs { thrown, false, 3 } do
      local child = spawn(function() error(value) end):observe()
      assert.equal(value, error_of(child.wait, child))
    end
    local child = spawn(error):observe()
    assert.is_nil(error_of(child.wait, child))
  end))

  it("that nobody waits for is printed with its traceback", function()
    local text = stderr_of [[
      local p2pd = require "p2pd"
      p2pd.run(function()
        p2pd.spawn(function() local function inner() error("unheard") end inner() end)
        p2pd.sleep(0.01)
      end)
      print("the rest goes on")
    ]]
    assert.truthy(text:find("a task failed: .-unheard\nstack traceback:.*'inner'"), text)
    assert.truthy(text:find("the rest goes on", 1, true))
  end)
end)

describe("waiting", function()
  it("needs a task", function()
    assert.equal("not in a task: what waits belongs into p2pd.spawn or p2pd.run", error_of(sleep, 1))
  end)

  it("works through pcall, iterators, metamethods and __close", run.virtual(function()
    local lazy = setmetatable({}, {
      __index = function(_, key) sleep(1) return key .. "!" end,
      __add = function() sleep(1) return 7 end,
      __call = function(_, x) sleep(1) return x end,
      __eq = function() sleep(1) return true end,
      __len = function() sleep(1) return 3 end,
    })
    local started = task.now()
    assert.equal("x!", lazy.x)
    assert.equal(7, lazy + 1)
    assert.equal(5, lazy(5))
    assert.equal(3, #lazy)
    local function iterator(_, i)
      sleep(1)
      if i < 3 then return i + 1 end
    end
    local count = 0
    for _ in iterator, nil, 0 do count = count + 1 end
    assert.equal(3, count)
    assert.same({ true, 4 }, { pcall(function() sleep(1) return 4 end) })
    do local _ <close> = on_close(function() sleep(1) end) end
    assert.near(10, task.now() - started, 1e-6)
  end))

  it("does not work through C functions, and says so", run.virtual(function()
    local value = setmetatable({}, { __tostring = function() sleep(1) return "x" end })
    for _, f in ipairs {
      function() table.sort({ 3, 2, 1 }, function(a, b) sleep(1) return a < b end) end,
      function() string.gsub("x", "x", function() sleep(1) end) end,
      function() tostring(value) end,
      function() require "spec.support.no_such_module_waits" end,
    } do
      package.preload["spec.support.no_such_module_waits"] = function() sleep(1) end
      assert.truthy(error_of(f):find("cannot wait here: a C function (require, table.sort, string.gsub, __tostring)",
        1, true))
    end
    package.preload["spec.support.no_such_module_waits"] = nil
  end))

  it("does not work in a coroutine of the script's own, and says so", run.virtual(function()
    local thread = coroutine.create(function() sleep(1) end)
    local _, err = coroutine.resume(thread)
    assert.truthy(err:find("not in a task", 1, true))
    local yields = spawn(function() coroutine.yield(1) end):observe()
    assert.truthy(error_of(yields.wait, yields):find("coroutine.yield is for coroutines of your own", 1, true))
    local own = coroutine.wrap(function() coroutine.yield(1) coroutine.yield(2) end)
    assert.same({ 1, 2 }, { own(), own() })
  end))

  it("does not work in a callback of luv, and says so", run(function()
    local timer = luv.new_timer()
    local done, err = task.condition(), nil
    timer:start(1, 0, function()
      err = error_of(sleep, 1)
      timer:close()
      done:signal()
    end)
    done:wait(5)
    assert.truthy(err:find("not in a task", 1, true))
  end))

  it("for itself is refused", run.virtual(function()
    assert.truthy(error_of(function() task.current():wait() end):find("cannot wait for itself", 1, true))
  end))

  it("with nothing left to wake it is reported", function()
    local ok, message, code = task.run(function() task.channel():recv() end)
    assert.same({ nil, "EDEADLOCK" }, { ok, code })
    assert.truthy(message:find("^EDEADLOCK: .*\n.*recv"))
  end)
end)

describe("cancel", function()
  it("raises where the task is parked, and runs <close>, which may wait", run.virtual(function()
    local log = {}
    local child = spawn(function()
      local _ <close> = on_close(function()
        log[#log + 1] = "closing"
        sleep(1)
        log[#log + 1] = "closed"
      end)
      sleep(100)
      log[#log + 1] = "never"
    end)
    sleep(1)
    local started = task.now()
    child:cancel()
    child:cancel()
    local result = table.pack(child:wait())
    assert.same({ "closing", "closed" }, log)
    assert.equal("cancelled", child:status())
    assert.near(1, task.now() - started, 1e-6)
    assert.same({ nil, "ECANCELED: the task was cancelled", "ECANCELED", n = 3 }, result)
  end))

  it("raises again at each later wait when it is swallowed", run.virtual(function()
    local caught = {}
    local child = spawn(function()
      for i = 1, 3 do
        local ok, err = pcall(sleep, 100)
        caught[i] = not ok and task.is_cancelled(err) and tostring(err)
      end
      return "went on"
    end)
    sleep(1)
    child:cancel()
    assert.equal("went on", child:wait())
    for i = 1, 3 do assert.equal("ECANCELED: the task was cancelled", caught[i]) end
  end))

  it("that is caught and raised again lets <close> wait all the same", run.virtual(function()
    local closed = 0
    local child = spawn(function()
      local _ <close> = on_close(function() sleep(1) closed = closed + 1 end)
      local _ <close> = on_close(function() pcall(error, "x") sleep(1) closed = closed + 1 end)
      local _, err = pcall(sleep, 100)
      error(err, 0)
    end)
    sleep(1)
    child:cancel()
    child:wait()
    assert.same({ 2, "cancelled" }, { closed, child:status() })
  end))

  it("before the start, or after the end, is no trouble", run.virtual(function()
    local ran = false
    local child = spawn(function() ran = true sleep(1) end)
    child:cancel()
    child:wait()
    assert.equal("cancelled", child:status())
    assert.is_true(ran)
    local done = spawn(function() return 1 end)
    done:wait()
    done:cancel()
    assert.same({ "done", 1 }, { done:status(), done:wait() })
  end))

  it("closes by force what does not end within the grace", run.virtual(function()
    local closed
    local child = spawn(function()
      local _ <close> = on_close(function()
        local ok, err = pcall(sleep, 1)
        closed = ok or err
      end)
      local _ <close> = on_close(function() sleep(1000) end)
      sleep(1000)
    end)
    sleep(1)
    local started = task.now()
    child:cancel()
    child:wait()
    assert.equal("cancelled", child:status())
    assert.near(5, task.now() - started, 1e-6)
    assert.is_string(closed)
  end))

  it("ends what the task waits for: nothing calls back later", run.virtual(function()
    local channel, condition = task.channel(), task.condition()
    for _, f in ipairs { function() channel:recv() end, function() condition:wait() end, function() sleep(10) end } do
      local child = spawn(f)
      sleep(1)
      child:cancel()
      child:wait()
    end
    assert.equal(0, condition:signal())
    assert.is_true(channel:send(1))
    assert.equal(1, channel:recv())
  end))
end)

describe("group", function()
  it("ends its tasks with its scope, and waits for them", run.virtual(function()
    local closed = 0
    do
      local tasks <close> = task.group()
      for _ = 1, 3 do
        tasks:spawn(function()
          local _ <close> = on_close(function() sleep(1) closed = closed + 1 end)
          sleep(100)
        end)
      end
      sleep(1)
    end
    assert.equal(3, closed)
    assert.equal(1, #task.list())
  end))

  it("waits for them although its own task is cancelled meanwhile", run.virtual(function()
    local closed = 0
    local owner = spawn(function()
      do
        local tasks <close> = task.group()
        for _ = 1, 3 do
          tasks:spawn(function()
            local _ <close> = on_close(function() sleep(2) closed = closed + 1 end)
            sleep(100)
          end)
        end
        sleep(1)
      end
      assert.equal(3, closed)
      sleep(100)
    end)
    sleep(2)
    owner:cancel()
    owner:wait()
    assert.same({ 3, "cancelled" }, { closed, owner:status() })
  end))
end)

describe("race", function()
  it("returns the first that wins and ends the others", run.virtual(function()
    local ended = 0
    local function runner(seconds, ...)
      local results = table.pack(...)
      return function()
        local _ <close> = on_close(function() ended = ended + 1 end)
        sleep(seconds)
        return table.unpack(results, 1, results.n)
      end
    end
    local started = task.now()
    assert.same({ "b", 2, n = 2 }, table.pack(task.race {
      runner(3, "a"), runner(2, "b", 2), runner(1, nil, "EONE: lost", "EONE"),
    }))
    assert.near(2, task.now() - started, 1e-6)
    assert.equal(3, ended)
    assert.same({ nil, "b", n = 2 }, table.pack(task.race { runner(1, nil, "a"), runner(2, nil, "b") }))
  end))

  it("ends with an error in any", run.virtual(function()
    local err = error_of(task.race, { function() sleep(1) error("lost") end, function() sleep(2) return 1 end })
    assert.truthy(err:find("lost", 1, true))
    assert.equal(1, #task.list())
  end))

  it("does not take a cancelled one for a winner", run.virtual(function()
    local inner
    local result = table.pack(task.race { function()
      inner = task.current()
      spawn(function() inner:cancel() end)
      sleep(1)
    end })
    assert.same({ nil, "ECANCELED: the task was cancelled", "ECANCELED", n = 3 }, result)
  end))

  it("is cancelled with its task", run.virtual(function()
    local child = spawn(task.race, { function() sleep(100) end, function() sleep(100) end })
    sleep(1)
    child:cancel()
    child:wait()
    assert.equal(1, #task.list())
  end))
end)

describe("timeout", function()
  it("returns what the function returns, or ETIMEDOUT", run.virtual(function()
    local started = task.now()
    assert.same({ 1, nil, n = 2 }, table.pack(task.timeout(2, function(x) sleep(1) return x, nil end, 1)))
    assert.same({ nil, "ETIMEDOUT: it took longer than 2 s", "ETIMEDOUT", n = 3 },
      table.pack(task.timeout(2, sleep, 5)))
    assert.near(3, task.now() - started, 1e-6)
    assert.truthy(error_of(task.timeout, 2, function() error("inside") end):find("inside", 1, true))
    assert.equal(1, #task.list())
  end))
end)

describe("channel", function()
  it("hands values over in their order, and makes senders wait", run.virtual(function()
    local channel, sent = task.channel(2), 0
    local sender = spawn(function()
      for i = 1, 5 do
        channel:send(i)
        sent = i
      end
      channel:close()
    end)
    sleep(1)
    assert.equal(2, sent)
    assert.equal("channel (2 of 2)", tostring(channel))
    for i = 1, 5 do assert.equal(i, channel:recv()) end
    assert.equal("EOF", select(3, channel:recv()))
    assert.equal("ECLOSED", select(3, channel:send(1)))
    sender:wait()
    channel:close()
  end))

  it("serves each of many once", run.virtual(function()
    local channel, got = task.channel(3), {}
    local tasks <close> = task.group()
    for _ = 1, 10 do
      tasks:spawn(function()
        for value in function() return channel:recv() end do
          assert.is_nil(got[value])
          got[value] = true
          sleep(0.01)
        end
      end)
    end
    for i = 1, 100 do channel:send(i) end
    channel:close()
    for _, each in ipairs(tasks) do each:wait() end
    for i = 1, 100 do assert.is_true(got[i]) end
  end))

  it("takes a timeout", run.virtual(function()
    local channel, started = task.channel(), task.now()
    assert.equal("ETIMEDOUT", select(3, channel:recv(1)))
    channel:send(1)
    assert.equal("ETIMEDOUT", select(3, channel:send(2, 1)))
    assert.near(2, task.now() - started, 1e-6)
  end))

  it("wakes another receiver when the one that was woken is cancelled", run.virtual(function()
    local channel, got = task.channel(), {}
    local function receive(name) return spawn(function() got[name] = channel:recv() end) end
    local first, second = receive("first"), receive("second")
    sleep(1)
    channel:send("value")
    first:cancel()
    first:wait()
    second:wait(1)
    second:cancel()
    second:wait()
    assert.equal("value", got.first or got.second)
  end))
end)

describe("virtual time", function()
  it("passes at once", function()
    local before = luv.hrtime()
    run.virtual(function()
      local started = task.now()
      sleep(1e6)
      assert.near(1e6, task.now() - started, 1e-3)
    end)()
    assert.is_true((luv.hrtime() - before) / 1e9 < 5)
  end)

  it("does not begin while tasks wait for a time", run(function()
    local child = spawn(sleep, 0.01)
    sleep(0.001)
    assert.truthy(error_of(core.task.virtual, 0):find("cannot be changed", 1, true))
    child:wait()
  end))
end)

describe("p2pd", function()
  it("has the tools at hand", function()
    for _, name in ipairs { "spawn", "sleep", "race", "timeout", "channel", "group", "run", "now", "is_cancelled" } do
      assert.is_function(p2pd[name])
    end
    assert.is_nil(p2pd.no_such_part)
  end)
end)
