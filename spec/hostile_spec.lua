-- What strangers and brokers may do to a node: it goes on, it says what is wrong, and it stays small.
-- check: alone
local cjson = require "cjson"
local core = require "p2pd.core"
local luv = require "luv"
local p2pd = require "p2pd"
local pair = require "spec.support.pair"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local run = require "spec.support.run"

local SLOW = os.getenv "P2PD_SANITIZED" and 5 or 1 -- times that everything may take longer
local MIB = 1024 * 1024

local two

-- Starts spec/support/hostile_broker.lua; its handles do not keep the loop of a test alive.
local function hostile_broker(mode, rate)
  local child, input, output = {}, luv.new_pipe(), luv.new_pipe()
  local handle = assert(luv.spawn("lua5.4", {
    args = { "spec/support/hostile_broker.lua", mode, tostring(rate) }, stdio = { input, output, 2 },
  }, function() child.ended = true end))
  output:read_start(function(_, text) child.port = child.port or text and tonumber(text) end)
  assert(program.await(function() return child.port end), "a hostile broker did not start")
  output:close()
  handle:unref()
  input:unref()
  luv.run "nowait"
  function child.stop()
    input:close()
    handle:ref()
    assert(program.await(function() return child.ended end))
    handle:close()
    luv.run "nowait"
  end
  return { host = "127.0.0.1", port = child.port }, child
end

local function resident()
  return tonumber(processes.read "/proc/self/status":match "VmRSS:%s+(%d+)") * 1024
end

local function seconds_of(f, ...)
  local began = p2pd.now()
  local results = table.pack(f(...))
  return p2pd.now() - began, table.unpack(results, 1, results.n)
end

-- That `b` is well: `a` reaches it, and a pipe works. A new key each time, since one peer may ask three times a minute.
local asked = 0
local function meet(b, strategy, settings)
  asked = asked + 1
  local a <close> = assert(two:node("good" .. asked, { settings = settings, listen = false }))
  local took, pipe, message = seconds_of(a.connect, a, b:address(), { strategies = { strategy }, timeout = 5 * SLOW })
  local _ <close> = assert(pipe, message)
  local arrived <close> = b:accept()()
  assert(pipe:send "well?")
  assert.equal("well?", arrived:recv(5))
  assert.equal(a:id(), arrived.peer)
  return took
end

