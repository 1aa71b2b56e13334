-- Holds and samples, with STUN servers of the test's own that see us wherever they like. In a lab: lab_holds_spec.lua.
require "p2pd"
local holds = require "p2pd.holds"
local luv = require "luv"
local program = require "spec.support.program"
local run = require "spec.support.run"
local speakers = require "p2pd.speakers"
local stun = require "p2pd.stun"
local task = require "p2pd.task"

local eventually = program.eventually

local HERE = { local_ip = "127.0.0.1", translated = true }

local fake = {}
fake.__index = fake

function fake:greet(guest)
  local from = guest:getpeername().port
  self.guests[#self.guests + 1] = guest
  guest:read_start(function(_, request)
    if not request then return not guest:is_closing() and guest:close() end
    self.asked = self.asked + 1
    local ip, port = self.see(from)
    if not ip then return end
    local a, b, c, d = ip:match "(%d+)%.(%d+)%.(%d+)%.(%d+)"
    guest:write("\1\1\0\12" .. request:sub(5, 20) .. (">I2I2I2I2BBBB"):pack(1, 8, 1, port or from, a, b, c, d))
  end)
end

function fake:start()
  self.listener = luv.new_tcp()
  assert(self.listener:bind("127.0.0.1", self.port or 0))
  self.port = self.listener:getsockname().port
  assert(self.listener:listen(16, function()
    local guest = luv.new_tcp()
    self.listener:accept(guest)
    self:greet(guest)
  end))
  return self
end

function fake:hang_up()
  for _, guest in ipairs(self.guests) do
    if not guest:is_closing() then guest:close() end
  end
  self.guests = {}
end

function fake:stop()
  self:hang_up()
  if not self.listener:is_closing() then self.listener:close() end
end

fake.__close = fake.stop

-- A server that answers over TCP with what `see(port)` gives: the address and port that it sees, or nil for silence.
local function serve(see)
  return setmetatable({ see = see, guests = {}, asked = 0, ip = "127.0.0.1", host = "127.0.0.1" }, fake):start()
end

local function outside(port) return "30.2.1.2", port ~ 1 end
local function silence() end

local function pool(servers, keep)
  local self = { heard = {}, moved = 0 }
  self.holds = holds.new {
    servers = function() return servers end, keep = keep,
    heard = function(server, over_tcp) self.heard[server.port] = over_tcp end,
    on_moved = function() self.moved = self.moved + 1 end,
  }
  function self.take(_, timeout, where) return self.holds:take(where or HERE, task.now() + (timeout or 2)) end
  return setmetatable(self, { __close = function() self.holds:close() end })
end

local function seconds(f, ...)
  local began = task.now()
  local result = table.pack(f(...))
  return task.now() - began, table.unpack(result, 1, result.n)
end

describe("holds", function()
  it("say where they are seen, and are nobody else's", run(function()
    local server <close> = serve(outside)
    local own <close> = pool { server }
    own.holds:warm(HERE)
    local taken, ports, tasks <close> = {}, {}, task.group()
    for i = 1, 6 do tasks:spawn(function() taken[i] = assert(own:take()) end) end
    for _, one in ipairs(tasks) do one:wait() end
    for _, hold in ipairs(taken) do
      assert.same({ "127.0.0.1", "30.2.1.2", hold.local_port ~ 1, true },
        { hold.local_ip, hold.external_ip, hold.external_port, hold.translated })
      assert.is_nil(ports[hold.local_port])
      ports[hold.local_port] = true
      assert.equal(("hold (127.0.0.1 port %d, seen as 30.2.1.2 port %d)"):format(hold.local_port, hold.external_port),
        tostring(hold))
    end
    assert.is_true(own.heard[server.port])
  end))

  it("are ready when they are taken, and the next one is made", run(function()
    local server <close> = serve(outside)
    local own <close> = pool { server }
    own.holds:warm(HERE)
    own.holds:warm(HERE) -- once is enough
    for _ = 1, 3 do
      task.sleep(0.1)
      local asked = server.asked
      local took, hold = seconds(own.take, own)
      assert(took < 0.02, took)
      assert.equal(asked, server.asked)
      assert(hold.connection)
    end
    task.sleep(0.1)
    assert.equal(4, server.asked)
  end))

  it("are made by the first server that answers; dead ones cost little", run(function()
    local silent <close> = serve(silence)
    local inside <close> = serve(function() return "192.168.1.7" end)
    local good <close> = serve(outside)
    local nowhere = { ip = "127.0.0.1", port = 1 }
    local own <close> = pool { nowhere, silent, inside, good }
    local took, hold = seconds(own.take, own)
    assert(hold and took < 0.5, took)
    assert.same({ false, false, true, nil },
      { own.heard[1], own.heard[inside.port], own.heard[good.port], own.heard[silent.port] })
    local none <close> = pool { nowhere, inside }
    local _, message, code = none:take()
    assert.equal("ECONNREFUSED", code)
    assert.matches("^ECONNREFUSED: ", message)
    local dead <close> = pool { silent }
    took, hold, message, code = seconds(dead.take, dead, 0.3)
    assert.is_nil(hold)
    assert.equal("ETIMEDOUT", code, message)
    assert(took < 0.6, took)
    assert.equal("ENOTSUP", select(3, pool {}:take()))
  end))

  it("are asked now and then, and made anew by the same port when they break", run(function()
    local server <close> = serve(outside)
    local own <close> = pool({ server }, 0.02)
    local hold = assert(own:take())
    eventually(function() return server.asked >= 4 end)
    local port, before = hold.local_port, hold.connection
    server:hang_up()
    eventually(function() return hold.connection and hold.connection ~= before end)
    assert.equal(port, hold.local_port)
    server:stop()
    eventually(function() return not hold.connection end)
    server:start()
    eventually(function() return hold.connection end)
    assert.equal(port, hold.local_port)
    assert.equal(0, own.moved)
  end))

  it("are not handed out while they are broken", run(function()
    local server <close> = serve(outside)
    local other <close> = serve(outside)
    local list = { server }
    local own <close> = pool(list, 0.02)
    own.holds:warm(HERE)
    task.sleep(0.1)
    server:stop()
    task.sleep(0.1)
    list[1] = other
    local hold = assert(own:take())
    assert(hold.connection)
  end))

  it("tell when they are seen at another address", run(function()
    local ip = "30.2.1.2"
    local server <close> = serve(function(port) return ip, port end)
    local own <close> = pool({ server }, 0.02)
    local hold = assert(own:take())
    task.sleep(0.1)
    assert.equal(0, own.moved)
    ip = "192.168.7.7" -- nonsense
    task.sleep(0.1)
    assert.equal(0, own.moved)
    ip = "30.2.1.9"
    eventually(function() return own.moved == 1 end)
    assert.equal("30.2.1.9", hold.external_ip)
  end))

  it("keep their numbers where that is asked for, or are not had", run(function()
    local server <close> = serve(function(port) return "30.2.1.2", port < 32000 and port or port - 7 end)
    local own <close> = pool { server }
    local where = { local_ip = "127.0.0.1", translated = true, equal = true }
    own.holds:warm(HERE)
    task.sleep(0.1) -- the one that is ready now has another number
    local hold = assert(own:take(2, where))
    assert.equal(hold.local_port, hold.external_port)
    local none <close> = serve(function(port) return "30.2.1.2", port - 7 end)
    local never <close> = pool { none }
    assert.equal("EAGAIN", select(3, never:take(2, where)))
  end))

  it("are ports of ours alone where nothing is translated", run(function()
    local own <close> = pool {}
    local where = { local_ip = "127.0.0.1", translated = false }
    local one, other = assert(own:take(1, where)), assert(own:take(1, where))
    assert.equal(one.local_port, one.external_port)
    assert.equal("127.0.0.1", one.external_ip)
    assert.not_equal(one.local_port, other.local_port)
    local code = select(3, stun.connect { ip = "127.0.0.1", port = 1, local_ip = "127.0.0.1",
      local_port = one.local_port })
    assert.equal("ECONNREFUSED", code) -- it can be connected from
    one:close()
    one:close()
    assert.equal("EADDRNOTAVAIL", select(3, own:take(1, { local_ip = "203.0.113.1", translated = false })))
  end))

  it("end with the one that has them, and with the pool", run(function()
    local server <close> = serve(outside)
    local own = pool({ server }, 0.02)
    own.holds:warm(HERE)
    local one, other = assert(own:take()), assert(own:take())
    one:close()
    assert.is_true(one.closed)
    local asked = tostring(one)
    assert.matches(", closed%)$", asked)
    own.holds:close()
    assert.is_true(other.closed)
    assert.equal("ECLOSED", select(3, own:take()))
    assert.equal("ECLOSED", select(3, own.holds:sample(HERE, {})))
  end))

  it("leave nothing behind when the task that wants one is cancelled", run(function()
    local silent <close> = serve(silence)
    local own <close> = pool { silent }
    own.holds:warm(HERE)
    local first = task.spawn(own.take, own, 5)
    local second = task.spawn(own.take, own, 5)
    task.sleep(0.05)
    first:cancel()
    second:cancel()
    pcall(first.wait, first)
    pcall(second.wait, second)
    own.holds:cool "127.0.0.1"
  end))
end)

describe("samples", function()
  it("are of ports in a row, one to each server, in their order", run(function()
    local order = {}
    local function see(port)
      order[#order + 1] = port
      return "30.2.1.2", 40000 + 7 * #order
    end
    local one <close> = serve(see)
    local other <close> = serve(see)
    local own <close> = pool { one, other }
    local sample <close> = assert(own.holds:sample(HERE, { count = 5 }))
    assert.equal(5, #sample)
    for i, entry in ipairs(sample) do
      assert.equal(sample[1].local_port + i - 1, entry.local_port)
      assert(entry.external_port > 0)
    end
    assert.same({ 3, 2 }, { #one.guests, #other.guests })
    local again <close> = assert(own.holds:sample(HERE, { count = 2, local_port = 23456 }))
    assert.same({ 23456, 23457 }, { again[1].local_port, again[2].local_port })
    assert.equal(2, #assert(own.holds:sample(HERE, {})))
    assert.matches("^sample %(23456 > %d+, 23457 > %d+%)$", tostring(again))
  end))

  it("do without the answer of one that is silent, and end when they are closed", run(function()
    local good <close> = serve(outside)
    local silent <close> = serve(silence)
    local own <close> = pool { silent, good }
    local took, sample = seconds(own.holds.sample, own.holds, HERE, { count = 3 })
    assert(took < 0.3, took)
    assert.same({ 0, sample[2].local_port ~ 1, 0 },
      { sample[1].external_port, sample[2].external_port, sample[3].external_port })
    local ended = 0
    sample.on_close = function() ended = ended + 1 end
    sample:close()
    sample:close()
    assert.equal(1, ended)
    eventually(function() return good.guests[1]:is_closing() end)
  end))

  it("fail when nobody answers", run(function()
    local silent <close> = serve(silence)
    local own <close> = pool { silent }
    assert.equal("ETIMEDOUT", select(3, own.holds:sample(HERE, { timeout = 0.1 })))
    local nowhere <close> = pool { { ip = "127.0.0.1", port = 1 } }
    assert.equal("ECONNREFUSED", select(3, nowhere.holds:sample(HERE, {})))
    local none <close> = pool {}
    assert.equal("ENOTSUP", select(3, none.holds:sample(HERE, {})))
  end))
end)

describe("speakers", function()
  local function hosts(list)
    local names = {}
    for i, server in ipairs(list) do names[i] = server.ip end
    return table.concat(names, " ")
  end

  it("come in the order of what they are known for", run(function()
    local own = speakers.new {
      { host = "30.0.0.1", port = 1 }, { host = "30.0.0.2", port = 1 }, { host = "2c0f:30::3", port = 1 },
      { host = "30.0.0.4", port = 1 }, { host = "30.0.0.5", port = 1 }, { host = "30.0.0.6", port = 1 },
    }
    local function named(ip) return { host = ip, ip = ip, port = 1 } end
    assert.equal("30.0.0.1 30.0.0.2 30.0.0.4 30.0.0.5", hosts(own:addresses(4)))
    assert.equal("2c0f:30::3", hosts(own:addresses(6)))
    own:heard(named "30.0.0.4")
    assert.equal("30.0.0.4 30.0.0.1 30.0.0.2 30.0.0.5", hosts(own:addresses(4)))
    own:heard(named "30.0.0.6", true)
    assert.equal("30.0.0.6 30.0.0.4", hosts(own:addresses(4)))
    assert.equal("30.0.0.6 30.0.0.4 30.0.0.1 30.0.0.2", hosts(own:addresses(4, true)))
    own:heard(named "30.0.0.4", false)
    own:heard(named "30.0.0.1", false)
    assert.equal("30.0.0.6 30.0.0.2 30.0.0.5 30.0.0.4", hosts(own:addresses(4)))
    own:heard(named "30.0.0.4", true)
    own:heard(named "30.0.0.4") -- by UDP: that says nothing of TCP
    assert.equal("30.0.0.4 30.0.0.6 30.0.0.1", hosts(own:addresses(4)))
  end))

  it("from another time count if they are in the settings", run(function()
    local own = speakers.new { { host = "30.0.0.1", port = 1 }, { host = "30.0.0.2", port = 1 } }
    own:recall { { host = "30.0.0.2", ip = "30.0.0.2", port = 1 }, { host = "30.0.0.9", ip = "30.0.0.9", port = 1 } }
    assert.equal("30.0.0.2 30.0.0.1", hosts(own:addresses(4)))
  end))
end)
