-- Relays at a real TURN server, and at one that misbehaves.
local core = require "p2pd.core"
local bad_turn = require "spec.support.bad_turn"
local coturn = require "spec.support.coturn"
local ends_module = require "spec.support.ends"
local luv = require "luv"
local program = require "spec.support.program"
local run = require "spec.support.run"
local task = require "p2pd.task"
local turn = require "p2pd.turn"

local eventually = program.eventually

local LOCAL = { "127.0.0.1" }

local function seconds(f, ...)
  local start = task.now()
  f(...)
  return task.now() - start
end

-- Waits until something is so that the loop makes so.
-- A plain TCP connection of a peer's to this place.
local function peer_to(ip, port)
  local stream, outcome = luv.new_tcp(), task.channel(1)
  assert(stream:connect(ip, port, function(failure) outcome:send { failure } end))
  local failure = outcome:recv(3)
  assert(failure and not failure[1], failure and failure[1])
  return setmetatable({ stream = stream }, { __close = function()
    if not stream:is_closing() then stream:close() end
  end })
end

-- A server on loopback that takes connections and says nothing.
local function listener()
  local self = { socket = luv.new_tcp(), accepted = {} }
  assert(self.socket:bind("127.0.0.1", 0))
  self.port = self.socket:getsockname().port
  self.socket:listen(8, function()
    local stream = luv.new_tcp()
    self.socket:accept(stream)
    self.accepted[#self.accepted + 1] = stream
  end)
  return setmetatable(self, { __close = function()
    for _, stream in ipairs(self.accepted) do stream:close() end
    self.socket:close()
  end })
end

describe("turn", function()
  local server, people

  setup(function()
    server = coturn.start { turn = true, names = "DNS:turn.test,IP:127.0.0.1" }
    people = ends_module.new()
  end)
  teardown(function()
    server:stop()
    people:close()
  end)

  local function by_tls()
    return {
      host = server.host, port = server.tls_port, transport = "tls", user = "lab", password = "lab", ca = server.ca,
    }
  end

  -- Both ends of a pipe through the relay: of the one that has allocated, and of the one that has come to it.
  local function pipes(allocation)
    local tasks <close> = task.group()
    local near
    local coming = tasks:spawn(function()
      near = assert(core.pipe.adopt {
        socket = assert(allocation:wait(3)), identity = people.bob, expect = people.alice:id(), role = "server",
        timeout = 3,
      })
    end)
    local far = assert(core.pipe.dial {
      identity = people.alice, ip = allocation.ip, port = allocation.port, expect = people.bob:id(), timeout = 3,
    })
    assert(far:commit(ends_module.ATTEMPT))
    coming:wait()
    return setmetatable({ near = near, far = far }, { __close = function()
      near:close()
      far:close()
    end })
  end

  for _, way in ipairs { "TCP", "TLS" } do
    local function place() return way == "TLS" and by_tls() or server end

    describe("over " .. way, function()
      it("is allocated, with who may come", run(function()
        local allocation <close> = assert(turn.allocate { server = place(), permit = LOCAL })
        assert.equal("127.0.0.1", allocation.ip)
        assert.is_true(allocation.port >= 30000 and allocation.port <= 32767)
        assert.equal("127.0.0.1", allocation.external_ip)
        assert.equal(600, allocation.lifetime)
        assert.equal(("127.0.0.1:%d"):format(place().port), allocation.server)
        assert.is_nil(allocation:failed())
        assert.same({ strays = 0, refused = 0, failed = 0 }, allocation:stats())
        assert.is_nil(tostring(allocation):find "lab")
      end))

      it("hands peers' connections out in their order, with all their bytes", run(function()
        local allocation <close> = assert(turn.allocate { server = place(), permit = LOCAL })
        for _ = 1, 3 do
          local peer <close> = peer_to(allocation.ip, allocation.port)
          local socket, ip, port = assert(allocation:wait(3))
          assert.equal("127.0.0.1", ip)
          assert.equal(peer.stream:getsockname().port, port)
          assert.equal(("127.0.0.1:%d"):format(port), socket.remote)
          assert.equal(port, socket.remote_port)
          assert.equal("socket (connected)", tostring(socket))
          socket:close()
        end
      end))

      -- One way after the other, then both at once, a little at a time: coturn stops for good where both ways are full.
      it("carries pipes", run(function()
        local allocation <close> = assert(turn.allocate { server = place(), permit = LOCAL })
        local both <close> = pipes(allocation)
        local tasks <close> = task.group()
        local chunk = ("0123456789abcdef"):rep(4096)
        local function pour(from, to, size)
          local sending = tasks:spawn(function()
            for _ = 1, size // #chunk do assert(from:send(chunk)) end
          end)
          local count = 0
          while count < size do
            local text = assert(to:recv(5))
            assert.equal(chunk:byte(count % #chunk + 1), text:byte())
            count = count + #text
          end
          sending:wait()
          assert.equal(size, count)
        end
        pour(both.near, both.far, 16 << 20)
        pour(both.far, both.near, 16 << 20)
        local echo = tasks:spawn(function()
          for text in function() return both.far:recv(5) end do assert(both.far:send(text)) end
        end)
        for _ = 1, 50 do
          assert(both.near:send(chunk))
          local count = 0
          while count < #chunk do count = count + #assert(both.near:recv(5)) end
          assert.equal(#chunk, count)
        end
        echo:cancel()
      end))

      it("goes to others' relays", run(function()
        local one <close> = assert(turn.allocate { server = place(), permit = LOCAL })
        local other <close> = assert(turn.allocate { server = place(), permit = LOCAL })
        local tasks <close> = task.group()
        local taken
        tasks:spawn(function() taken = assert(other:wait(3)) end)
        local socket, ip, port = assert(one:connect(other.ip, other.port, 3))
        assert.equal(other.ip, ip)
        assert.equal(other.port, port)
        tasks[1]:wait()
        assert.equal(("%s:%d"):format(one.ip, one.port), taken.remote)
        taken:close()
        socket:close()
      end))

      it("keeps what is not read where it is", run(function()
        local allocation <close> = assert(turn.allocate { server = place(), permit = LOCAL })
        local both <close> = pipes(allocation)
        local near, far = both.near, both.far
        local chunk, sent = ("x"):rep(1 << 20), 0
        local before = luv.resident_set_memory()
        local tasks <close> = task.group()
        for from, to in pairs { [near] = far, [far] = near } do
          local filling = tasks:spawn(function()
            while from:send(chunk) do sent = sent + 1 end
          end)
          filling:wait(0.5)
          assert.equal("parked", filling:status())
          local _ = to
        end
        assert.is_true(sent >= 2 and sent < 64)
        assert.is_true(luv.resident_set_memory() - before < 48 << 20)
      end))

      it("ends with its server's connection, and takes peers' with it", run(function()
        local allocation = assert(turn.allocate { server = place(), permit = LOCAL })
        local both <close> = pipes(allocation)
        local near, far = both.near, both.far
        allocation:close()
        assert.is_nil((near:recv(3)))
        assert.is_nil((far:recv(3)))
        allocation:close()
        local _, message, code = allocation:wait(1)
        assert.equal("ECLOSED", code)
        assert.equal("ECLOSED: the relay was closed", message)
        assert.equal("ECLOSED", select(2, allocation:failed()))
        assert.equal("ECLOSED", select(3, allocation:permit "127.0.0.1"))
        assert.equal("ECLOSED", select(3, allocation:connect("127.0.0.1", 1)))
      end))

      it("says what the server says, in words", run(function()
        local wrong = place()
        local function ask(more)
          local options = { server = setmetatable(more or {}, { __index = wrong }), permit = LOCAL, timeout = 3 }
          local copy = {}
          for _, key in ipairs { "host", "port", "transport", "user", "password", "ca" } do
            copy[key] = options.server[key]
          end
          options.server = copy
          return turn.allocate(options)
        end
        local none, message, code, number = ask { password = "wrong-secret" }
        assert.is_nil(none)
        assert.equal("EACCES", code)
        assert.equal(401, number)
        assert.matches("^EACCES: TURN server 127%.0%.0%.1:%d+ does not accept the user's name or password %(401%)$",
          message)
        assert.is_nil(message:find "secret")
        none, message, code = turn.allocate { server = place(), family = 6 }
        assert.is_nil(none)
        assert.equal("EAFNOSUPPORT", code)
        assert.matches("no address of that family", message)
        local allocation <close> = assert(turn.allocate { server = place(), permit = LOCAL })
        none, message, code, number = allocation:connect("127.0.0.1", 1, 3)
        assert.is_nil(none)
        assert.equal("EHOSTUNREACH", code)
        assert.equal(447, number)
        assert.matches("cannot connect to that peer", message)
        local there <close> = listener()
        local first <close> = assert(allocation:connect("127.0.0.1", there.port, 3))
        code = select(3, allocation:connect("127.0.0.1", there.port, 3))
        assert.equal("EALREADY", code)
        assert.equal("relayed", first.how)
      end))
    end)
  end

  it("lets in whom it permits later, and them alone", run(function()
    local allocation <close> = assert(turn.allocate { server = server })
    local stranger = luv.new_tcp()
    stranger:connect(allocation.ip, allocation.port, function() end)
    local none, message, code = allocation:wait(0.1)
    local port = stranger:getsockname().port
    stranger:close()
    assert.is_nil(none)
    assert.equal("ETIMEDOUT", code)
    assert.matches("the peer did not come", message)
    assert(allocation:permit("127.0.0.1", "127.0.0.2"))
    local second <close> = peer_to(allocation.ip, allocation.port)
    local socket <close> = assert(allocation:wait(3))
    assert.equal(second.stream:getsockname().port, socket.remote_port)
    assert.not_equal(port, socket.remote_port)
    local too_many = {}
    for i = 1, 31 do too_many[i] = "192.0.2." .. i end
    assert.equal("ENOBUFS", select(3, allocation:permit(table.unpack(too_many))))
    assert.equal("EAFNOSUPPORT", select(3, allocation:permit "2001:db8::1"))
    local mixed <close> = assert(turn.allocate { server = server, permit = { "2001:db8::1", "127.0.0.1" } })
    local third <close> = peer_to(mixed.ip, mixed.port)
    assert(mixed:wait(3)):close()
    assert.is_truthy(third)
  end))

  it("gives each waiting task a peer of its own", run(function()
    local allocation <close> = assert(turn.allocate { server = server, permit = LOCAL })
    local tasks <close> = task.group()
    local ports, began = {}, task.now()
    for _ = 1, 3 do
      tasks:spawn(function()
        local socket <close>, _, port = assert(allocation:wait(3))
        ports[port] = true
        return socket.remote
      end)
    end
    local cancelled = task.spawn(function() allocation:wait() end)
    task.sleep(0.01)
    cancelled:cancel()
    local peers = {}
    for i = 1, 3 do peers[i] = peer_to(allocation.ip, allocation.port) end
    for _, one in ipairs(tasks) do one:wait() end
    assert.is_true(task.now() - began < 1)
    for _, peer in ipairs(peers) do
      assert.is_true(ports[peer.stream:getsockname().port])
      peer.stream:close()
    end
  end))

  it("wants a certificate that is the server's", run(function()
    local place = by_tls()
    place.ca = nil
    local none, message, code = turn.allocate { server = place }
    assert.is_nil(none)
    assert.equal("ETLS", code)
    assert.matches("no secure connection: .*certificate", message)
  end))

  describe("at servers of other kinds", function()
    local udp_only, strict, dying

    setup(function()
      udp_only = coturn.start { turn = true, args = { "--no-tcp-relay" } }
      strict = coturn.start { turn = true, args = { "--user-quota=1" } }
      dying = coturn.start { turn = true }
    end)
    teardown(function()
      udp_only:stop()
      strict:stop()
      dying:stop()
    end)

    it("is no more when the server is no more, which all who wait hear", run(function()
      local allocation <close> = assert(turn.allocate { server = dying, permit = LOCAL })
      local tasks <close> = task.group()
      local codes = {}
      for i = 1, 2 do
        tasks:spawn(function() codes[i] = select(3, allocation:wait(3)) end)
      end
      task.sleep(0.01)
      dying.process:kill "sigkill"
      assert.is_true(seconds(function()
        for _, one in ipairs(tasks) do one:wait() end
      end) < 1)
      assert.same({ "ECONNRESET", "ECONNRESET" }, codes)
      local message, code = allocation:failed()
      assert.equal("ECONNRESET", code)
      assert.matches("has ended the connection", message)
      assert.equal("ECONNRESET", select(3, allocation:permit "127.0.0.1"))
      assert.matches("%(lost%)$", tostring(allocation))
    end))

    it("is none where only datagrams are relayed", run(function()
      local none, message, code = turn.allocate { server = udp_only }
      assert.is_nil(none)
      assert.equal("ENOTSUP", code)
      assert.matches("does not relay TCP %(RFC 6062%) %(442%)$", message)
    end))

    it("is none for who has too many", run(function()
      local allocation <close> = assert(turn.allocate { server = strict })
      local none, message, code = turn.allocate { server = strict }
      assert.is_nil(none)
      assert.equal("EBUSY", code)
      assert.matches("too many are open %(486%)$", message)
      assert.is_nil(allocation:failed())
    end))
  end)

  it("probes from outside", run(function()
    local there <close> = listener()
    assert.is_true(turn.probe(server, "127.0.0.1", there.port))
    assert.is_false((turn.probe(server, "127.0.0.1", 1)))
    local none, _, code = turn.probe({ host = "127.0.0.1", port = 1, user = "u", password = "p" }, "127.0.0.1", 1)
    assert.is_nil(none)
    assert.equal("ECONNREFUSED", code)
  end))

  it("of several servers takes the first that gives one, and leaves none open", run(function()
    local silent <close> = bad_turn.start { Allocate = function() end }
    local late <close> = bad_turn.start {
      Allocate = function(call, honest)
        local timer = luv.new_timer()
        timer:start(600, 0, function()
          timer:close()
          honest(call)
        end)
      end,
    }
    local allocation
    local took = seconds(function()
      allocation = assert(turn.race { servers = { silent, late, server }, permit = LOCAL })
    end)
    assert.equal(("127.0.0.1:%d"):format(server.port), allocation.server)
    assert.is_true(took >= 0.45 and took < 1)
    allocation:close()
    eventually(function() return late.connections[1].ended and silent.connections[1].ended end)
    local calls = {}
    local function together(call, honest)
      if not call.signed then return honest(call) end
      calls[#calls + 1] = call
      for i = 1, #calls == 2 and 2 or 0 do honest(calls[i]) end
    end
    local one <close> = bad_turn.start { Allocate = together }
    local other <close> = bad_turn.start { Allocate = together }
    allocation = assert(turn.race { servers = { one, other } })
    local loser = allocation.server_port == one.port and other or one
    eventually(function() return loser.connections[1].ended end)
    allocation:close()
    took = seconds(function()
      allocation = assert(turn.race { servers = {
        { host = "127.0.0.1", port = 1, user = "u", password = "p" }, { host = "127.0.0.1", port = 1 }, server, server,
      } })
    end)
    assert.is_true(took < 0.2)
    allocation:close()
    local none, _, code = turn.race { servers = {} }
    assert.is_nil(none)
    assert.equal("ENOTSUP", code)
    code = select(3, turn.race { servers = {
      { host = "127.0.0.1", port = 1, user = "u", password = "p" }, { host = "127.0.0.1", port = 2 },
    } })
    assert.equal("ECONNREFUSED", code)
  end))

  it("is told what makes sense", run(function()
    local function refuses(pattern, f, ...)
      local ok, message = pcall(f, ...)
      assert.is_false(ok)
      assert.matches(pattern, message)
      assert.matches("turn_spec", message)
    end
    refuses("unknown option 'ips'", function() turn.allocate { server = server, ips = 1 } end)
    refuses("'server' is no", function() turn.allocate { server = { host = "x" } } end)
    refuses("'server' is no", function() turn.allocate {} end)
    refuses("transport of 'server'", function()
      turn.allocate { server = { host = "x", port = 1, transport = "x" } }
    end)
    refuses("'servers' is missing", function() turn.race {} end)
    refuses("'permit' is no IP address", function() turn.allocate { server = server, permit = { "name" } } end)
    refuses("'family' is 4 or 6", function() turn.allocate { server = server, family = 5 } end)
    refuses("'ip' is no IP address", function() turn.probe(server, "name", 1) end)
    assert.is_false((pcall(turn.allocate, {
      server = { host = "127.0.0.1", port = server.port, user = ("u"):rep(600), password = "" },
    })))
    local allocation <close> = assert(turn.allocate { server = server })
    refuses("'ip' is no IP address", function() allocation:permit "name" end)
    refuses("'port' is no port", function() allocation:connect("127.0.0.1", 0) end)
    local none, message, code = turn.allocate { server = { host = "127.0.0.1", port = 1 } }
    assert.is_nil(none)
    assert.equal("EACCES", code)
    assert.matches("no user and password", message)
  end))

  -- What a server may do ---------------------------------------------------------------------------------------------

  describe("at a server that misbehaves", function()
    -- What comes of asking such a server: the server, and a relay, or message, code and number.
    local function try(manner)
      local bad = bad_turn.start(manner)
      local relay, message, code, number = turn.allocate { server = bad, permit = LOCAL, timeout = 0.3 }
      return setmetatable({ bad = bad, relay = relay, message = message, code = code, number = number }, {
        __close = function()
          if relay then relay:close() end
          getmetatable(bad).__close(bad)
        end,
      })
    end

    local function silence() end
    local function hang_up(call) call.connection:close() end
    local function saying(text)
      return function(call) call.connection:send(text) end
    end
    -- Challenges at first, then does something else.
    local function signed(f)
      return function(call, honest)
        if call.signed then return f(call, honest) end
        honest(call)
      end
    end

    it("gives up in time where it is silent", run(function()
      for _, manner in ipairs {
        { Allocate = silence }, { Allocate = signed(silence) }, { CreatePermission = silence },
      } do
        local took = seconds(function()
          local tried <close> = try(manner)
          assert.is_nil(tried.relay)
          assert.equal("ETIMEDOUT", tried.code)
          assert.matches("^ETIMEDOUT: TURN server 127%.0%.0%.1:%d+: ", tried.message)
          eventually(function() return tried.bad.connections[1].ended end)
        end)
        assert.is_true(took >= 0.29 and took < 0.6)
      end
      for _, manner in ipairs { { Connect = silence }, { ConnectionBind = silence } } do
        local tried <close> = try(manner)
        local took = seconds(function()
          assert.equal("ETIMEDOUT", select(3, tried.relay:connect("127.0.0.1", 80, 0.2)))
        end)
        assert.is_true(took >= 0.19 and took < 0.5)
        assert.is_nil(tried.relay:failed())
        assert.equal(1, tried.bad:count "Connect")
      end
    end))

    it("hears that it hangs up, at each step", run(function()
      for _, manner in ipairs {
        { connected = function(connection) connection:close() end }, { Allocate = hang_up },
        { Allocate = signed(hang_up) }, { CreatePermission = hang_up },
      } do
        local tried <close> = try(manner)
        assert.is_nil(tried.relay)
        assert.equal("ECONNRESET", tried.code)
        assert.matches("has ended the connection", tried.message)
      end
      local tried <close> = try { ConnectionBind = hang_up }
      assert.equal("ECONNRESET", select(3, tried.relay:connect("127.0.0.1", 80, 1)))
      assert.is_nil(tried.relay:failed())
      local other <close> = try { Connect = hang_up }
      assert.equal("ECONNRESET", select(3, other.relay:connect("127.0.0.1", 80, 1)))
      assert.equal("ECONNRESET", select(2, other.relay:failed()))
      assert.equal(0, other.bad:count "ConnectionBind")
    end))

    it("leaves one that speaks something else, or lies about lengths", run(function()
      local cookie = "\x21\x12\xa4\x42" .. ("i"):rep(12)
      for _, text in ipairs {
        "HTTP/1.1 400 Bad Request\r\n\r\n", "\1\3\xff\xfc" .. cookie, "\1\3\0\3" .. cookie .. "abc",
        "\1\3\0\4" .. cookie .. "\0\6\xff\xff", "\1\3\0\8" .. cookie .. "\0\x0d\0\3abc\0", ("\0"):rep(100000),
      } do
        local tried <close> = try { Allocate = saying(text) }
        assert.is_nil(tried.relay)
        assert.equal("EPROTO", tried.code)
        assert.matches("does not speak TURN as it should", tried.message)
      end
    end))

    it("passes over what answers nothing, but not for ever", run(function()
      local stray = bad_turn.message(2, 3, ("x"):rep(12), "")
      local tried <close> = try {
        Allocate = signed(function(call, honest)
          call.connection:send(stray:rep(10))
          honest(call)
        end),
      }
      assert.equal(10, tried.relay:stats().strays)
      tried.bad.control:send(stray:rep(1000))
      assert.equal("EPROTO", select(3, tried.relay:wait(3)))
      assert.equal("EPROTO", select(2, tried.relay:failed()))
    end))

    it("believes nobody who does not know the password", run(function()
      local relayed = bad_turn.attribute(0x16, bad_turn.endpoint("127.0.0.1", 9))
        .. bad_turn.attribute(0xd, "\0\0\2\x58")
      for _, key in ipairs { false, "another key here" } do
        local tried <close> = try {
          Allocate = signed(function(call) call:succeed(relayed, key) end),
        }
        assert.is_nil(tried.relay)
        assert.equal("EFORGED", tried.code)
        assert.matches("does not know this user's password", tried.message)
      end
      local unasked <close> = try { Allocate = function(call) call:succeed(relayed, false) end }
      assert.is_nil(unasked.relay)
      assert.equal("EFORGED", unasked.code)
      local other <close> = try {
        ConnectionBind = function(call) call:succeed("", false) end,
      }
      assert.equal("EFORGED", select(3, other.relay:connect("127.0.0.1", 80, 1)))
      assert.equal(1, other.bad:count "ConnectionBind")
    end))

    it("takes new nonces, but not for ever", run(function()
      local nonces = {}
      local function once(call, honest)
        if not call.signed or call.attributes[0x15] == "second" then return honest(call) end
        nonces[#nonces + 1] = call.attributes[0x15]
        call:challenge(438, "second")
      end
      local tried <close> = try { Allocate = once, ConnectionBind = once, Refresh = once }
      assert.equal("second", tried.bad.calls[#tried.bad.calls].attributes[0x15])
      assert.same({ "a nonce" }, nonces)
      assert(tried.relay:connect("127.0.0.1", 80, 1)):close()
      local endless <close> = try {
        Allocate = signed(function(call) call:challenge(438, "n" .. math.random(1000)) end),
      }
      assert.is_nil(endless.relay)
      assert.equal("EPROTO", endless.code)
      assert.equal(438, endless.number)
      assert.matches("stale", endless.message)
      assert.is_true(endless.bad:count "Allocate" < 6)
    end))

    it("asks for permissions again where they were asked for too soon", run(function()
      local soon
      local tried <close> = try {
        Allocate = signed(function(call) soon = call end),
        CreatePermission = function(call, honest)
          if not soon then return honest(call) end
          call:fail(400)
          bad_turn.Allocate(soon)
          soon = nil
        end,
      }
      assert.is_nil(tried.message)
      assert.equal(2, tried.bad:count "CreatePermission")
      assert.equal(2, tried.bad:count "Allocate")
    end))

    it("cannot be led into asking without end by challenges of no use", run(function()
      for _, f in ipairs {
        function(call) call:fail(401) end,
        function(call) call:fail(401, bad_turn.attribute(0x15, "nonce")) end,
        function(call) call:fail(401, bad_turn.attribute(0x14, ("r"):rep(900)) .. bad_turn.attribute(0x15, "n")) end,
      } do
        local tried <close> = try { Allocate = f }
        assert.is_nil(tried.relay)
        assert.equal("EPROTO", tried.code)
        assert.equal(1, tried.bad:count "Allocate")
      end
    end))

    it("goes on to another server once, and not into other networks", run(function()
      local to <close> = bad_turn.start()
      local function onward(ip, port)
        return { Allocate = function(call)
          call:fail(300, bad_turn.attribute(0x8023, bad_turn.endpoint(ip, port, true)))
        end }
      end
      local led <close> = try(onward("127.0.0.1", to.port))
      assert.equal(to.port, led.relay.server_port)
      local later <close> = try { Allocate = signed(onward("127.0.0.1", to.port).Allocate) }
      assert.equal(to.port, later.relay.server_port)
      local loop <close> = bad_turn.start(onward("127.0.0.1", to.port))
      for _, manner in ipairs {
        onward("127.0.0.1", loop.port), onward("192.168.1.1", 3478), onward("224.0.0.1", 3478), onward("::1", 3478),
        onward("127.0.0.1", 0), { Allocate = function(call) call:fail(300) end },
      } do
        local tried <close> = try(manner)
        assert.is_nil(tried.relay)
        assert.equal("ELOOP", tried.code)
        assert.equal(300, tried.number)
        assert.matches("sends us on to another server", tried.message)
      end
      assert.equal(1, loop:count "Allocate")
    end))

    it("wants a relay that peers can reach", run(function()
      local function granting(ip, port, lifetime)
        return { Allocate = signed(function(call)
          call:succeed((ip and bad_turn.attribute(0x16, bad_turn.endpoint(ip, port)) or "")
            .. bad_turn.attribute(0xd, (">I4"):pack(lifetime)))
        end) }
      end
      for _, manner in ipairs {
        granting(nil, nil, 600), granting("127.0.0.1", 0, 600), granting("::1", 9, 600), granting("127.0.0.1", 9, 0),
      } do
        local tried <close> = try(manner)
        assert.is_nil(tried.relay)
        assert.equal("EPROTO", tried.code)
      end
      local tried <close> = try(granting("10.0.0.1", 9, 600))
      assert.is_nil(tried.relay)
      assert.equal("EADDRNOTAVAIL", tried.code)
      assert.matches("relays at 10%.0%.0%.1 only", tried.message)
      local long <close> = try(granting("8.8.8.8", 9, 0xffffffff))
      assert.equal(86400, long.relay.lifetime)
    end))

    it("is renewed before it is over, with who may come, until the server has forgotten it", run(function()
      local lifetimes, forgotten = {}, false
      local tried <close> = try {
        Allocate = signed(function(call)
          call:succeed(bad_turn.attribute(0x16, bad_turn.endpoint("127.0.0.1", 9))
            .. bad_turn.attribute(0xd, (">I4"):pack(2)))
        end),
        Refresh = function(call, honest)
          lifetimes[#lifetimes + 1] = (">I4"):unpack(call.attributes[0xd])
          if forgotten then return call:fail(437) end
          if #lifetimes == 1 then return call:challenge(438, "another") end
          honest(call)
        end,
      }
      local began = task.now()
      eventually(function() return #lifetimes >= 2 and tried.bad:count "CreatePermission" >= 2 end) -- side by side
      assert.is_true(task.now() - began > 0.8)
      assert.same({ 2, 2 }, { lifetimes[1], lifetimes[2] })
      assert.is_nil(tried.relay:failed())
      forgotten = true
      assert.equal("ECONNRESET", select(3, tried.relay:wait(3)))
      local message = tried.relay:failed()
      assert.matches("has forgotten the relay %(437%)$", message)
    end))

    it("fetches a few peers, however many it says have come", run(function()
      local tried <close> = try {}
      for i = 1, 200 do tried.bad:attempt((">I4"):pack(i), "127.0.0.1", i) end
      tried.bad:attempt("same", "192.0.2.1", 80) -- who may not
      eventually(function() return tried.relay:stats().refused == 193 end)
      eventually(function() return tried.bad:count "ConnectionBind" == 8 end)
      assert.is_true(#tried.bad.connections <= 9) -- the one made ahead was one of them
      for _ = 1, 8 do assert(tried.relay:wait(1)):close() end
      assert.equal("ETIMEDOUT", select(3, tried.relay:wait(0.05)))
      tried.bad:attempt("more", "127.0.0.1", 80)
      assert(tried.relay:wait(1)):close()
      for i = 1, 2000 do tried.bad:attempt((">I4"):pack(i), "192.0.2.1", i & 0xffff) end
      assert.equal("EPROTO", select(3, tried.relay:wait(3)))
      assert.is_true(#tried.bad.connections <= 10)
    end))

    it("loses peers whose connection is not bound, and goes on", run(function()
      local tried <close> = try {
        ConnectionBind = function(call, honest)
          if call.attributes[0x2a] == "good" then return honest(call) end
          call:fail(400)
        end,
      }
      tried.bad:attempt "bad!"
      eventually(function() return tried.relay:stats().failed == 1 end)
      tried.bad:attempt "good"
      assert(tried.relay:wait(1)):close()
    end))

    it("can be closed while anything is asked", run(function()
      local tried <close> = try { Connect = silence, CreatePermission = function(call, honest)
        if call.connection.server:count "CreatePermission" == 1 then honest(call) end
      end }
      local tasks <close> = task.group()
      local codes = {}
      tasks:spawn(function() codes[1] = select(3, tried.relay:connect("127.0.0.1", 80)) end)
      tasks:spawn(function() codes[2] = select(3, tried.relay:permit "127.0.0.1") end)
      tasks:spawn(function() codes[3] = select(3, tried.relay:wait()) end)
      task.sleep(0.02)
      tried.relay:close()
      for _, one in ipairs(tasks) do one:wait() end
      assert.same({ "ECLOSED", "ECLOSED", "ECLOSED" }, codes)
      local bad <close> = bad_turn.start { Allocate = silence }
      local opening = task.spawn(function() turn.allocate { server = bad } end)
      eventually(function() return bad:count "Allocate" == 1 end)
      opening:cancel()
      eventually(function() return bad.connections[1].ended end)
    end))
  end)
end)
