-- Punching through the lab's routers by core.punch alone. What the two ends tell each other otherwise (addresses,
-- ports, when) is agreed here, and what they do is written by hand.
-- check: alone
-- check: unsanitized
local cjson = require "cjson"
local lab = require "p2pd.lab"
local p2pd = require "p2pd"
local program = require "spec.support.program"
local run = require "spec.support.run"
local task = require "p2pd.task"

local DELAY_MS = 10      -- of a router's link, each way
local ROUND_TRIP_MS = 40 -- between the hosts, and so between a host and the other's router and back, less one delay
local START = 0.4        -- seconds in which the programs on the hosts are ready
local SLACK_MS = 25      -- what a busy machine may add
local A, B = "30.2.1.2", "30.2.2.2" -- the routers' addresses outside

-- Of the ports of a router that takes any: fewer than 65,536, so that chance fails once in 400,000 runs and not in 60.
local FIRST, LAST = 20001, 40000
local RANDOM = ("symmetric/random@%d-%d"):format(FIRST, LAST)
local MANY, SPRAY = 256, 1024

-- Plays a part on a host, and prints what came of it. Times are those of this machine's steady clock. Each hole is made
-- a pipe, whose ends prove their keys; over the first one that the client has, a word goes there and back.
local PART = [[
  local cjson, core, luv = require "cjson", require "p2pd.core", require "luv"
  local p2pd, task = require "p2pd", require "p2pd.task"
  local part = cjson.decode((...))
  local folder = assert(luv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/p2pd-punch-XXXXXX"))
  local identity = assert(core.identity.open { path = folder .. "/key.pem" })
  os.remove(folder .. "/key.pem")
  luv.fs_rmdir(folder)
  -- A port that a STUN server saw, by a connection that stays open; the other end finds its number in a file.
  local connection
  if part.hold then
    connection = assert(require("p2pd.stun").connect { ip = "30.1.0.3", port = 3478 })
    assert(connection.external_port ~= connection.local_port)
    local file = assert(io.open(part.hold .. part.role, "w"))
    file:write(connection.external_port, "\n")
    file:close()
    local other = part.hold .. (part.role == "client" and "server" or "client")
    repeat
      p2pd.sleep(0.005)
      local found = io.open(other)
      part.shots[1].remote_port = found and found:read "n"
      if found then found:close() end
    until part.shots[1].remote_port
    part.shots[1].local_port, part.listen = connection.local_port, { connection.local_port }
  end
  local limits = { sockets = 2048, syns = 2048 }
  local puncher <close> = assert(core.punch.open { remote_ip = part.remote_ip, limits = limits })
  for _, port in ipairs(part.listen) do assert(puncher:listen(port)) end
  assert(puncher:fire(part.shots, { at = part.at, revive = part.revive }))
  local said, message, code
  local function speak(hole)
    local pipe <close> = core.pipe.adopt { socket = hole, identity = identity, role = part.role, timeout = 1 }
    if not pipe then return end
    if part.role == "client" then
      pipe:commit(("a"):rep(16))
      pipe:send "hello"
    else
      pipe:admit()
    end
    local word = pipe:recv(1)
    if not word then return end
    said = said or { word = word, ms = (p2pd.now() - part.at) * 1000, how = hole.how, opened_ms = hole.ms,
      local_port = hole.local_port, remote_ip = hole.remote_ip, remote_port = hole.remote_port }
    if part.role == "server" then
      pipe:send(word:upper())
      pipe:recv(1) -- until the other end has it
    end
  end
  local tasks <close> = task.group()
  while not said and p2pd.now() < part.at + part.timeout do
    local hole
    hole, message, code = puncher:wait(0.02)
    if hole then
      local one = tasks:spawn(speak, hole)
      if part.role == "client" then one:wait() end
    elseif code ~= "ETIMEDOUT" then
      break
    end
  end
  for _, one in ipairs(tasks) do one:wait() end
  if connection then assert(connection:ask(1)) end
  local seen = puncher:seen()
  local closing = p2pd.now()
  puncher:close()
  print(cjson.encode { said = said, message = message, code = code, seen = seen,
    close_ms = (p2pd.now() - closing) * 1000 })
]]

-- Plays both parts; what came of each.
local function play(net, parts)
  local at, results = p2pd.now() + START, {}
  local tasks <close> = task.group()
  for name, part in pairs(parts) do
    local given = { at = at, timeout = 1, listen = {}, revive = 0, role = name == "a" and "client" or "server" }
    for key, value in pairs(part) do given[key] = value end
    tasks:spawn(function()
      local ended = assert(assert(net:host(name)):lua(PART, { cjson.encode(given), timeout = 10 }))
      assert(ended.status == 0, ended.err)
      results[name] = cjson.decode(ended.out)
    end)
  end
  for _, one in ipairs(tasks) do one:wait() end
  return results.a, results.b
end

local function tell(name, it_was)
  local seen = it_was.seen
  return ("%s: %s; %d sent, %d refused, %d ICMP, %s"):format(name, it_was.said and ("%s after %.1f ms"):format(
    it_was.said.how, it_was.said.opened_ms) or it_was.message, seen.sent, seen.refused, seen.unreachable,
    cjson.encode(seen.failed))
end

-- Fails unless a word went there and back; returns the milliseconds until it was there.
local function met(what, a, b)
  local text = ("%s; %s"):format(tell("a", a), tell("b", b))
  assert(a.said and a.said.word == "HELLO" and b.said and b.said.word == "hello", text)
  print(("punch: %s: a pipe after %.1f ms; %s"):format(what, b.said.ms, text))
  return b.said.ms
end

local function networks(a, b, body, servers)
  local routers = { a = a, b = b }
  for name, router in pairs(routers) do
    local made = { delay_ms = DELAY_MS }
    for key, value in pairs(type(router) == "table" and router or { nat = router }) do made[key] = value end
    routers[name] = made
  end
  local net <close> = assert(lab.up { routers = routers, servers = servers or false })
  net:guard(body, net)
end

-- One shot from a known port to a known port, a listener on it.
local function knock(remote_ip, local_port, remote_port, more)
  local shot = { local_port = local_port, remote_port = remote_port }
  for key, value in pairs(more or {}) do shot[key] = value end
  return { remote_ip = remote_ip, listen = { local_port }, shots = { shot }, revive = 20 }
end

local function each_uninvited(body)
  return run(function()
    for _, uninvited in ipairs { "drop", "reset", "unreachable" } do body(uninvited) end
  end)
end

local function spray(options)
  local shots, taken = {}, {}
  while #shots < SPRAY do
    local port = math.random(FIRST, LAST)
    if not taken[port] then
      taken[port] = true
      shots[#shots + 1] = { local_port = 40002, remote_port = port, ttl = options.ttl,
        at_ms = #shots * options.spread_ms / SPRAY }
    end
  end
  return { remote_ip = A, listen = { 40002 }, shots = shots, timeout = 2 }
end

local function many(options)
  local shots = {}
  for i = 1, MANY do
    shots[i] = { remote_port = 40002, listens = true, at_ms = options.at_ms + i * options.spread_ms / MANY }
  end
  return { remote_ip = B, shots = shots, timeout = 2 }
end

describe("in the lab, punching", function()
  it("joins two ports that both know, whatever uninvited SYNs get", each_uninvited(function(uninvited)
    local router = { nat = "port-restricted/equal", uninvited = uninvited }
    networks(router, router, function(net)
      local a, b = play(net, { a = knock(B, 40001, 40002), b = knock(A, 40002, 40001) })
      local ms = met("port-restricted x port-restricted, " .. uninvited, a, b)
      assert(ms < 3.5 * ROUND_TRIP_MS + SLACK_MS, ms) -- SYN; TLS
      assert.same({ 40001, 40002, B }, { a.said.local_port, a.said.remote_port, a.said.remote_ip })
      assert.same({ 1, 1, 0, 0 }, { a.seen.sent, b.seen.sent, a.seen.refused, b.seen.refused })
    end)
  end))

  it("joins ports that STUN servers saw, and whose connections to these stay", run(function()
    local folder <close> = program.folder()
    networks("port-restricted/random", "restricted/random", function(net)
      local function part(remote_ip)
        return { remote_ip = remote_ip, hold = tostring(folder) .. "/", shots = { {} }, revive = 20, timeout = 2 }
      end
      local a, b = play(net, { a = part(B), b = part(A) })
      met("ports held by STUN", a, b)
    end, true)
  end))

  it("revives what was refused because the other is late", each_uninvited(function(uninvited)
    if uninvited == "drop" then return end
    local router = { nat = "port-restricted/equal", uninvited = uninvited }
    networks(router, router, function(net)
      local a, b = play(net, { a = knock(B, 40003, 40004), b = knock(A, 40004, 40003, { at_ms = 100 }) })
      met("one is 100 ms late, " .. uninvited, a, b)
      assert(a.seen.refused >= 1 and a.seen.revived == a.seen.refused, tell("a", a))
    end)
  end))

  it("opens with SYNs that die on their way, and the same sockets connect", each_uninvited(function(uninvited)
    local router = { nat = "port-restricted/equal", uninvited = uninvited }
    networks(router, router, function(net)
      local a, b = play(net, {
        a = knock(B, 40005, 40006, { ttl = 2 }), b = knock(A, 40006, 40005, { at_ms = 60 }),
      })
      met("an opener, 60 ms before, " .. uninvited, a, b)
      assert.same({ 1, 0, 0 }, { a.seen.sent, a.seen.refused, a.seen.unreachable })
      assert.equal("connected", a.said.how)
      assert.same({ 1, 0, "connected" }, { b.seen.sent, b.seen.refused, b.said.how })
    end)
  end))

  it("joins a port that is known with one of many at random, where uninvited SYNs are dropped", run(function()
    networks(RANDOM, "port-restricted/equal", function(net)
      local a, b = play(net, { a = many { at_ms = 0, spread_ms = 30 }, b = spray { spread_ms = 50 } })
      met("random x port-restricted, drop", a, b)
      print(("punch: %d + %d SYNs; closed in %.1f and %.1f ms"):format(a.seen.sent, b.seen.sent, a.close_ms,
        b.close_ms))
    end)
  end))

  it("does so where they are answered, by openers that come first", run(function()
    for _, uninvited in ipairs { "reset", "unreachable" } do
      local k = { nat = "port-restricted/equal", uninvited = uninvited }
      networks({ nat = RANDOM, uninvited = uninvited }, k, function(net)
        local a, b = play(net, { a = many { at_ms = 60, spread_ms = 30 }, b = spray { spread_ms = 50, ttl = 2 } })
        met("random x port-restricted, " .. uninvited, a, b)
      end)
    end
  end))

  it("is called by a port at random where only addresses are filtered", each_uninvited(function(uninvited)
    local k = { nat = "restricted/equal", uninvited = uninvited }
    networks({ nat = "symmetric/random", uninvited = uninvited }, k, function(net)
      local opener = knock(A, 40007, 9, { ttl = 2 })
      local a, b = play(net, { a = { remote_ip = B, shots = { { remote_port = 40007, at_ms = 30 } } }, b = opener })
      met("random x restricted, " .. uninvited, a, b)
      assert.equal("accepted", b.said.how)
    end)
  end))

  it("of IPv6 makes a listener where ICMP has ended an opener", each_uninvited(function(uninvited)
    local router = { nat = "port-restricted/equal", uninvited = uninvited }
    networks(router, router, function(net)
      local ips = {}
      for name in pairs { a = 1, b = 2 } do
        local list = assert(net:host(name):run { "ip", "-oneline", "address", "show", "eth0" }).out
        ips[name] = list:match " (2c0f:%g+)/%d+ "
      end
      local opener = knock(ips.b, 40008, 40009, { ttl = 2 })
      opener.listen = {}
      local a, b = play(net, { a = opener, b = knock(ips.a, 40009, 40008, { at_ms = 60 }) })
      met("IPv6, an opener, " .. uninvited, a, b)
      assert.same({ 1, "accepted", "connected" }, { a.seen.unreachable, a.said.how, b.said.how })
    end)
  end))
end)
