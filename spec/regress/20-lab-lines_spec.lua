-- Lines, however they are cut, and questions whose answers come late.
-- check: unsanitized (a slowed-down router does not keep up with the flood of packets)
local luv = require "luv"
local labs = require "spec.support.lab"
local lines = require "p2pd.lab.lines"
local p2pd = require "p2pd"
local processes = require "spec.support.processes"
local run = require "spec.support.run"
local split = require "p2pd.split"

local EVENTS = 8192 -- that a router remembers

local function seconds_of(f, ...)
  local began = luv.hrtime()
  f(...)
  return (luv.hrtime() - began) / 1e9
end

-- Two ends of a connection.
local function pair()
  local fds = assert(luv.socketpair("stream", 0, { nonblock = true }, { nonblock = true }))
  local ends = {}
  for i = 1, 2 do
    ends[i] = luv.new_pipe(false)
    assert(ends[i]:open(fds[i]))
  end
  return ends[1], ends[2]
end

describe("lines", function()
  local function split_all(...)
    local queue, all = split.new(), {}
    for _, chunk in ipairs { ... } do queue:feed(chunk) end
    queue:finish()
    for line in queue.pop, queue do all[#all + 1] = line end
    return all
  end

  it("are the same however they are cut", function()
    local text = "one\n\ntwo\nthree"
    for first = 0, #text do
      for second = first, #text do
        local all = split_all(text:sub(1, first), text:sub(first + 1, second), text:sub(second + 1))
        assert.same({ "one", "", "two", "three" }, all)
      end
    end
    assert.same({}, split_all(""))
    assert.same({ "" }, split_all "\n")
  end)

  it("of several outputs come out as they came", function()
    local out = split.new()
    local err = split.new(out)
    out:feed "a\nb"
    err:feed "c\n"
    out:feed "\n"
    assert.equal(3, #out)
    assert.same({ "a", "c", "b" }, { out:pop(), out:pop(), out:pop() })
  end)

  it("take time by their length alone", function()
    local chunk, queue = ("x"):rep(4096), split.new()
    local long = seconds_of(function()
      for _ = 1, EVENTS do queue:feed(chunk) end
      queue:feed "\n"
    end)
    assert.equal(#chunk * EVENTS, #queue:pop())
    local many = seconds_of(function()
      queue:feed(("line\n"):rep(32 * EVENTS))
      for _ = 1, 32 * EVENTS do assert(queue:pop()) end
    end)
    assert(long < 2 and many < 2, ("%.2f and %.2f s"):format(long, many))
  end)

  it("give each question its own answer, also after one that came too late", run(function()
    local near, far = pair()
    local asking <close> = lines.wrap(near)
    local answering <close> = lines.wrap(far)
    assert.equal("ETIMEDOUT", select(3, asking:ask({ ["do"] = "first" }, 0.01)))
    local answers = p2pd.spawn(function()
      for _ = 1, 2 do
        local question = assert(answering:recv(5))
        answering:send { id = question.id, answer = question["do"] }
      end
    end)
    assert.equal("second", assert(asking:ask({ ["do"] = "second" }, 5)).answer)
    answers:wait()
  end))

  it("have gone out when a flush ends", run(function()
    local near, far = pair()
    local sending <close> = lines.wrap(near)
    sending:write(("x"):rep(4 * 1024 * 1024))
    sending:flush(0.01)
    assert.equal(1, sending.unsent) -- nobody reads yet
    local receiving <close> = lines.wrap(far)
    sending:flush(5)
    assert.equal(0, sending.unsent)
    assert.equal(4 * 1024 * 1024, #receiving:line(5))
  end))
end)

describe("a router's whole memory", function()
  local obstacle = labs.obstacle(labs.users()[1])

  it("is told at once", obstacle and function() pending("no namespaces here: " .. obstacle) end or run(function()
    local lab = require "p2pd.lab"
    local net <close> = assert(lab.up { a = "symmetric/random", servers = false })
    local sent = assert(assert(net:host "a"):lua([[
      local luv = require "luv"
      local socket = luv.new_udp()
      for _ = 1, (...) do
        repeat
          local sent = socket:try_send("x", "30.1.0.1", 9)
          if not sent then luv.sleep(1) end
        until sent
      end
      socket:close()
    ]], { tostring(EVENTS), timeout = 20 }))
    assert.equal(0, sent.status, sent.err)
    local text
    local seconds = seconds_of(function() text = assert(net:timeline()) end)
    local _, count = text:gsub("\n", "")
    assert(count >= EVENTS / 2, count) -- what the kernel lost by itself nobody saw
    assert(seconds < 5, ("it took %.2f s"):format(seconds))
  end))
end)

describe("a process of the specs' own", function()
  it("has its lines split in time, too", function()
    local ended = false
    processes.go(function()
      local child = assert(processes.start({ "head", "-c", "16000000", "/dev/zero" }, { stdio = { [1] = "pipe" } }))
      assert(child:line(5))
      child:wait(1)
      ended = true
    end)
    local seconds = seconds_of(function() while not ended do luv.run "once" end end)
    assert(seconds < 4, ("it took %.2f s"):format(seconds))
  end)
end)
