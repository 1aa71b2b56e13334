-- coturn knows no half of a connection: a FIN from one end made it end both, and throw away what the other end had not
-- read yet. What was said before the end of a relayed pipe arrives, however slowly the peer reads.
local core = require "p2pd.core"
local coturn = require "spec.support.coturn"
local ends_module = require "spec.support.ends"
local run = require "spec.support.run"
local task = require "p2pd.task"
local turn = require "p2pd.turn"

local SIZE = 3 << 20
local PROMPT = 3 -- seconds, where a pipe that nobody answers lingers 10

describe("a relayed pipe", function()
  local server, people

  setup(function()
    server, people = coturn.start { turn = true }, ends_module.new()
  end)
  teardown(function()
    server:stop()
    people:close()
  end)

  -- The side with the relay, and the one that came to it.
  local function open()
    local relay = assert(turn.allocate {
      server = { host = server.host, port = server.port, user = server.user, password = server.password },
      permit = { "127.0.0.1" },
    })
    local coming = task.spawn(function()
      return assert(core.pipe.dial {
        identity = people.alice, ip = relay.ip, port = relay.port, expect = people.bob:id(), role = "server",
        timeout = 5, relayed = true,
      })
    end)
    local near = assert(core.pipe.adopt {
      socket = assert(relay:wait(5)), identity = people.bob, expect = people.alice:id(), timeout = 5, relayed = true,
    })
    core.pipe.keep(near, relay)
    assert(near:commit(ends_module.ATTEMPT))
    return near, coming:wait(), relay
  end

  for _, how in ipairs { "shutdown", "close" } do
    for _, from in ipairs { "the side with the relay", "the side that came to it" } do
      it(("delivers all before its %s by %s, and ends then"):format(how, from), run(function()
        local near, far, relay = open()
        local source, sink = far, near
        if from == "the side with the relay" then source, sink = near, far end
        local sending = task.spawn(function()
          assert(source:send(("x"):rep(SIZE)))
          if how == "close" then return source:close() end
          assert(source:shutdown())
          local answer, _, code = source:recv(10)
          source:close()
          return answer, code
        end)
        task.sleep(0.3)
        local count = 0
        local text, code
        repeat
          text, _, code = sink:recv(5)
          count = count + #(text or "")
          task.sleep(0.002)
        until not text
        assert.same({ SIZE, "EOF" }, { count, code })
        if how == "shutdown" then assert(sink:send "thanks") end
        sink:close()
        local answer = sending:wait()
        if how == "shutdown" then assert.equal("thanks", answer) end
        local began = task.now()
        while not relay:failed() do
          assert.is_true(task.now() - began < PROMPT, "the relay is not given back")
          task.sleep(0.02)
        end
      end))
    end
  end

  it("gives its relay back when the peer is gone without a word", run(function()
    local near, far, relay = open()
    assert(far:send "hello")
    assert.equal("hello", near:recv(5))
    far:abort()
    local _, _, code = near:recv(5)
    assert.truthy(({ EOF = 1, ECONNRESET = 1 })[code], code)
    near:close()
    local began = task.now()
    while not relay:failed() do
      assert.is_true(task.now() - began < PROMPT, "the relay is not given back")
      task.sleep(0.02)
    end
  end))
end)
