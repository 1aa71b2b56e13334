-- The demo as a whole program, on loopback and in a lab: what it shows, how it ends, and what it leaves behind.
local cjson = require "cjson"
local luv = require "luv"
local labs = require "spec.support.lab"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local texts = require "spec.support.texts"

local has, has_not = texts.has, texts.has_not

-- The first event of this name that the program told on standard error.
local function event(it, name)
  for line in it.err:gmatch "[^\n]+" do
    local fields = cjson.decode(line)
    if fields.event == name then return fields end
  end
end

describe("the demo on loopback", function()
  local function on_loopback(own, ...)
    return { program.path, "demo", "--loopback", env = { TMPDIR = tostring(own) }, ... }
  end

  local function left_in(where)
    local names = {}
    for _, path_left in ipairs(processes.find(where, "")) do names[#names + 1] = path_left end
    for name in processes.folder(where) do names[#names + 1] = name end
    return names
  end

  local function nothing_left(own)
    assert.are.same({}, left_in(tostring(own)))
    program.await(function() return #labs.running_in(tostring(own)) == 0 end, 3)
    assert.are.same({}, labs.running_in(tostring(own)))
  end

  it("shows two nodes that meet and talk, by itself", function()
    local own <close> = program.folder()
    local it = program.run(on_loopback(own, "--json"))
    assert.are.equal(0, it.status)
    for _, part in ipairs {
      "demo: mosquitto listens on 127.0.0.1:", "demo: the second node's address is 0-[", "demo:   + direct ",
      "demo: pipe by direct with 127.0.0.1:", 'sent "hello", got back "hello" in ', "demo: done\n",
    } do has(it.out, part) end
    assert.are.equal("direct", event(it, "pipe").strategy)
    nothing_left(own)
  end)

  it("lets the other node be typed to at a terminal, until Ctrl-D", function()
    local own <close> = program.folder()
    local child <close> = program.start_in_terminal(on_loopback(own))
    child:expect "(Ctrl-D ends)"
    child:write "good day\n"
    child:expect 'sent "good day", got back "good day" in '
    child:write "\x04"
    child:expect "demo: done"
    assert.are.equal(0, child:wait())
    nothing_left(own)
  end)

  it("leaves at Ctrl-C", function()
    local own <close> = program.folder()
    local child <close> = program.start_in_terminal(on_loopback(own))
    child:expect "(Ctrl-D ends)"
    child:write "\x03"
    assert.are.equal(130, child:wait())
    nothing_left(own)
  end)

  it("leaves nothing behind, whenever a signal comes", function()
    local own <close> = program.folder()
    for i = 0, 24 do
      local signal = i % 2 == 0 and "sigint" or "sigterm"
      local child <close> = program.start(on_loopback(own))
      if i % 5 == 4 then
        child:expect "second node's address" -- while the own node starts
      else
        luv.sleep(4 + i * 6)
      end
      child:kill(signal)
      local status = child:wait()
      assert(status == (signal == "sigint" and 130 or 143) or status == 0, "status " .. status .. child.err)
      has_not(child.err, "traceback")
    end
    nothing_left(own)
  end)

  it("says so when there is no place for its files", function()
    local it = program.run(on_loopback "/proc/none")
    assert.are.equal(1, it.status)
    has(it.err, "p2pd-lua demo: ENOENT")
    has_not(it.err, "traceback")
  end)
end)

for _, user in ipairs(labs.users()) do
  describe("the demo in a lab of " .. user.name, function()
    local obstacle = labs.obstacle(user)
    local function test(name, f)
      it(name, obstacle and function() pending("no namespaces here: " .. obstacle) end or f)
    end

    setup(function() labs.start(user) end)
    teardown(function() user:stop() end)

    test("shows two routers being opened at the same moment, and why no quicker way was taken", function()
      local it = program.run(user:command("demo", "--json"))
      assert.are.equal(0, it.status, it.out .. it.err)
      for _, part in ipairs {
        "demo:   a, 192.168.1.10 behind 30.2.1.2: a new port for each destination, 7 after the last one "
          .. "(symmetric/independent:7)",
        "demo:   b, 192.168.2.10 behind 30.2.2.2: any port, and the same for all destinations "
          .. "(port-restricted/random)",
        "demo:   - direct ", "demo:   - reverse ", "demo:   + punch ", "demo:   - relay ",
        "demo: pipe by punch with 30.2.2.2:", 'sent "hello", got back "hello" in ', ": a new mapping", "demo: done\n",
      } do has(it.out, part) end
      assert.are.equal("punch", event(it, "pipe").strategy)
      user:nothing_left()
    end)

    test("lets the other node be typed to at a terminal, until Ctrl-D", function()
      local child <close> = program.start_in_terminal(user:command "demo")
      child:expect "(Ctrl-D ends)"
      child:write "good day\n"
      child:expect 'sent "good day", got back "good day" in '
      child:write "\x04"
      child:expect "demo: done"
      assert.are.equal(0, child:wait())
      user:nothing_left()
    end)

    test("leaves at Ctrl-C", function()
      local child <close> = program.start_in_terminal(user:command "demo")
      child:expect "(Ctrl-D ends)"
      child:write "\x03"
      assert.are.equal(130, child:wait())
      user:nothing_left()
    end)

    test("leaves nothing behind, whenever a signal comes", function()
      for i = 0, 11 do
        local signal = i % 2 == 0 and "sigint" or "sigterm"
        local child <close> = program.start(user:command "demo")
        luv.sleep(5 + i * 50)
        child:kill(signal)
        local status = child:wait()
        assert(status == (signal == "sigint" and 130 or 143) or status == 0, "status " .. status .. child.err)
        has_not(child.err, "traceback")
      end
      user:clear()
      user:nothing_left()
    end)

    it("does without a lab where none can be had, and says why", function()
      local command = user:command "demo"
      table.insert(command, #command - 1, "/usr/bin/env")
      table.insert(command, #command - 1, "PATH=/nowhere")
      local it = program.run(command)
      assert.are.equal(0, it.status, it.out .. it.err)
      has(it.out, "not installed: unshare, ")
      has(it.out, "So there is no lab, and both nodes run on loopback.")
      has(it.out, "demo: pipe by direct with 127.0.0.1:")
    end)
  end)
end
