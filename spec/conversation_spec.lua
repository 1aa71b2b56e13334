local pair = require "spec.support.pair"
local run = require "spec.support.run"
local task = require "p2pd.task"

describe("a conversation", function()
  local world

  setup(function() world = pair.new() end)
  teardown(function() world:close() end)

  -- Runs both ends of a strategy; returns what connect failed with.
  local function talk(connect, respond)
    local strategy = { name = "talk", connect = connect, respond = respond, timeout = 5 }
    local near <close> = assert(world:node("near", { listen = false, pipeline = strategy }))
    local far <close> = assert(world:node("far", { pipeline = strategy }))
    local _, message, code = near:connect(far:address(), { timeout = 5 })
    return message, code
  end

  it("goes on both ways after its first request, each message once and in order", run(function()
    local heard = { near = {}, far = {} }
    local message = talk(function(ctx)
      assert(ctx:request { say = "hello" })
      for i = 1, 3 do assert(ctx:send { number = i }) end
      for _ = 1, 2 do table.insert(heard.near, assert(ctx:receive(2)).word) end
      local reply = assert(ctx:request { question = true }, 2)
      return nil, "EDONE: " .. reply.answer
    end, function(ctx, message)
      assert.equal("hello", message.say)
      ctx:reply(message, { fine = true })
      for _ = 1, 3 do table.insert(heard.far, assert(ctx:receive(2)).number) end
      ctx:send { word = "one" }
      ctx:send { word = "two" }
      local question = assert(ctx:receive(2))
      assert.is_true(question.question)
      ctx:reply(question, { answer = "42" })
      ctx:sleep(0.1)
      return nil, "EDONE: enough"
    end)
    assert.truthy(message:find("42", 1, true), message)
    assert.same({ near = { "one", "two" }, far = { 1, 2, 3 } }, heard)
  end))

  it("tells how old each message is, and how long the way is, whatever the peer says of that", run(function()
    local ages = {}
    talk(function(ctx)
      assert.has_error(function() ctx:send { age = 3 } end)
      assert.has_error(function() ctx:request { talk = "other" } end)
      local reply = assert(ctx:request {})
      ages[1], ages[2] = reply.age, ctx:signal_time()
      return nil, "EDONE: enough"
    end, function(ctx, message)
      ages[3], ages[4] = message.age, ctx:signal_time()
      ctx:reply(message, {})
      return nil, "EDONE: enough"
    end)
    for i = 1, 4 do assert.is_true(ages[i] >= 0 and ages[i] < 0.5, tostring(ages[i])) end
  end))

  it("is over with its strategy: what comes later begins nothing and is told to nobody", run(function()
    local calls, late = 0, nil
    talk(function(ctx)
      assert(ctx:request {})
      ctx:sleep(0.2)
      ctx:send { late = true }
      ctx:sleep(0.2)
      return nil, "EDONE: enough"
    end, function(ctx, message)
      calls = calls + 1
      late = late or message.late
      ctx:reply(message, {})
      return nil, "EDONE: enough"
    end)
    assert.same({ 1 }, { calls, late })
  end))

  it("does not mix with others of the same peers", run(function()
    local seen = {}
    local strategy = {
      name = "talk", timeout = 5,
      connect = function(ctx)
        local own = tostring(ctx):sub(1, 0) .. tostring(math.random(1 << 30))
        local reply = assert(ctx:request { own = own })
        assert.equal(own, reply.own)
        ctx:send { own = own }
        local back = assert(ctx:receive(2))
        assert.equal(own, back.own)
        seen[#seen + 1] = own
        return nil, "EDONE: enough"
      end,
      respond = function(ctx, message)
        ctx:reply(message, { own = message.own })
        local more = assert(ctx:receive(2))
        assert.equal(message.own, more.own)
        ctx:send { own = more.own }
        ctx:sleep(0.1)
        return nil, "EDONE: enough"
      end,
    }
    local near <close> = assert(world:node("near", { listen = false, pipeline = strategy }))
    local far <close> = assert(world:node("far", { pipeline = strategy }))
    local tasks <close> = task.group()
    for _ = 1, 8 do tasks:spawn(function() near:connect(far:address(), { timeout = 5 }) end) end
    for _, one in ipairs(tasks) do one:wait() end
    assert.equal(8, #seen)
  end))
end)