describe("strangers", function()
  setup(function() two = pair.new() end)
  teardown(function() two:close() end)

  it("who hand out thousands of malformed addresses cost nothing", run(function()
    local a <close> = two:node "a"
    local good = a:address()
    math.randomseed(11)
    local pool = "0123456789-,[].:%N None\0\255\27"
    local codes, links = {}, #a.signal_state(a).brokers
    local took = seconds_of(function()
      for _ = 1, 3000 do
        local bytes = { good:byte(1, -1) }
        for _ = 1, math.random(3) do
          local at, with, what = math.random(#bytes), math.random(#pool), math.random(3)
          if what == 1 then bytes[at] = pool:byte(with) end
          if what == 2 then table.insert(bytes, at, pool:byte(with)) end
          if what == 3 then table.remove(bytes, at) end
        end
        local text = string.char(table.unpack(bytes))
        if not p2pd.address.parse(text) then -- the others would be dialed
          local pipe, message, code = a:connect(text)
          assert.is_nil(pipe)
          assert.matches("^" .. code .. ": [ -~]+$", message)
          codes[code] = (codes[code] or 0) + 1
        end
      end
    end)
    assert.same({ EINVAL = codes.EINVAL }, codes)
    assert.is_true(codes.EINVAL > 1500)
    for _, text in ipairs { "", "x", ("-"):rep(MIB), ("1,"):rep(100000) .. "-0-0-a-b", good .. "\n", good .. "\0" } do
      local pipe, message, code = a:connect(text)
      assert.is_nil(pipe)
      assert.is_true(code == "EINVAL" or code == "ENOTSUP")
      assert.is_true(#message < 400)
    end
    assert.is_true(took < 3 * SLOW, ("it took %.1f s"):format(took))
    assert.equal(links, #a:signal_state().brokers)
  end))

  -- The first bytes that a peer of ours sends.
  local function client_hello(identity)
    local heard, server = p2pd.channel(1), luv.new_tcp()
    assert(server:bind("127.0.0.1", 0))
    server:listen(1, function()
      local client = luv.new_tcp()
      server:accept(client)
      client:read_start(function(_, bytes)
        client:close()
        if bytes then heard:send(bytes) end
      end)
    end)
    core.pipe.dial { identity = identity, ip = "127.0.0.1", port = server:getsockname().port, timeout = 5 }
    server:close()
    return heard:recv(5)
  end

  it("who come to the port with garbage, half a hello, nothing, or a drip do not keep a peer out", run(function()
    local b <close> = two:node "b"
    local hello
    do
      local identity <close> = assert(core.identity.open { path = two.folder .. "/hello.pem" })
      hello = assert(client_hello(identity))
    end
    assert.is_true(#hello > 100)
    local before, sockets, dripped = resident(), {}, 0
    local kinds = {
      function(socket) socket:write(("\255garbage\r\n\r\n\0"):rep(2000)) end,
      function(socket) socket:write "GET / HTTP/1.1\r\nHost: a\r\n\r\n" end,
      function(socket) socket:write(hello:sub(1, #hello // 2)) end,
      function() end,
      function(socket) socket:shutdown() end,
      function(socket)
        local place, timer = 0, luv.new_timer()
        timer:start(0, 10, function()
          place = place + 1
          if socket:is_closing() or place >= #hello then return timer:is_closing() or timer:close() end
          dripped = dripped + 1
          socket:write(hello:sub(place, place))
        end)
        sockets[#sockets + 1] = timer
      end,
    }
    for i = 1, 40 * #kinds do
      local socket = luv.new_tcp()
      sockets[#sockets + 1] = socket
      socket:connect("127.0.0.1", b.listener.port, function(failure)
        if failure or socket:is_closing() then return end
        socket:read_start(function(why, bytes)
          if (why or not bytes) and not socket:is_closing() then socket:close() end
        end)
        kinds[i % #kinds + 1](socket)
      end)
      if i % 20 == 0 then p2pd.sleep(0.005) end
    end
    p2pd.sleep(0.1)
    for _ = 1, 3 do
      local took = meet(b, "direct")
      assert.is_true(took < 0.5 * SLOW, ("it took %.2f s"):format(took))
    end
    assert.is_true(dripped > 100)
    assert.is_true(b.listener:stats().failed >= 40)
    assert.is_true(resident() - before < 40 * MIB)
    assert.equal(0, #b.arrived)
    for _, socket in ipairs(sockets) do
      if not socket:is_closing() then socket:close() end
    end
  end))

  -- Somebody with a key and a link to the broker, who says what he likes.
  local someone = {}
  someone.__index = someone

  local function stranger(name)
    local identity = assert(core.identity.open { path = ("%s/%s.pem"):format(two.folder, name) })
    local signal = core.signal.new { identity = identity }
    local link = assert(signal:link { ip = two.broker.host, port = two.broker.port })
    return setmetatable({ identity = identity, signal = signal, link = link }, someone)
  end

  function someone:say(to, body)
    if type(body) == "table" then body = cjson.encode(body) end
    return assert(self.signal:send(to, body, { self.link }))
  end

  function someone:__close()
    self.signal:close()
    self.identity:close()
  end

  -- An address of his, at the port.
  function someone:address(port, like)
    return assert(core.address.format {
      signal = { 0 }, ipv6 = {}, node_id = self.identity:id(), machine_id = like.parsed.machine_id,
      ipv4 = { {
        netiface_index = 1, if_index = 0, external = "127.0.0.1", internal = "127.0.0.1", port = port, nat = "open",
        delta = "na", delta_value = 0,
      } },
    })
  end

  local function id() return core.identity.random(16) end

  -- Counts who comes to a port of ours.
  local function watched_port()
    local self, server = { count = 0 }, luv.new_tcp()
    assert(server:bind("127.0.0.1", 0))
    server:listen(64, function()
      local client = luv.new_tcp()
      server:accept(client)
      self.count = self.count + 1
      client:close()
    end)
    self.port = server:getsockname().port
    return setmetatable(self, { __close = function() server:close() end })
  end

  it("who send sealed nonsense are not answered, and nothing of it is believed", run(function()
    local b <close> = two:node "b"
    local port <close> = watched_port()
    local mallory <close> = stranger "mallory"
    local from, to = mallory:address(port.port, b), b:id()
    local bodies = {
      "", "\0", "{", "[", "nul", "null", "true", "7", "1e999", "NaN", '"text"', "[]", "{}", "\255\254", "{\"kind\":",
      ("["):rep(8000), ('{"a":'):rep(1500), ("["):rep(4000) .. ("]"):rep(4000), '{"kind":"' .. ("x"):rep(7900) .. '"}',
      ("9"):rep(8000), '{"kind":"reverse"}{"kind":"reverse"}', '{"kind":"reverse","kind":7}', '{"":{"":{"":[]}}}',
    }
    local good = { kind = "reverse", id = id(), from = from, token = id() }
    local wrong = {
      true, 7, 1.5, -1, {}, { 1, 2 }, { a = { b = 1 } }, cjson.null, "", "\0\27[31m", ("x"):rep(2000), from,
    }
    for field in pairs(good) do
      if field ~= "token" then
        for _, value in ipairs(wrong) do
          if not (field == "from" and value == from) then
            local body = { kind = good.kind, id = id(), from = from, token = id() }
            body[field] = value
            bodies[#bodies + 1] = cjson.encode(body)
          end
        end
      end
    end
    for _, value in ipairs(wrong) do -- replies that nobody asked for
      for _, kind in ipairs { "reply", "refused", "clock" } do
        bodies[#bodies + 1] = cjson.encode { kind = kind, re = value, id = id(), code = value, message = value }
      end
    end
    for kind in ("../reverse dir\0ect stagger/ **"):gmatch "%S+" do
      bodies[#bodies + 1] = cjson.encode { kind = kind, id = id(), from = from, token = id() }
    end
    local others = b:address() -- a sender is who signed, not who he says he is
    bodies[#bodies + 1] = cjson.encode { kind = "reverse", id = id(), from = others, token = id() }
    for _, body in ipairs(bodies) do
      mallory:say(to, body)
      p2pd.sleep(0.006)
    end
    p2pd.sleep(0.1)
    assert.equal(#bodies, b:signal_state().counters.accepted) -- all were heard
    local reply = mallory.signal:recv(0.05)
    assert.is_nil(reply and reply.body)
    for kind in ("direct stagger warp p2pd.strategies.reverse refused clock"):gmatch "%S+" do -- no strategy, but names
      mallory:say(to, { kind = kind, id = id(), from = from, token = id() })
      local said = cjson.decode(assert(mallory.signal:recv(2)).body)
      assert.same({ "refused", "ENOTSUP" }, { said.kind, said.code })
    end
    assert.equal(0, port.count)
    assert.equal(0, #b.arrived)
    assert.is_true(meet(b, "reverse") < 1 * SLOW)
  end))

  it("who ask with a token of the wrong form are refused, and no packet leaves", run(function()
    local b <close> = two:node "b"
    local port <close> = watched_port()
    local wrong = {
      false, true, 7, {}, { "a" }, "", "0", id():sub(2), id() .. "0", ("g"):rep(32), ("\0"):rep(32), ("0"):rep(7000),
      (" "):rep(32), "0x" .. id():sub(3),
    }
    for i, token in ipairs(wrong) do
      local mallory <close> = stranger("token" .. i)
      local request = { kind = "reverse", id = id(), from = mallory:address(port.port, b), token = token or nil }
      mallory:say(b:id(), request)
      local reply = cjson.decode(assert(mallory.signal:recv(2)).body)
      assert.same({ kind = "refused", re = request.id, code = "EINVAL" },
        { kind = reply.kind, re = reply.re, code = reply.code })
    end
    assert.equal(0, port.count)
    assert.is_true(meet(b, "reverse") < 1 * SLOW)
  end))

  it("cannot answer in another's name, and what a peer answers is shown as the little text that it is", run(function()
    local a <close> = two:node "a"
    local mallory <close> = stranger "mallory"
    local peer <close> = stranger "peer"
    local port <close> = watched_port()
    local connecting = p2pd.spawn(function()
      return a:connect(peer:address(port.port, a), { strategies = { "reverse" }, timeout = 5 })
    end)
    local request = cjson.decode(assert(peer.signal:recv(5)).body)
    mallory:say(a:id(), { kind = "refused", re = request.id, code = "EFAKE", message = "by mallory" })
    p2pd.sleep(0.1)
    assert.is_true(connecting:status() == "parked")
    local loud = "\27[31mred\n\0\255" .. ("x"):rep(5000)
    peer:say(a:id(), { kind = "refused", re = request.id, code = "EINVAL", message = loud })
    local pipe, message, code = connecting:wait(5)
    assert.is_nil(pipe)
    assert.equal("EINVAL", code)
    assert.matches("red", message)
    assert.is_nil(message:find "[%c\255]")
    assert.is_true(#message < 1000)
    assert.equal(0, port.count)
  end))

  it("with many keys do not make a node knock at somebody else's door", run(function()
    local b <close> = two:node "b"
    local port <close> = watched_port()
    for i = 1, 25 do
      local mallory <close> = stranger("many" .. i)
      for _ = 1, 2 do
        mallory:say(b:id(), { kind = "reverse", id = id(), from = mallory:address(port.port, b), token = id() })
      end
      p2pd.sleep(0.01)
    end
    p2pd.sleep(0.3)
    assert.is_true(port.count >= 1 and port.count <= 8, port.count .. " connections were made")
  end))

  it("are refused when a node is opened with what makes no sense", run(function()
    local function refused(message, options)
      assert.has_error(function() p2pd.node(options) end, message)
    end
    refused("option 'bind' is no IP address", { bind = "nowhere" })
    refused("option 'port' is not a whole number from 0 to 65535", { port = 1.5 })
    refused("option 'port' is not a whole number from 0 to 65535", { port = 65536 })
    refused("option 'key' is a number, not a string", { key = 7 })
    refused("unknown option 'keys'", { keys = "x" })
  end))
end)

describe("brokers that behave badly", function()
  local children, servers = {}, {}

  setup(function()
    two = pair.new()
    for _, mode in ipairs { "silent", "drop", "garbage", "flood" } do
      servers[mode], children[mode] = hostile_broker(mode, 10000)
    end
    servers.good = { host = two.broker.host, port = two.broker.port }
  end)
  teardown(function()
    for _, child in pairs(children) do child.stop() end
    two:close()
  end)

  local function with(...)
    local list = {}
    for i, name in ipairs { ... } do list[i] = servers[name] end
    return { mqtt = list, stun = {}, ntp = {} }
  end

  it("cost no time beside a good one", run(function()
    local settings = with("silent", "drop", "good")
    local took, b = seconds_of(two.node, two, "b", { settings = settings })
    local _ <close> = b
    assert.is_true(took < 0.5 * SLOW, ("the node took %.2f s"):format(took))
    for _ = 1, 3 do
      took = meet(b, "reverse", settings)
      assert.is_true(took < 0.5 * SLOW, ("reverse took %.2f s"):format(took))
    end
    local ok = {}
    for _, broker in ipairs(b:signal_state().brokers) do ok[broker.port] = broker.ok end
    assert.is_true(ok[servers.good.port])
    assert.is_false(ok[servers.silent.port])
  end))

  it("may pour out 10,000 messages a second: reverse works by another, in bounded memory", run(function()
    local settings = with("flood", "good")
    local b <close> = assert(two:node("b", { settings = settings }))
    p2pd.sleep(0.5)
    local before, worst = resident(), 0
    for _ = 1, 5 do worst = math.max(worst, (meet(b, "reverse", settings))) end
    assert.is_true(worst < 1 * SLOW, ("reverse took %.2f s"):format(worst))
    local counters = b:signal_state().counters
    assert.is_true(counters.limited > 2000, "there was no flood")
    assert.is_true(resident() - before < 40 * MIB)
  end))

  it("may be all that there are: direct still works, and the node says what is wrong", run(function()
    local settings = with("silent", "garbage")
    local took, b, notices = seconds_of(two.node, two, "b", { settings = settings })
    local _ <close> = b
    assert.is_true(took < 4 * SLOW, ("the node took %.2f s"):format(took))
    assert.matches("no broker can be reached", notices[#notices]) -- another one may be that its port is in use
    assert.is_true(meet(b, "direct", { mqtt = {}, stun = {}, ntp = {} }) < 0.5 * SLOW)
  end))
end)
