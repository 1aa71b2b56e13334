-- core.signal and core.dns: sealed messages over the real mosquitto, beside brokers that behave badly.
-- check: alone
require "p2pd"
local core = require "p2pd.core"
local luv = require "luv"
local mosquitto = require "spec.support.mosquitto"
local processes = require "spec.support.processes"
local run = require "spec.support.run"
local task = require "p2pd.task"

local STALL = 0.1 -- seconds that a good message may take, whatever other brokers do

-- Starts spec/support/hostile_broker.lua; it ends when its input is closed.
local function hostile(mode, rate)
  local input, output, port = luv.new_pipe(), luv.new_pipe()
  local ended = false
  local handle = assert(luv.spawn("lua5.4", {
    args = { "spec/support/hostile_broker.lua", mode, rate and tostring(rate) }, stdio = { input, output, 2 },
  }, function() ended = true end))
  output:read_start(function(_, text) port = port or text and tonumber(text) end)
  local deadline = luv.hrtime() + 5e9
  while not port and luv.hrtime() < deadline do luv.run("once") end
  output:close()
  handle:unref()
  input:unref()
  luv.run("nowait")
  return {
    port = assert(port, "hostile broker did not start"),
    stop = function()
      input:close()
      handle:ref()
      while not ended do luv.run("once") end
      handle:close()
      luv.run("nowait")
    end,
  }
end

