-- check: alone
-- check: unsanitized (it measures times and shares; spec/c/test_router.c runs the same under sanitizers)
-- check: timeout 180
-- The lab's router between two real network namespaces, seen from outside by plain sockets and ping. What each kind of
-- NAT does to ports is for the model's own tests.
local core = require "p2pd.core"
local luv = require "luv"
local program = require "spec.support.program"
local router_world = require "spec.support.router_world"

local SERVER, SERVER6 = "30.1.0.1", "2c0f:30:1::1"
local EXTERNAL = "30.2.1.2"

describe("router", function()
  local world, host, internet
  local missing = router_world.missing()

  setup(function()
    if missing then return end
    world = router_world.start()
    host, internet = world.host, world.internet
  end)
  teardown(function()
    if world then world:stop() end
  end)

  local function test(name, body)
    it(name, function()
      if missing then pending(missing) end
      body()
    end)
  end

  local next_port = 7000

  -- A port that no test before has used, so that nothing of an earlier one is left to come to it.
  local function fresh_port()
    next_port = next_port + 1
    return next_port
  end

  local function near(wanted, seen, distance)
    assert(math.abs(seen - wanted) <= distance, ("%s is not within %s of %s"):format(seen, distance, wanted))
  end

  -- Sends from the host's socket to a server's, and gives the external endpoint that the server sees.
  local function seen_by(server, socket, port, ip)
    host:send(socket, "hello", ip or SERVER, port)
    local data, from, from_port = internet:recv(server, 2)
    assert.equal("hello", data)
    return from, from_port
  end

  describe("as a link", function()
    test("delays each direction by what was asked, within 1 ms", function()
      for _, delay_ms in ipairs { 0, 10, 33.5 } do
        world:configure { delay_ms = delay_ms }
        for _, ip in ipairs { SERVER, SERVER6 } do
          world:ping("-c1", "-W2", ip) -- neighbours learn each other's addresses
          local out, times = world:ping("-c20", "-i0.02", "-W2", ip)
          assert.equal(20, #times, out)
          near(2 * delay_ms + 0.5, times[5], 0.5) -- what is slower has waited for a processor that others had
        end
      end
    end)

    test("loses the share that was asked for, of 10,000 datagrams within half a percent", function()
      for _, loss in ipairs { 0, 0.05, 0.3 } do
        world:configure { loss = loss, seed = 11 }
        local port = fresh_port()
        local server, socket = internet:udp(SERVER, port), host:udp("0.0.0.0", 0)
        local came = 0
        for _ = 1, 100 do
          host:flood(socket, 100, SERVER, port)
          came = came + internet:count(server, 0.003)
        end
        near(10000 * (1 - loss), came, 50)
        host:close(socket)
        internet:close(server)
      end
    end)

    test("duplicates, changes the order, limits the rate, and can be cut", function()
      world:configure { duplicate = 1 }
      local port = fresh_port()
      local server, socket = internet:udp(SERVER, port), host:udp("0.0.0.0", 0)
      host:flood(socket, 50, SERVER, port)
      assert.equal(100, internet:count(server, 0.1))

      world:configure { reorder = 0.2, seed = 3 }
      host:flood(socket, 100, SERVER, port)
      local last, behind = 0, 0
      for _ = 1, 100 do
        local number = tonumber((internet:recv(server, 1)))
        if number < last then behind = behind + 1 end
        last = math.max(last, number)
      end
      assert.is_true(behind >= 5 and behind <= 40, behind)

      world:configure { rate_mbit = 8 }
      local listener = internet:listen(SERVER, port)
      local connection = host:connect(SERVER, port, 0, 2)
      local accepted = internet:accept(listener, 2)
      local began = luv.hrtime()
      host:write(connection, 500000)
      assert.equal(500000, internet:drain(accepted))
      local mbit = 500000 * 8 / ((luv.hrtime() - began) / 1e9) / 1e6
      assert.is_true(mbit > 6 and mbit < 9, mbit) -- with headers it is 8, but for the queue's beginning

      world:sh("router", "ip link set nat1 down; ip link set nat1 up") -- and goes on after this

      world:configure { up = false }
      host:flood(socket, 10, SERVER, port)
      assert.equal(0, internet:count(server, 0.1))
      assert.is_true(world:stats().out.down >= 10)
      world:configure {}
      host:flood(socket, 10, SERVER, port)
      assert.equal(10, internet:count(server, 0.1))
    end)
  end)

  describe("as a NAT", function()
    test("translates UDP and TCP, and lets answers in", function()
      world:configure "port-restricted/random@40000-40999"
      local port = fresh_port()
      local server, socket = internet:udp(SERVER, port), host:udp("0.0.0.0", 0)
      local ip, external = seen_by(server, socket, port)
      assert.equal(EXTERNAL, ip)
      assert.is_true(external >= 40000 and external <= 40999)
      internet:send(server, "answer", ip, external)
      assert.same({ "answer", SERVER, port }, { host:recv(socket, 2) })

      local listener = internet:listen(SERVER, port)
      local connection = assert(host:connect(SERVER, port, 0, 2))
      local accepted, peer, peer_port = internet:accept(listener, 2)
      assert.equal(EXTERNAL, peer)
      assert.is_true(peer_port >= 40000 and peer_port <= 40999)
      host:write(connection, 20000000)
      assert.equal(20000000, internet:drain(accepted))
      internet:write(accepted, 20000000)
      assert.equal(20000000, host:drain(connection))
    end)

    test("keeps what was not asked for out, as its type says", function()
      local port, other_port = fresh_port(), fresh_port()
      local server, other = internet:udp(SERVER, port), internet:udp(SERVER, other_port)
      local stranger = internet:udp("30.1.0.2", port)
      for text, passes in pairs {
        ["full-cone/equal"] = { true, true }, ["restricted/equal"] = { true, false },
        ["port-restricted/equal"] = { false, false }, ["symmetric/random"] = { false, false },
      } do
        world:configure(text)
        local socket = host:udp("0.0.0.0", 0)
        local ip, external = seen_by(server, socket, port)
        for place, from in ipairs { other, stranger } do
          internet:send(from, "unasked", ip, external)
          assert.equal(passes[place] and "unasked" or nil, (host:recv(socket, passes[place] and 2 or 0.05)), text)
        end
        host:close(socket)
      end
    end)

    test("answers an uninvited SYN with silence, RST or ICMP", function()
      for uninvited, code in pairs { drop = "ETIMEDOUT", reset = "ECONNREFUSED", unreachable = "ECONNREFUSED" } do
        world:configure { nat = "port-restricted/equal", uninvited = uninvited, delay_ms = 5 }
        local began = luv.hrtime()
        local connection, why = internet:connect(EXTERNAL, fresh_port(), 0, 0.3)
        assert.is_nil(connection)
        assert.equal(code, why)
        if uninvited ~= "drop" then near(12, (luv.hrtime() - began) / 1e6, 8) end
        local stats = world:stats()
        assert.is_true(stats.dropped["no-mapping"] >= 1)
        assert.equal(uninvited == "reset" and 1 or 0, stats.resets > 0 and 1 or 0)
        world:ask { ["do"] = "configure", options = { nat = "open", seed = fresh_port() } } -- counts begin anew
      end
    end)

    test("turns back what is meant for an inside host's external endpoint", function()
      for _, hairpin in ipairs { true, false } do
        world:configure { nat = "full-cone/random", hairpin = hairpin }
        local port = fresh_port()
        local server = internet:udp(SERVER, port)
        local a, b = host:udp("0.0.0.0", 0), host:udp("0.0.0.0", 0)
        local _, external_a = seen_by(server, a, port)
        local _, external_b = seen_by(server, b, port)
        host:send(a, "neighbour", EXTERNAL, external_b)
        local data, from, from_port = host:recv(b, hairpin and 2 or 0.05)
        if hairpin then
          assert.same({ "neighbour", EXTERNAL, external_a }, { data, from, from_port })
        else
          assert.is_nil(data)
        end
      end
    end)

    test("is one hop, and lets ICMP errors from outside in to whom they concern", function()
      world:configure "symmetric/random"
      assert.truthy(world:ping("-c1", "-W2", "-t1", SERVER):find("From 192.168.1.1 .*Time to live exceeded"))
      assert.truthy(world:ping("-c1", "-W2", "-t2", SERVER):find("bytes from 30.1.0.1: icmp_seq=1 ttl=63", 1, true))
      assert.truthy(world:ping("-c1", "-W2", "-t2", "30.9.9.9"):find("From 30.2.1.1 .*Time to live exceeded"))
      local out = world:ping("-c1", "-W2", "-t1", SERVER6)
      assert.truthy(out:find("From 2c0f:30:3:1::1 .*Time exceeded"), out)
    end)

    test("has several external addresses", function()
      world:configure { nat = "symmetric/random", addresses = 2, pairing = "arbitrary" }
      local port = fresh_port()
      local server, seen = internet:udp(SERVER, port), {}
      for _ = 1, 20 do
        local socket = host:udp("0.0.0.0", 0)
        seen[seen_by(server, socket, port)] = true
        host:close(socket)
      end
      assert.same({ [EXTERNAL] = true, ["30.2.1.3"] = true }, seen)
    end)

    test("holds 10,000 mappings", function()
      world:configure { nat = "symmetric/random" }
      local port = fresh_port()
      local server, socket = internet:udp(SERVER, port), host:udp("0.0.0.0", 0)
      local ip, external = seen_by(server, socket, port)
      for first = 20000, 29999, 100 do
        host:send(socket, "x", SERVER, { first, first + 99 })
        host:recv(socket, 0.001) -- time for the router
      end
      near(10001, world:stats().mappings, 50) -- a datagram may be lost where a buffer is full
      internet:send(server, "still there", ip, external)
      assert.equal("still there", (host:recv(socket, 2)))
      assert.same({ ip, external }, { seen_by(server, socket, port) })
    end)
  end)

  describe("beside the kernel's own translation", function()
    -- What miniupnpd does, in short: a port is mapped, and such packets go to the program's other address.
    local rules = [[
nft -f - <<END
table inet filter {
  chain prerouting {
    type nat hook prerouting priority dstnat
    iifname "wan0" udp dport 5555 dnat ip to 192.168.1.10:4444
  }
}
table inet p2pd {
  chain again {
    type filter hook prerouting priority raw
    iifname "nat0" ether saddr 02:00:00:00:00:04 notrack
  }
  chain mapped {
    type filter hook prerouting priority -90
    iifname { "lan0", "wan0" } ct status dnat meta mark set 1
  }
}
END
]]

    test("delays what is mapped, but does not translate it", function()
      if program.run({ "/bin/sh", "-c", "command -v nft" }).status ~= 0 then pending "nft is missing" end
      world:configure { nat = "symmetric/random", delay_ms = 20 }
      world:sh("router", rules)
      local server, socket = internet:udp(SERVER, fresh_port()), host:udp("0.0.0.0", 4444)
      local began = luv.hrtime()
      internet:send(server, "uninvited", EXTERNAL, 5555)
      assert.same({ "uninvited", SERVER, next_port }, { host:recv(socket, 2) })
      host:send(socket, "answer", SERVER, next_port)
      assert.same({ "answer", EXTERNAL, 5555 }, { internet:recv(server, 2) })
      assert.is_true(luv.hrtime() - began >= 40e6)
      assert.equal(0, world:stats().mappings)
      local _, external = seen_by(server, socket, next_port, SERVER)
      assert.equal(5555, external) -- of that connection; another one is translated by the program
      local other = internet:udp(SERVER, fresh_port())
      _, external = seen_by(other, socket, next_port)
      assert.not_equal(5555, external)
      world:sh("router", "nft flush ruleset")
    end)
  end)

  describe("as a firewall", function()
    test("lets IPv6 out, and in what was asked for", function()
      local port = fresh_port()
      local server, socket = internet:udp(SERVER6, port), host:udp("::", fresh_port())
      world:configure { ipv6 = "firewall" }
      internet:send(server, "unasked", "2c0f:30:3:1::10", next_port)
      assert.is_nil((host:recv(socket, 0.05)))
      local ip, seen_port = seen_by(server, socket, port, SERVER6)
      assert.same({ "2c0f:30:3:1::10", next_port }, { ip, seen_port })
      internet:send(server, "answer", ip, seen_port)
      assert.equal("answer", (host:recv(socket, 2)))

      world:configure { ipv6 = "open" }
      internet:send(server, "unasked", ip, seen_port)
      assert.equal("unasked", (host:recv(socket, 2)))

      world:configure { ipv6 = "none" }
      internet:send(server, "unasked", ip, seen_port)
      assert.is_nil((host:recv(socket, 0.05)))
      assert.is_true(world:stats().dropped["no-ipv6"] >= 1)
    end)
  end)

  -- What is said of a router holds for both versions.
  describe("with IPv6", function()
    test("answers an uninvited SYN with silence, RST or ICMP", function()
      -- RFC 4443, 3.1: administratively prohibited; of a SYN's connection Linux makes EACCES of it.
      for uninvited, code in pairs { drop = "ETIMEDOUT", reset = "ECONNREFUSED", unreachable = "EACCES" } do
        world:configure { nat = "port-restricted/equal", uninvited = uninvited }
        local connection, why = internet:connect("2c0f:30:3:1::10", fresh_port(), 0, 0.3)
        assert.is_nil(connection)
        assert.equal(code, why)
      end
    end)

    test("is blocked where IPv4 is", function()
      for _, ipv6 in ipairs { "firewall", "open" } do
        world:configure { nat = "blocked", ipv6 = ipv6, open_ports = { 80 } }
        local port = fresh_port()
        local server, socket = internet:udp(SERVER6, port), host:udp("::", 0)
        host:send(socket, "hello", SERVER6, port)
        assert.is_nil((internet:recv(server, 0.05)))
        internet:listen(SERVER6, port)
        assert.is_nil((host:connect(SERVER6, port, 0, 0.1)))
        local web = internet:listen(SERVER6, 80)
        assert.truthy((host:connect(SERVER6, 80, 0, 2)))
        internet:close(web)
        assert.is_true(world:stats().dropped.blocked >= 2)
      end
    end)

    test("forgets what is idle by the router's own times", function()
      world:configure { nat = "port-restricted/equal", udp = { timeout_s = 10 }, time_scale = 0.01 }
      local port = fresh_port()
      local server, socket = internet:udp(SERVER6, port), host:udp("::", 0)
      local ip, seen_port = seen_by(server, socket, port, SERVER6)
      assert.equal(1, world:stats().mappings_ipv6)
      internet:recv(server, 0.15)
      internet:send(server, "late", ip, seen_port)
      assert.is_nil((host:recv(socket, 0.05)))
      assert.equal(0, world:stats().mappings_ipv6)
    end)
  end)

  describe("as a process", function()
    test("tells what it did with each packet", function()
      world:configure "port-restricted/equal"
      local began, last = luv.hrtime(), 0
      local port = fresh_port()
      local server, socket = internet:udp(SERVER, port), host:udp("0.0.0.0", fresh_port())
      local external = ("%s:%d"):format(EXTERNAL, next_port)
      seen_by(server, socket, port)
      internet:connect(EXTERNAL, 9, 0, 0.05)
      local events = {}
      for _, event in ipairs(world:ask({ ["do"] = "trace", since = began }).events) do
        assert.is_true(event.number > last)
        last = event.number
        local ours = event.protocol == "udp" or event.destination == EXTERNAL .. ":9"
        if ours then events[#events + 1] = event end -- connections of other tests still try to end
      end
      assert.equal(2, #events)
      for place, event in ipairs {
        {
          direction = "out", protocol = "udp", source = "192.168.1.10:" .. next_port,
          destination = ("%s:%d"):format(SERVER, port), new_source = external, verdict = "pass",
          reason = "mapped-new", fate = "queued",
        },
        {
          direction = "in", protocol = "tcp", flags = "S", destination = EXTERNAL .. ":9", verdict = "drop",
          reason = "no-mapping", fate = "queued",
        },
      } do
        local seen = events[place]
        near(luv.hrtime(), seen.ns, 1e9) -- the clock of the whole machine
        for key, value in pairs(event) do assert.equal(value, seen[key], key) end
      end
    end)

    -- The events since then of what has come from this endpoint.
    local function events_of(source, began)
      local events = {}
      for _, event in ipairs(world:ask({ ["do"] = "trace", since = began }).events) do
        if event.source == source then events[#events + 1] = event end
      end
      return events
    end

    test("tells what the link did to what comes in", function()
      for fate, options in pairs { duplicated = { duplicate = 1 }, reordered = { reorder = 1 }, lost = { loss = 1 } } do
        local port = fresh_port()
        local server, socket = internet:udp(SERVER, port), host:udp("0.0.0.0", 0)
        world:configure "full-cone/equal"
        local ip, external = seen_by(server, socket, port)
        options.nat = "full-cone/equal"
        local began = luv.hrtime()
        assert.is_true(world:ask({
          ["do"] = "configure", options = options, external = { EXTERNAL }, inside = { "192.168.1.0/24" },
        }).ok)
        internet:send(server, "answer", ip, external)
        host:recv(socket, fate == "lost" and 0.05 or 2)
        luv.sleep(10) -- a copy, or what is held back, comes 3 ms later
        local events = events_of(("%s:%d"):format(SERVER, port), began)
        assert.equal(fate == "duplicated" and 2 or 1, #events)
        for _, event in ipairs(events) do
          assert.equal(fate, event.fate)
          assert.equal(fate == "lost" and "link" or "mapped", event.reason)
        end
      end
    end)

    test("tells of fragments by their addresses, also when the link loses them", function()
      for loss = 0, 1 do
        world:configure { nat = "full-cone/equal", loss = loss }
        local began, server = luv.hrtime(), internet:udp(SERVER, fresh_port())
        internet:send(server, ("x"):rep(4000), EXTERNAL, 9)
        host:recv(host:udp("0.0.0.0", 0), 0.05)
        local events = events_of(SERVER, began)
        assert.equal(3, #events) -- of 1500 bytes, at most
        for _, event in ipairs(events) do
          assert.same({ "other", SERVER, EXTERNAL }, { event.protocol, event.source, event.destination })
          assert.equal(loss == 1 and "link" or "unsupported", event.reason)
        end
        assert.equal(3, world:stats().dropped[loss == 1 and "link" or "unsupported"])
        world:ask { ["do"] = "configure", options = { nat = "open", seed = fresh_port() } } -- counts begin anew
      end
    end)

    test("keeps mappings when it is configured anew, unless they are flushed", function()
      world:configure "symmetric/random"
      local port = fresh_port()
      local server, socket = internet:udp(SERVER, port), host:udp("0.0.0.0", 0)
      local _, external = seen_by(server, socket, port)
      assert.is_true(world:ask({
        ["do"] = "configure", options = { nat = "symmetric/random", delay_ms = 1 }, external = { EXTERNAL },
        inside = { "192.168.1.0/24" },
      }).ok)
      assert.same({ EXTERNAL, external }, { seen_by(server, socket, port) })
      assert.equal(1, world:stats().mappings)
      world:configure "symmetric/random"
      assert.equal(0, world:stats().mappings)
    end)

    test("answers each line, also a bad one, and gives the id back", function()
      local function refused(question, part)
        local answer = world:ask(question)
        assert.is_false(answer.ok)
        assert.equal("EINVAL", answer.code)
        assert(answer.message:find(part, 1, true), answer.message)
        return answer
      end
      refused("text", "no JSON object")
      refused({}, "known: configure, stats, trace")
      assert.equal("a", refused({ ["do"] = "dance", id = "a" }, "'do' is dance").id)
      refused({ ["do"] = "configure", options = { nat = "round/random" } }, "unknown type 'round'")
      refused({ ["do"] = "configure", options = "open", inside = { "here" } }, "no list of prefixes")
      refused({ ["do"] = "configure", options = "open", inside = 5 }, "'inside' is no list")
      refused({ ["do"] = "configure", options = "open", external = { 5 } }, "'external' is no list")
      refused({ ["do"] = "configure", options = "symmetric/random" }, "cannot be configured so")
      refused({ ["do"] = "trace", since = -1 }, "'since'")
      assert.equal(7, world:ask({ ["do"] = "stats", id = 7 }).id)
    end)

    test("ends with its input, or by SIGTERM", function()
      local code = 'require("p2pd.lab.router")()'
      local it = program.run { program.path, "-e", code, input = '{"do":"stats"}\n' }
      assert.equal(0, it.status, it.err)
      assert.truthy(it.out:find("not configured yet", 1, true))
      it = program.run { program.path, "-e", code, input = '{"do":"configure"}\n' }
      assert.equal(0, it.status, it.err)
      assert.truthy(it.out:find '"code":"EN%u+"', it.out) -- there is no nat1 here
      local child <close> = program.start { program.path, "-e", code }
      child:write '{"do":"stats"}\n'
      child:expect "configured"
      child:kill "sigterm"
      assert.equal(143, child:wait())
    end)
  end)

  describe("as a binding", function()
    it("throws for arguments that are wrong", function()
      assert.has_error(function() core.router.open {} end)
      assert.has_error(function() core.router.open { device = 5 } end)
      assert.has_error(function() core.router.open { device = "lo", speed = 1 } end)
    end)

    test("throws for a configuration that is wrong, and says where", function()
      local router = core.router.open { device = "lo" }
      router:close() -- it reads what it is given all the same
      local function refused(part, configuration)
        local good = { nat = { type = "open" } }
        for key, value in pairs(good) do if configuration[key] == nil then configuration[key] = value end end
        local ok, message = pcall(router.configure, router, configuration)
        assert.is_false(ok)
        assert(tostring(message):find(part, 1, true), message)
      end
      local function with(nat)
        nat.type = nat.type or "full-cone"
        nat.delta = nat.delta or "equal"
        return { nat = nat }
      end
      assert.equal("ECLOSED", select(3, router:configure { nat = { type = "open" } }))
      refused("'in' is no table with 'dealy_ms'", { ["in"] = { dealy_ms = 1 } })
      refused("'udp' is no table with '1'", with { udp = { "open" } })
      refused("'nat' is no table with 'allocation'", with { allocation = "random" })
      refused("'inside' is no table", { inside = 5 })
      local list = {}
      for i = 1, 17 do list[i] = "10.0.0.0/8" end
      refused("'inside' is a list of more than 16", { inside = list })
      refused("prefixes like", { inside = { "10.0.0.0/33" } })
      refused("prefixes like", { inside = { "10.0.0.0/8\0" } })
      refused("IPv4 addresses", with { external = { "::1" } })
      refused("IPv4 addresses", with { external = { false } })
      refused("list of ports", with { open_ports = { "80" } })
      refused("full-cone/sideways with value 0", with { delta = "sideways" })
      refused("no type", with { udp = { delta = "random" } })
      refused("no number", with { noise = 1e9 })
      refused("no whole number", with { table = 1.5 })
      refused("'filtering' is no 'all'", with { tcp = { filtering = "all" } })
    end)

    test("asks no metamethod how long a list is", function()
      local router = core.router.open { device = "lo" }
      router:close()
      for _, length in ipairs { -1, 3, 1 << 40, 0.5 } do
        local list = setmetatable({}, { __len = function() return length end })
        assert.equal("ECLOSED", select(3, router:configure {
          nat = { type = "open", external = list, open_ports = list }, inside = list,
        }))
      end
    end)

    test("holds the texts that it reads until it has read them", function()
      local router = core.router.open { device = "lo" }
      router:close()
      local made = setmetatable({}, { __index = function(_, key) -- nobody else holds what it gives
        collectgarbage()
        return key == "type" and ("%smetric"):format "sym" or key == "delta" and ("%sdom"):format "ran" or nil
      end })
      assert.equal("ECLOSED", select(3, router:configure { nat = made }))
      assert.has_error(function() router:configure { nat = { type = 12, delta = 34 } } end)
    end)

    it("says what is missing", function()
      local router, message, code = core.router.open { device = "no-such-device" }
      assert.is_nil(router)
      assert.equal("ENODEV", code)
      assert.truthy(message:find("no-such-device", 1, true))
    end)
  end)
end)
