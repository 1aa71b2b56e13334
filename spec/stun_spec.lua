local core = require "p2pd.core"
local coturn = require "spec.support.coturn"
local luv = require "luv"
local run = require "spec.support.run"
local stun = require "p2pd.stun"
local task = require "p2pd.task"

-- A server of the test's own, on a free port of 127.0.0.1: `answer(request)` gives what it sends, or nil.
local function serve(answer)
  local socket = luv.new_udp()
  assert(socket:bind("127.0.0.1", 0))
  local self = setmetatable({ heard = 0, host = "127.0.0.1", port = socket:getsockname().port }, {
    __close = function() socket:close() end,
  })
  socket:recv_start(function(_, request, from)
    if not request then return end
    self.heard = self.heard + 1
    local text = answer(request, from)
    if text then socket:try_send(text, from.ip, from.port) end
  end)
  return self
end

-- A success with a MAPPED-ADDRESS (RFC 8489, 14.1): the one that is given, or as it is.
local function sees(ip, port)
  return function(request, from)
    local a, b, c, d = (ip or from.ip):match "(%d+)%.(%d+)%.(%d+)%.(%d+)"
    return "\1\1\0\12" .. request:sub(5, 20) .. (">I2I2I2I2BBBB"):pack(1, 8, 1, port or from.port, a, b, c, d)
  end
end

local function silence() end

local function refuses(request)
  return "\1\17\0\8" .. request:sub(5, 20) .. "\0\9\0\4\0\0\4\20" -- 420
end

local function seconds(f, ...)
  local start = task.now()
  f(...)
  return task.now() - start
end