describe("core.signal", function()
  local folder, broker, other, silent, drop, garbage, node, far

  lazy_setup(function()
    folder = assert(luv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/p2pd-signal-XXXXXX"))
    broker = mosquitto.start { names = "DNS:broker.test,IP:127.0.0.1" }
    other = mosquitto.start()
    silent, drop, garbage = hostile "silent", hostile "drop", hostile "garbage"
    node = assert(core.identity.open { path = folder .. "/node.pem" })
    far = assert(core.identity.open { path = folder .. "/far.pem" })
  end)

  lazy_teardown(function()
    for _, each in ipairs { node, far } do each:close() end
    broker:stop()
    other:stop()
    for _, each in ipairs { silent, drop, garbage } do each.stop() end
    processes.remove(folder)
  end)

  local function open(identity)
    return assert(core.signal.new { identity = identity })
  end

  -- A link ends when it is collected: these are kept for as long as their signal is.
  local kept = setmetatable({}, { __mode = "k" })
  local function link(signal, port, options)
    options = options or {}
    options.ip, options.port = "127.0.0.1", port
    kept[signal] = kept[signal] or {}
    local made, message, code = signal:link(options)
    table.insert(kept[signal], made)
    return made, message, code
  end

  it("carries a message, sealed, and tells who sent it", run(function()
    local a <close> = open(node)
    local b <close> = open(far)
    local a_link, b_link = assert(link(a, broker.port)), assert(link(b, broker.port))
    assert.is_true(a_link:is_up() and b_link:is_up())
    local body = "text with \0 and \xff"
    local count, id = a:send(far:id(), body, { a_link })
    assert.are.equal(1, count)
    local got = assert(b:recv(2))
    assert.are.equal(body, got.body)
    assert.are.equal(node:id(), got.from)
    assert.are.equal(id, got.id)
    assert.is_true(math.abs(got.time - os.time()) < 3)
    assert.is_nil(got.stale)
    assert.are.equal(1, b:counters().accepted)
  end))

  it("delivers a message once, though several brokers carry it", run(function()
    local a <close> = open(node)
    local b <close> = open(far)
    local links = { assert(link(a, broker.port)), assert(link(a, other.port)) }
    assert(link(b, broker.port))
    assert(link(b, other.port))
    assert.are.equal(2, (a:send(far:id(), "once", links)))
    assert.are.equal("once", assert(b:recv(2)).body)
    local message, _, code = b:recv(0.1)
    assert.is_nil(message)
    assert.are.equal("ETIMEDOUT", code)
    assert.are.equal(1, b:counters().replayed)
  end))

  it("is quick, the first time and each other time", run(function()
    local a <close> = open(node)
    local b <close> = open(far)
    assert(link(b, broker.port))
    for _ = 1, 5 do
      local began = task.now()
      local a_link = assert(link(a, broker.port))
      assert.is_true(task.now() - began < STALL)
      task.sleep(0.3) -- what paho does when nothing comes must not show
      began = task.now()
      assert(a:send(far:id(), "x", { a_link }))
      assert(b:recv(2))
      assert.is_true(task.now() - began < STALL)
      a_link:close()
    end
  end))

  it("is not delayed by brokers that hang, drop or talk nonsense", run(function()
    local a <close> = open(node)
    local b <close> = open(far)
    local outcomes, began = {}, task.now()
    local group <close> = task.group()
    for name, bad in pairs { silent = silent, garbage = garbage } do
      group:spawn(function()
        local _, message, code = link(a, bad.port, { timeout = 0.5 })
        outcomes[name] = { code = code, message = message, took = task.now() - began }
      end)
    end
    group:spawn(function()
      local dropped = assert(link(a, drop.port))
      outcomes.drop = { code = select(3, dropped:wait_down(2)) }
    end)
    local a_link, b_link = assert(link(a, broker.port)), assert(link(b, broker.port))
    assert.is_true(task.now() - began < STALL)
    for _ = 1, 10 do
      local sent = task.now()
      assert(a:send(far:id(), "good", { a_link, b_link }))
      assert(b:recv(2))
      assert.is_true(task.now() - sent < STALL)
      task.sleep(0.06)
    end
    assert.are.equal("ETIMEDOUT", outcomes.silent.code)
    assert.is_true(outcomes.silent.took < 0.7)
    assert.matches("^ETIMEDOUT: cannot connect to broker 127.0.0.1:%d+: ", outcomes.silent.message)
    assert.are.equal("EPROTO", outcomes.garbage.code)
    assert.are.equal("EOF", outcomes.drop.code)
  end))

  it("survives a flood: little time is spent on it, and other brokers are not affected", function()
    local flood = hostile("flood", 10000)
    local ok, message = pcall(run(function()
      local a <close> = open(node)
      local b <close> = open(far)
      assert(link(b, flood.port))
      assert(link(b, broker.port))
      local a_link, times = assert(link(a, broker.port)), {}
      local before, began = luv.getrusage(), task.now()
      for i = 1, 20 do
        local sent = task.now()
        assert(a:send(far:id(), "good", { a_link }))
        assert(b:recv(2))
        times[i] = task.now() - sent
        task.sleep(0.1)
      end
      local after, took = luv.getrusage(), task.now() - began
      local function cpu(usage)
        return usage.utime.sec + usage.stime.sec + (usage.utime.usec + usage.stime.usec) / 1e6
      end
      local counters = b:counters()
      assert.is_true(counters.limited > 5000, "there was no flood")
      table.sort(times)
      local longest_but_one = times[#times - 1] -- a machine that others use too stands still now and then
      assert.is_true(longest_but_one < STALL, ("a good message took %.0f ms"):format(longest_but_one * 1000))
      local share = (cpu(after) - cpu(before)) / took
      assert.is_true(share < 0.25, ("junk took %.0f %% of a core"):format(share * 100))
    end))
    flood.stop()
    if not ok then error(message, 0) end
  end)

  it("verifies a TLS broker by the name that was written", run(function()
    local a <close> = open(node)
    local b <close> = open(far)
    local good = { host = "broker.test", tls = true, ca = broker.ca }
    local a_link = assert(link(a, broker.tls_port, good))
    assert(link(b, broker.tls_port, { tls = true, ca = broker.ca })) -- by its address
    assert(a:send(far:id(), "through TLS", { a_link }))
    assert.are.equal("through TLS", assert(b:recv(2)).body)

    local refused, message, code = link(a, broker.tls_port, { host = "other.test", tls = true, ca = broker.ca })
    assert.is_nil(refused)
    assert.are.equal("ETLS", code)
    assert.matches("^ETLS: cannot connect to broker other.test:%d+: hostname mismatch", message)
    code = select(3, link(a, broker.tls_port, { host = "broker.test", tls = true }))
    assert.are.equal("ETLS", code)
    code = select(3, link(a, broker.tls_port, { host = "broker.test", tls = true, ca = folder .. "/none.pem" }))
    assert.are.equal("ENOENT", code)
  end))

  it("says when a link goes down, and why none came up", run(function()
    local a <close> = open(node)
    local nobody, message, code = link(a, 1)
    assert.is_nil(nobody)
    assert.are.equal("ECONNREFUSED", code)
    assert.matches("^ECONNREFUSED: cannot connect to broker 127.0.0.1:1: ", message)
    local dropped = assert(link(a, drop.port))
    local waited = select(3, dropped:wait_down(0.01))
    assert.are.equal("ETIMEDOUT", waited)
    assert.is_nil((dropped:wait_down(2)))
    assert.is_false(dropped:is_up())
    assert.are.equal("EOF", select(3, dropped:wait_down())) -- again, at once
    assert.are.equal("ENOTCONN", select(3, a:send(far:id(), "x", { dropped })))
    dropped:close()
    dropped:close()
    assert.are.equal("ENOTCONN", select(3, a:send(far:id(), "x", { dropped })))
    assert.are.equal("ENOTCONN", select(3, a:send(far:id(), "x", {})))
  end))

  it("drops what a broker kept", function()
    local topic = far:id()
    local function publish(arguments)
      assert(os.execute(("mosquitto_pub -h 127.0.0.1 -p %d -t %s -r %s"):format(other.port, topic, arguments)))
    end
    publish "-m kept"
    local ok, message = pcall(run(function()
      local b <close> = open(far)
      assert(link(b, other.port))
      assert.are.equal("ETIMEDOUT", select(3, b:recv(0.2)))
      assert.are.equal(1, b:counters().retained)
    end))
    publish "-n"
    if not ok then error(message, 0) end
  end)

  it("reports a proven sender whose clock is wrong", run(function()
    local a <close> = open(node)
    local b <close> = open(far)
    local a_link = assert(link(a, broker.port))
    assert(link(b, broker.port))
    a:set_clock_offset(300)
    assert(a:send(far:id(), "early", { a_link }))
    local got = assert(b:recv(2))
    assert.is_true(got.stale)
    assert.is_true(math.abs(got.skew - 300) < 2)
    assert.are.equal(node:id(), got.from)
    assert.are.equal(1, b:counters().stale)
  end))

  it("lets a task be cancelled wherever it waits", run(function()
    local a <close> = open(node)
    local a_link = assert(link(a, broker.port))
    for _, wait in ipairs {
      function() return link(a, silent.port) end,
      function() return a_link:wait_down() end,
      function() return a:recv() end,
      function() return core.dns.resolve("localhost", 5) end,
    } do
      local waiting = task.spawn(wait):observe()
      task.sleep(0.01)
      waiting:cancel()
      pcall(waiting.wait, waiting)
    end
    assert.is_true(a_link:is_up())
  end))

  it("ends all waits when it is closed", run(function()
    local a = open(node)
    local a_link = assert(link(a, broker.port))
    local codes = {}
    local group <close> = task.group()
    group:spawn(function() codes.recv = select(3, a:recv()) end)
    group:spawn(function() codes.down = select(3, a_link:wait_down()) end)
    group:spawn(function() codes.link = select(3, link(a, silent.port)) end)
    task.sleep(0.02)
    a:close()
    a:close()
    task.sleep(0.02)
    assert.are.same({ recv = "ECLOSED", down = "ECLOSED", link = "ECLOSED" }, codes)
    assert.are.equal("ECLOSED", select(3, a:recv()))
    assert.are.equal("ECLOSED", select(3, link(a, broker.port)))
    assert.are.equal("ECLOSED", select(3, a:send(far:id(), "x", { a_link })))
    assert.are.equal("ECLOSED", select(3, a:counters()))
    assert.are.equal("signal (closed)", tostring(a))
  end))

  it("gives a message to one of several tasks, and keeps those that come early", run(function()
    local a <close> = open(node)
    local b <close> = open(far)
    local a_link, got = assert(link(a, broker.port)), {}
    assert(link(b, broker.port))
    for i = 1, 3 do assert(a:send(far:id(), "early " .. i, { a_link })) end
    task.sleep(0.1)
    for i = 1, 3 do assert.are.equal("early " .. i, assert(b:recv(0)).body) end
    local group <close> = task.group()
    for _ = 1, 3 do
      group:spawn(function()
        local body = assert(b:recv(2)).body
        got[#got + 1] = body
      end)
    end
    task.sleep(0)
    for i = 1, 3 do assert(a:send(far:id(), "late " .. i, { a_link })) end
    task.sleep(0.2)
    table.sort(got)
    assert.are.same({ "late 1", "late 2", "late 3" }, got)
  end))

  it("lets go of links and signals that are forgotten", run(function()
    do
      local a = open(node)
      assert(link(a, broker.port))
    end
    collectgarbage()
    collectgarbage()
    task.sleep(0.05)
  end))

  it("throws at the caller for what can only be a mistake", run(function()
    local a <close> = open(node)
    local function throws(pattern, ...)
      local ok, message = pcall(...)
      assert.is_false(ok)
      assert.matches(pattern, message)
    end
    throws("unknown option 'cafile'", a.link, a, { ip = "127.0.0.1", port = 1, cafile = "x" })
    throws("'ip' must be an address", a.link, a, { ip = "localhost", port = 1 })
    throws("'ip' must be a text", a.link, a, { port = 1 })
    throws("'port' must be 1 to 65535", a.link, a, { ip = "127.0.0.1", port = 0 })
    throws("number of seconds", a.link, a, { ip = "127.0.0.1", port = 1, timeout = -1 })
    throws("a node id", a.send, a, "nobody", "x", {})
    throws("a list of links", a.send, a, far:id(), "x", { 1 })
    throws("identity", core.signal.new, { identity = 1 })
    throws("unknown option", core.signal.new, { identity = node, key = 1 })
    throws("number of seconds", a.recv, a, -1)
    assert.are.equal("EMSGSIZE", select(3, a:send(far:id(), ("x"):rep(8192), {})))
    assert.matches("^signal %(0 brokers up%)$", tostring(a))
    local up = assert(link(a, broker.port))
    assert.matches("^broker 127.0.0.1:%d+ %(up%)$", tostring(up))
  end))
end)

describe("core.dns", function()
  it("reads addresses and looks up names", run(function()
    assert.are.same({ "192.0.2.7" }, core.dns.resolve "192.0.2.7")
    assert.are.same({ "2001:db8::1" }, core.dns.resolve("2001:DB8:0::1", 1))
    local found = {}
    for _, ip in ipairs(assert(core.dns.resolve("localhost", 5))) do found[ip] = true end
    assert.is_true(found["127.0.0.1"] or found["::1"])
    local none, message, code = core.dns.resolve(("a"):rep(300))
    assert.is_nil(none)
    assert.are.equal("EINVAL", code)
    assert.matches("^EINVAL: cannot resolve 'aaa", message)
    assert.is_false(pcall(core.dns.resolve, ""))
    assert.is_false(pcall(core.dns.resolve, "a\0b"))
  end))
end)