describe("stun", function()
  local server

  setup(function() server = coturn.start() end)
  teardown(function() server:stop() end)

  describe("sockets", function()
    it("learn an address from a real server, as often as they ask", run(function()
      local socket <close> = assert(stun.socket { ip = "127.0.0.1" })
      local tasks <close> = task.group()
      for _ = 1, 50 do
        tasks:spawn(function()
          local found = assert(socket:ask(server.host, server.port))
          assert.equal("127.0.0.1", found.external_ip)
          assert.equal(socket.local_port, found.external_port) -- there is no NAT between
          assert.equal(server.port, found.from_port)
          assert.equal(1, found.requests)
          assert.is_true(found.rtt < 0.5)
        end)
      end
      for _, one in ipairs(tasks) do one:wait() end
      assert.same({ garbage = 0, strays = 0, foreign = 0, unreachable = 0 }, socket:stats())
      assert.equal("127.0.0.1", socket.local_ip)
      assert.equal(("stun socket (127.0.0.1, port %d)"):format(socket.local_port), tostring(socket))
    end))

    it("need no options", run(function()
      local socket <close> = assert(stun.socket())
      assert.equal("0.0.0.0", socket.local_ip)
      assert.equal(socket.local_port, assert(socket:ask(server.host, server.port)).external_port)
      assert.is_nil(socket.nothing)
    end))

    it("can be bound to a port and to an interface", run(function()
      local socket <close> = assert(stun.socket { ip = "127.0.0.1", device = "lo" })
      assert(socket:ask(server.host, server.port))
      local _, _, code = stun.socket { ip = "127.0.0.1", port = socket.local_port }
      assert.equal("EADDRINUSE", code)
      code = select(3, stun.socket { device = "no-such-thing" })
      assert.equal("ENODEV", code)
      local socketless, message, reason = stun.socket { ip = "203.0.113.9" }
      assert.is_nil(socketless)
      assert.equal("EADDRNOTAVAIL", reason)
      assert.matches("cannot bind to port 0 of 203%.0%.113%.9: ", message)
    end))

    it("ask again until the time is over, or once", run(function()
      local silent <close> = serve(silence)
      local socket <close> = assert(stun.socket())
      local found, message, code
      local took = seconds(function()
        found, message, code = socket:ask(silent.host, silent.port, { timeout = 0.4 })
      end)
      assert.is_nil(found)
      assert.equal("ETIMEDOUT", code)
      assert.matches("^ETIMEDOUT: asking STUN server 127%.0%.0%.1, port %d+: ", message)
      assert.is_true(took >= 0.39 and took < 0.8)
      assert.equal(3, silent.heard)
      socket:ask(silent.host, silent.port, { timeout = 0.25, retries = false })
      assert.equal(4, silent.heard)
    end))

    it("say at once that nobody is there", run(function()
      local port
      do
        local gone <close> = serve(silence)
        port = gone.port
      end
      local socket <close> = assert(stun.socket())
      local code
      assert.is_true(seconds(function() code = select(3, socket:ask("127.0.0.1", port)) end) < 0.5)
      assert.equal("ECONNREFUSED", code)
      assert.equal(1, socket:stats().unreachable)
    end))

    it("tell the server's error", run(function()
      local refusing <close> = serve(refuses)
      local socket <close> = assert(stun.socket())
      local found, message, code, number = socket:ask(refusing.host, refusing.port, { change = "both" })
      assert.is_nil(found)
      assert.equal("EPROTO", code)
      assert.equal(420, number)
      assert.matches("answered with error 420", message)
    end))

    it("pass over what comes from where it was not asked to", run(function()
      local ignorant <close> = serve(sees())
      local socket <close> = assert(stun.socket())
      local _, _, code = socket:ask(ignorant.host, ignorant.port, { change = "port", timeout = 0.05 })
      assert.equal("ETIMEDOUT", code)
      assert.equal(1, socket:stats().foreign)
    end))

    it("end what is asked when they are closed, and what is cancelled", run(function()
      local silent <close> = serve(silence)
      local socket = assert(stun.socket())
      local code
      local asking = task.spawn(function() code = select(3, socket:ask(silent.host, silent.port)) end)
      local cancelled = task.spawn(function() socket:ask(silent.host, silent.port) end)
      task.sleep(0.01)
      cancelled:cancel()
      socket:close()
      asking:wait()
      assert.equal("ECLOSED", code)
      socket:close()
      code = select(3, socket:ask(silent.host, silent.port))
      assert.equal("ECLOSED", code)
      code = select(3, socket:stats())
      assert.equal("ECLOSED", code)
      assert.matches(", closed%)$", tostring(socket))
    end))

    it("throw for arguments that are wrong", run(function()
      local socket <close> = assert(stun.socket())
      for _, wrong in ipairs {
        function() stun.socket { ip = "nowhere" } end, function() stun.socket { port = -1 } end,
        function() stun.socket { device = 7 } end, function() stun.socket { deviec = "lo" } end,
        function() socket:ask("nowhere", 1) end, function() socket:ask("127.0.0.1") end,
        function() socket:ask("127.0.0.1", 1, { change = "all" }) end,
        function() socket:ask("127.0.0.1", 1, { retries = 3 }) end,
        function() socket:ask("127.0.0.1", 1, { timeout = -1 }) end,
        function() socket:ask("127.0.0.1", 1, { tiemout = 1 }) end,
        function() core.stun.methods.socket.ask({}, "127.0.0.1", 1) end,
      } do
        local ok, message = pcall(wrong)
        assert.is_false(ok)
        assert.matches("spec/stun_spec.lua:%d+: ", message)
      end
    end))
  end)

  describe("connections", function()
    it("learn an address from a real server, and stay open", run(function()
      local connection <close> = assert(stun.connect { ip = server.host, port = server.port, local_ip = "127.0.0.1" })
      assert.equal("127.0.0.1", connection.external_ip)
      assert.equal("127.0.0.1", connection.local_ip)
      assert.equal(connection.local_port, connection.external_port)
      assert.is_true(connection.rtt < 0.5)
      for _ = 1, 3 do assert.equal(connection.external_port, assert(connection:ask()).external_port) end
      assert.matches("^stun connection %(127%.0%.0%.1, port %d+%)$", tostring(connection))
      connection:close()
      local _, _, code = connection:ask()
      assert.equal("ECLOSED", code)
    end))

    it("come from the port that was given, also after one that has ended", run(function()
      local first <close> = assert(stun.connect { ip = server.host, port = server.port, local_ip = "127.0.0.1" })
      local listener = luv.new_tcp()
      local from = { ip = "127.0.0.1", port = first.local_port }
      first:close()
      local elsewhere = luv.new_tcp()
      elsewhere:bind("127.0.0.1", 0)
      elsewhere:listen(1, function() elsewhere:accept(listener) end)
      local _, _, code = stun.connect {
        ip = "127.0.0.1", port = elsewhere:getsockname().port, timeout = 0.1,
        local_ip = from.ip, local_port = from.port,
      }
      assert.equal("ETIMEDOUT", code) -- it accepts and says nothing
      assert.equal(from.port, listener:getpeername().port)
      listener:close()
      elsewhere:close()
    end))

    it("tell when they break, and that they have not", run(function()
      local guests, answers = {}, true
      local listener = luv.new_tcp()
      listener:bind("127.0.0.1", 0)
      listener:listen(8, function()
        local guest = luv.new_tcp()
        listener:accept(guest)
        guests[#guests + 1] = guest
        guest:read_start(function(_, request)
          if not request or not answers then return end
          guest:write("\1\1\0\12" .. request:sub(5, 20) .. "\0\1\0\8\0\1\16\0\30\2\1\2")
        end)
      end)
      local where = { ip = "127.0.0.1", port = listener:getsockname().port }
      local connection <close> = assert(stun.connect(where))
      assert.equal("30.2.1.2", connection.external_ip)
      local _, message, code = connection:wait_down(0.02)
      assert.equal("ETIMEDOUT", code, message)
      assert(connection:ask()) -- it works still
      answers = false
      assert.equal("ETIMEDOUT", select(3, connection:ask(0.02)))
      local waiting = task.spawn(function() return connection:wait_down() end)
      task.sleep(0.01)
      assert.equal("parked", waiting:status())
      assert.equal("EBUSY", select(3, connection:ask()))
      assert.equal("EBUSY", select(3, connection:wait_down()))
      guests[1]:close()
      assert.equal("ECONNRESET", select(3, waiting:wait()))
      assert.equal("ECONNRESET", select(3, connection:wait_down()))
      answers = true
      local other = assert(stun.connect(where))
      local cancelled = task.spawn(function() other:wait_down() end)
      task.sleep(0)
      cancelled:cancel()
      waiting = task.spawn(function() return other:wait_down(5) end)
      task.sleep(0)
      other:close()
      assert.equal("ECLOSED", select(3, waiting:wait()))
      assert.equal("ECLOSED", select(3, other:wait_down()))
      guests[2]:close()
      listener:close()
    end))

    it("fail in time, and are closed then", run(function()
      local _, message, code = stun.connect { ip = "127.0.0.1", port = 1, timeout = 1 }
      assert.equal("ECONNREFUSED", code)
      assert.matches("^ECONNREFUSED: asking STUN server 127%.0%.0%.1, port 1: ", message)
      code = select(3, stun.connect { ip = "::1", port = 1, local_ip = "127.0.0.1" })
      assert.equal("EAFNOSUPPORT", code)
    end))

    it("end what is asked when they are closed, and when the task is cancelled", run(function()
      local guests = {}
      local silent = luv.new_tcp()
      silent:bind("127.0.0.1", 0)
      silent:listen(8, function()
        guests[#guests + 1] = luv.new_tcp()
        silent:accept(guests[#guests])
      end)
      local cancelled = task.spawn(function()
        stun.connect { ip = "127.0.0.1", port = silent:getsockname().port }
      end)
      task.sleep(0.02)
      cancelled:cancel()
      assert.equal(1, #guests)
      guests[1]:close()
      silent:close()
      local connection = assert(stun.connect { ip = server.host, port = server.port })
      cancelled = task.spawn(function() connection:ask() end)
      local code
      local asking = task.spawn(function()
        cancelled:cancel()
        code = select(3, connection:ask())
      end)
      task.sleep(0)
      connection:close()
      asking:wait()
      assert.equal("ECLOSED", code)
    end))

    it("throw for arguments that are wrong", run(function()
      assert.has_error(function() stun.connect { port = 1 } end)
      assert.has_error(function() stun.connect { ip = "127.0.0.1" } end)
      assert.has_error(function() stun.connect { ip = "127.0.0.1", port = 1, tiemout = 1 } end)
      assert.has_error(function() stun.connect() end)
    end))
  end)

  describe("a lookup", function()
    it("learns an address from a real server", run(function()
      local found = assert(core.stun.lookup { ip = server.host, port = server.port, timeout = 2 })
      assert.equal("127.0.0.1", found.external_ip)
      assert.equal("127.0.0.1", found.local_ip)
      assert.equal(found.local_port, found.external_port)
    end))

    it("asks from the port that was given", run(function()
      local first = assert(core.stun.lookup { ip = server.host, port = server.port, timeout = 2 })
      local again = assert(core.stun.lookup {
        ip = server.host, port = server.port, local_ip = "127.0.0.1", local_port = first.local_port, timeout = 2,
      })
      assert.equal(first.local_port, again.local_port)
      assert.equal(first.local_port, again.external_port)
    end))

    it("gives up in time when nobody answers", run(function()
      local silent <close> = serve(silence)
      local found, message, code
      assert.is_true(seconds(function()
        found, message, code = core.stun.lookup { ip = silent.host, port = silent.port, timeout = 0.1 }
      end) < 1)
      assert.is_nil(found)
      assert.equal("ETIMEDOUT", code)
      assert.truthy(message:find("^ETIMEDOUT: "))
      local cancelled = task.spawn(core.stun.lookup, { ip = silent.host, port = silent.port })
      task.sleep(0.01)
      cancelled:cancel()
    end))

    it("throws for arguments that are wrong", run(function()
      assert.has_error(function() core.stun.lookup { ip = "nowhere", port = 1 } end)
      assert.has_error(function() core.stun.lookup { ip = "127.0.0.1", port = 70000 } end)
      assert.has_error(function() core.stun.lookup { ip = "127.0.0.1", port = 1, tiemout = 1 } end)
    end))
  end)

  describe("the external address", function()
    it("is provisional with one answer and confirmed with two", run(function()
      local one <close> = serve(sees("203.0.113.7", 40000))
      local two <close> = serve(sees("203.0.113.7", 40000))
      local seen = {}
      local found = assert(stun.external {
        servers = { one, two }, on_answer = function(now) seen[#seen + 1] = now end,
      })
      assert.equal(2, #seen)
      assert.same({ "203.0.113.7", 40000 }, { seen[1].external_ip, seen[1].external_port })
      assert.same({ false, false }, { seen[1].confirmed, seen[1].disagreement })
      assert.is_nil(seen[1].same_port)
      assert.is_true(seen[1].confidence < 0.9)
      assert.same({ true, false, true }, { found.confirmed, found.disagreement, found.same_port })
      assert.is_true(found.confidence > 0.9)
      assert.is_true(found.local_port > 0)
      assert.equal(2, #found.answers)
      assert.equal(0, #found.failures)
    end))

    it("is what most see, and less sure when they disagree", run(function()
      local liar <close> = serve(sees "198.51.100.1")
      local one <close> = serve(sees("203.0.113.7", 1))
      local two <close> = serve(sees("203.0.113.7", 2))
      local found = assert(stun.external { servers = { liar, one, two } })
      assert.equal("203.0.113.7", found.external_ip)
      assert.same({ false, true, false }, { found.confirmed, found.disagreement, found.same_port })
      assert.is_true(found.confidence > 0.5 and found.confidence < 0.9)
      local three <close> = serve(sees("203.0.113.7", 2))
      found = assert(stun.external { servers = { liar, one, two, three } })
      assert.is_true(found.confirmed and found.disagreement)
      assert.is_true(found.confidence > 0.9)
      found = assert(stun.external { servers = { liar, one } })
      assert.equal(0.5, found.confidence)
    end))

    it("costs nothing more when servers are dead", run(function()
      local dead <close> = serve(silence)
      local one <close> = serve(sees())
      local two <close> = serve(sees())
      local nowhere = { host = "127.0.0.1", port = 1 }
      local found
      local took = seconds(function()
        found = assert(stun.external { servers = { dead, nowhere, nowhere, one, two } })
      end)
      assert.is_true(found.confirmed)
      assert.equal(2, #found.failures)
      assert.equal("ECONNREFUSED", found.failures[1].code)
      assert.is_true(took < 0.5, took)
      took = seconds(function()
        found = assert(stun.external { servers = { dead, dead, dead, one, two } })
      end)
      assert.is_true(found.confirmed)
      assert.is_true(took < 1, took) -- one more each 0.1 s
    end))

    it("comes from the socket that is given, and not twice from nobody", run(function()
      local socket <close> = assert(stun.socket { ip = "127.0.0.1" })
      local found = assert(stun.external { socket = socket, servers = { server }, timeout = 1 })
      assert.equal(socket.local_port, found.external_port)
      assert.is_false(found.confirmed)
      assert(socket:ask(server.host, server.port))
      local dead <close> = serve(silence)
      local none, message, code = stun.external { socket = socket, servers = { dead }, timeout = 0.1 }
      assert.is_nil(none)
      assert.equal("ETIMEDOUT", code)
      assert.matches("^ETIMEDOUT: ", message)
      code = select(3, stun.external { ip = "203.0.113.9", servers = { dead } })
      assert.equal("EADDRNOTAVAIL", code)
      code = select(3, stun.external { family = 6, servers = { dead }, timeout = 0.1 })
      assert.equal("EAI_NONAME", code)
    end))

    it("throws for arguments that are wrong", run(function()
      for _, wrong in ipairs {
        {}, { servers = {} }, { servers = { { host = "x" } } }, { servers = { { host = "x", port = 70000 } } },
        { servers = { server }, ip = "nowhere" }, { servers = { server }, tiemout = 1 },
        { servers = { server }, timeout = "1" },
      } do
        local ok, message = pcall(function() stun.external(wrong) end)
        assert.is_false(ok)
        assert.matches("^spec/stun_spec.lua:%d+: ", message)
      end
    end))
  end)
end)
