-- p2pd.nat: what it makes of recorded observations, and how often it is right over core.nat_model, in virtual time. The
-- same over the lab's real routers is spec/lab_natcheck_spec.lua.
local cjson = require "cjson"
local core = require "p2pd.core"
local nat = require "p2pd.nat"
local nat_world = require "spec.support.nat_world"
local run = require "spec.support.run"
local task = require "p2pd.task"

local SEEDS = os.getenv "P2PD_SANITIZED" and 2 or 20
local VALUES = { 1, 2, 3, -1, 10, -4, 7, 128 } -- by seed
local TRANSPORTS = { "udp", "tcp" }
local ROUND_TRIP = 0.02
local SURE = 0.9

local KINDS = { "open", "udp-firewall", "blocked" }
for _, kind in ipairs { "full-cone", "restricted", "port-restricted", "symmetric" } do
  for _, delta in ipairs { "equal", "preserving", "independent", "dependent", "random" } do
    KINDS[#KINDS + 1] = kind .. "/" .. delta
  end
end

-- What no packet can tell apart has one name: see lua/doc/nat.md.
local function class_of(kind, delta, value)
  if kind == "open" or kind == "udp-firewall" or kind == "blocked" then return kind end
  if delta == "dependent" and value == 1 then delta = "preserving" end
  if kind == "symmetric" and (delta == "equal" or delta == "preserving") then kind = "port-restricted" end
  local steps = delta == "independent" or delta == "dependent"
  return ("%s/%s%s"):format(kind, delta, steps and (":%d"):format(value) or "")
end

local function found_class(found)
  return class_of(found.nat, found.delta, found.value)
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

local function check(world, options)
  local given = { ip = world.ip, servers = world.servers, means = world.means }
  for key, value in pairs(options or {}) do given[key] = value end
  local began = task.now()
  local found = assert(nat.check(given))
  assert.equal(0, world.opened, "sockets were left open")
  return found, task.now() - began
end

-- The nature of a world by a text, "symmetric/independent:3".
local function nature(text, more)
  local kind, delta, value = text:match "^([^/:]+)/?([^:]*):?(.*)$"
  local made = { type = kind, delta = delta ~= "" and delta or nil, value = math.tointeger(tonumber(value)) }
  for key, item in pairs(more or {}) do made[key] = item end
  return made
end

describe("nat.classify", function()
  it("knows the lab's routers from what was recorded behind them", function()
    local rows = cjson.decode(read "spec/vectors/nat_seen.json")
    assert(#rows > 0)
    for _, row in ipairs(rows) do
      local made = nature((row.nat:gsub("@.*", "")))
      local found = nat.classify(row.observations)
      assert.equal(class_of(made.type, made.delta, made.value), found_class(found), row.observations.transport)
      if row.observations.transport == "udp" then assert(found.confidence >= SURE, row.nat) end
      assert.is_nil(found.liar)
      local first, last = row.nat:match "@(%d+)%-(%d+)$"
      if first then
        assert.near(tonumber(first), found.range[1], 2000)
        assert.near(tonumber(last), found.range[2], 2000)
      end
    end
  end)

  it("refuses what are no observations", function()
    local good = { ip = "192.168.1.2", seen = {} }
    assert.equal("blocked", nat.classify(good).nat)
    for key, value in pairs {
      ip = "here", seen = 5, tests = "none", transport = "icmp", colour = "red",
    } do
      local bad = { ip = good.ip, seen = good.seen }
      bad[key] = value
      assert.has_error(function() nat.classify(bad) end)
    end
    for _, entry in ipairs {
      5, {}, { server_ip = "30.1.0.3", server_port = 70000 }, { server_ip = "30.1.0.3", server_port = 1.5 },
      { server_ip = "30.1.0.3", tries = -1 }, { server_ip = "30.1.0.3", external_ip = "there" },
    } do
      assert.has_error(function() nat.classify { ip = good.ip, seen = { entry } } end)
    end
    assert.has_error(function() nat.classify { ip = good.ip, tests = { { server_ip = "30.1.0.3" } } } end)
  end)
end)

describe("nat.check", function()
  -- One after another: 20 seeds of each kind and transport.
  local function bar(options)
    local cells, right, sure, slowest, wrong = 0, 0, 0, 0, {}
    for _, kind in ipairs(KINDS) do
      for _, transport in ipairs(TRANSPORTS) do
        for seed = 1, SEEDS do
          local made = nature(kind)
          made.value = VALUES[seed % #VALUES + 1]
          local world = nat_world.new { nat = made, rtt = ROUND_TRIP, loss = options.loss, noise = options.noise,
            seed = seed }
          task.sleep(1) -- of noise
          local found, seconds = check(world, { transport = transport })
          local expected = class_of(made.type, made.delta, made.value)
          cells, slowest = cells + 1, math.max(slowest, seconds)
          if found_class(found) == expected then
            right = right + 1
          else
            sure = sure + (found.confidence >= SURE and 1 or 0)
            wrong[#wrong + 1] = ("%s %s: %s (%.2f)"):format(transport, expected, found_class(found), found.confidence)
          end
        end
      end
    end
    print(("nat: %d of %d right (%.2f %%), %d wrong and sure, at most %.3f s"):format(right, cells,
      100 * right / cells, sure, slowest))
    return right / cells, sure, slowest, table.concat(wrong, "; ")
  end

  it("is right of 99 % of all kinds by both transports, and never sure of what is wrong", run.virtual(function()
    math.randomseed(4)
    local share, sure, slowest, wrong = bar { loss = 0.02, noise = 5 }
    assert(share >= 0.99, wrong)
    assert.equal(0, sure, wrong)
    assert(slowest <= 12 * ROUND_TRIP + 1.5, slowest)
  end))

  it("takes at most 1.2 s without loss, silent filters included", run.virtual(function()
    local share, _, slowest, wrong = bar { noise = 5 }
    assert.equal(1, share, wrong)
    assert(slowest <= 1.2, slowest)
  end))

  it("keeps the time on long ways, too", run.virtual(function()
    for _, rtt in ipairs { 0.1, 0.3, 0.6 } do
      for _, transport in ipairs(TRANSPORTS) do
        for _, kind in ipairs { "symmetric/random", "full-cone/dependent:3", "port-restricted/equal", "open" } do
          local world = nat_world.new { nat = nature(kind), rtt = rtt, loss = 0.02, noise = 5, seed = 3 }
          local found, seconds = check(world, { transport = transport })
          local made = nature(kind)
          assert.equal(class_of(made.type, made.delta, made.value), found_class(found))
          assert(seconds <= 12 * rtt + 1.5, seconds)
        end
      end
    end
  end))

  it("is sure of UDP, and half sure of TCP's filter", run.virtual(function()
    for _, kind in ipairs(KINDS) do
      local udp = check(nat_world.new { nat = nature(kind) })
      assert(udp.confidence >= SURE, kind)
      local tcp = check(nat_world.new { nat = nature(kind) }, { transport = "tcp" })
      local seen = tcp.nat == "symmetric" or tcp.nat == "blocked"
      assert(seen and tcp.confidence >= SURE or not seen and tcp.confidence <= 0.5, kind)
      assert(tcp.delta_confidence >= SURE, kind)
    end
  end))

  it("tells mapping and filtering by the RFC's words", run.virtual(function()
    local words = { "endpoint-independent", "address-dependent", "address-and-port-dependent" }
    for _, mapping in ipairs(words) do
      for _, filtering in ipairs(words) do
        local made = nature("full-cone/random", { mapping = mapping, filtering = filtering })
        local found = check(nat_world.new { nat = made })
        assert.same({ mapping, filtering }, { found.mapping, found.filtering })
        assert.equal("30.2.1.2", found.external)
      end
    end
  end))

  -- Three servers in two places, of which one lies.
  it("outvotes a server that lies, names it, and is less sure", run.virtual(function()
    local lies = {
      function() return "30.66.66.66", 6666 end,
      function() return "30.2.1.2", math.random(1024, 65535) end,
      function(ip, port) return ip, port ~ 0x5555 end,
      function() return ("30.9.%d.%d"):format(math.random(0, 255), math.random(0, 255)), math.random(1, 65535) end,
    }
    local cells, right, named = 0, 0, 0
    for _, kind in ipairs(KINDS) do
      for _, liar in ipairs { "30.1.0.3", "30.1.0.9" } do
        for seed, lie in ipairs(lies) do
          for _, transport in ipairs(TRANSPORTS) do
            local made = nature(kind)
            made.value = 3
            local world = nat_world.new {
              nat = made, alone = { "30.1.0.9" }, liars = { [liar] = lie }, seed = seed, loss = 0.02, noise = 5,
            }
            local found = check(world, { transport = transport })
            cells = cells + 1
            local good = found_class(found) == class_of(made.type, made.delta, made.value)
            if good then right = right + 1 end
            if not good then assert(found.confidence < SURE, kind .. " as " .. found_class(found)) end
            if found.liar then
              assert.equal(liar, found.liar)
              assert(found.confidence < SURE)
              named = named + 1
            end
          end
        end
      end
    end
    print(("nat: with a liar %d of %d right, named %d times"):format(right, cells, named))
    assert(right >= 0.97 * cells)
    assert(named >= 0.7 * cells)
  end))

  it("makes do with dead servers, with one server, and with those that cannot answer from elsewhere", run.virtual(
    function()
      local world = nat_world.new { nat = nature "symmetric/random", silent = { ["30.1.0.9"] = true },
        alone = { "30.1.0.9" } }
      table.insert(world.servers, 1, table.remove(world.servers))
      assert.equal("symmetric/random", found_class(check(world)))
      assert.equal("symmetric/random", found_class(check(world, { transport = "tcp" })))
      world = nat_world.new { nat = nature "restricted/independent:2" }
      table.remove(world.servers)
      local found = check(world)
      assert.equal("restricted/independent:2", found_class(found))
      assert(found.confidence >= SURE)
      world = nat_world.new { nat = nature "full-cone/equal", changes = false }
      found = check(world)
      assert.equal("port-restricted/equal", found_class(found)) -- what is assumed
      assert(found.confidence < 0.5)
      assert(found.delta_confidence >= SURE)
    end))

  it("does not ask where a server leads it into our own network", run.virtual(function()
    local world = nat_world.new { nat = nature "port-restricted/equal" }
    for _, other in ipairs { "192.168.1.1", "127.0.0.1", "224.0.0.1", "0.0.0.0", "here" } do
      local asked = {}
      world.others = { ["30.1.0.3"] = other, ["30.1.0.4"] = other }
      local means = {
        connect = world.means.connect,
        socket = function(given)
          local socket = world.means.socket(given)
          return setmetatable({ ask = function(_, ip, ...) asked[ip] = true return socket:ask(ip, ...) end }, {
            __index = socket })
        end,
      }
      assert(nat.check { ip = world.ip, servers = world.servers, means = means }.confidence < 0.5)
      assert.same({ ["30.1.0.3"] = true, ["30.1.0.4"] = true }, asked)
    end
  end))

  it("tells the range that random ports come from, and where counting begins again", run.virtual(function()
    local found = check(nat_world.new { nat = nature("symmetric/random", { first = 40000, last = 50000 }) })
    assert.near(40000, found.range[1], 1500)
    assert.near(50000, found.range[2], 1500)
    assert.is_nil(check(nat_world.new { nat = nature "symmetric/random" }).range)
    local small = { first = 40000, last = 40040 }
    for _, value in ipairs { "1", "-1" } do
      found = nil
      for seed = 1, 20 do -- until the end is passed once
        small.seed = seed
        found = check(nat_world.new { nat = nature("port-restricted/independent:" .. value, small) })
        assert.equal("port-restricted/independent:" .. value, found_class(found))
      end
      assert(found)
    end
  end))

  it("sees that ports are kept, be it in a range only", run.virtual(function()
    local made = nature("port-restricted/equal", { first = 30000, last = 65535 })
    assert.equal("port-restricted/equal", found_class(check(nat_world.new { nat = made })))
  end))

  it("bears a busy router, several external addresses, and much loss", run.virtual(function()
    math.randomseed(5)
    local external = { "30.2.1.2", "30.2.1.3" }
    for _, options in ipairs {
      { noise = 100 }, { noise = 5, more = { arbitrary = true, external = external } }, { loss = 0.1, noise = 5 },
    } do
      local cells, right = 0, 0
      for _, kind in ipairs(KINDS) do
        for seed = 1, 3 do
          local made = nature(kind, not kind:find "^[ou]" and options.more or nil)
          made.value = 3
          local found = check(nat_world.new { nat = made, seed = seed, loss = options.loss, noise = options.noise })
          cells = cells + 1
          if found_class(found) == class_of(made.type, made.delta, 3) then
            right = right + 1
          else
            assert(found.confidence < SURE, kind .. " as " .. found_class(found))
          end
        end
      end
      assert(right >= 0.95 * cells, ("%d of %d"):format(right, cells))
    end
  end))

  it("uses what was found by UDP before, and a relay where there is one", run.virtual(function()
    local world = nat_world.new { nat = nature "full-cone/equal" }
    local udp = check(world)
    local sockets = 0
    local means = {
      connect = world.means.connect,
      socket = function(given)
        sockets = sockets + 1
        return world.means.socket(given)
      end,
    }
    local tcp = check(world, { transport = "tcp", udp = udp, means = means })
    assert.equal(0, sockets)
    assert.equal("full-cone/equal", found_class(tcp))
    assert(tcp.confidence <= 0.5)
    local asked
    tcp = check(world, {
      transport = "tcp", udp = udp,
      turn = function(ip, port, local_port)
        asked = { ip, port, local_port }
        return true
      end,
    })
    assert.equal("30.2.1.2", asked[1])
    assert.equal(asked[2], asked[3]) -- equal
    assert.equal("full-cone", tcp.nat)
    assert(tcp.confidence >= SURE)
    tcp = check(world, { transport = "tcp", udp = udp, turn = function() return false end })
    assert.equal("port-restricted", tcp.nat)
  end))

  it("tells what is known meanwhile", run.virtual(function()
    local parts, first = {}, nil
    local world = nat_world.new { nat = nature "restricted/random" }
    check(world, {
      on_progress = function(part, found)
        first = first or found
        parts[part] = task.now()
      end,
    })
    assert(parts.delta < parts.filtering)
    assert(parts.mapping)
    assert.equal("30.2.1.2", first.external)
  end))

  it("surveys both transports in the time of one", run.virtual(function()
    local world = nat_world.new { nat = nature "symmetric/dependent:2", seed = 6 }
    local began = task.now()
    local found = assert(nat.survey { ip = world.ip, servers = world.servers, means = world.means })
    assert.equal("symmetric/dependent:2", found_class(found.udp))
    assert.equal("symmetric/dependent:2", found_class(found.tcp))
    assert(task.now() - began <= 1.2)
    assert.equal(0, world.opened)
  end))

  it("leaves nothing behind when it is cancelled", run.virtual(function()
    for _, after in ipairs { 0.001, 0.03, 0.3 } do
      local world = nat_world.new { nat = nature "symmetric/random", loss = 0.1 }
      local one = task.spawn(nat.survey, { ip = world.ip, servers = world.servers, means = world.means }):observe()
      task.sleep(after)
      one:cancel()
      one:wait()
      assert.equal(0, world.opened)
    end
  end))

  it("fails as the system does, and as the servers do", run.virtual(function()
    local function no() return nil, "EADDRNOTAVAIL: no interface has it", "EADDRNOTAVAIL" end
    local world = nat_world.new { nat = nature "open" }
    local means = { socket = no, connect = no }
    for _, transport in ipairs(TRANSPORTS) do
      local found, message, code = nat.check {
        ip = "10.9.8.7", servers = world.servers, means = means, transport = transport,
      }
      assert.is_nil(found)
      assert.equal("EADDRNOTAVAIL", code)
      assert(message:find "^EADDRNOTAVAIL: ")
    end
    local function refuse() return nil, "ECONNREFUSED: nobody listens", "ECONNREFUSED" end
    local _, _, code = nat.check {
      ip = world.ip, servers = world.servers, transport = "tcp",
      means = { socket = world.means.socket, connect = refuse },
    }
    assert.equal("ECONNREFUSED", code)
  end))

  it("throws for wrong options, at the caller's line", run(function()
    local servers = { { ip = "30.1.0.3" } }
    for pattern, options in pairs {
      ["'ip' is missing"] = { servers = servers }, ["no STUN server"] = { ip = "1.2.3.4", servers = {} },
      ["servers[1] is no"] = { ip = "1.2.3.4", servers = { { host = "stun.example" } } },
      ["unknown option 'port'"] = { ip = "1.2.3.4", servers = servers, port = 5 },
      ["'ip' is a number"] = { ip = 5, servers = servers },
      ["neither udp nor tcp"] = { ip = "1.2.3.4", servers = servers, transport = "sctp" },
    } do
      local ok, message = pcall(function() nat.check(options) end)
      assert.is_false(ok)
      assert(message:find(pattern, 1, true), message)
      assert(message:find("nat_spec.lua", 1, true), message)
    end
    assert.has_error(function() nat.survey { ip = "1.2.3.4", servers = servers, transport = "udp" } end)
  end))
end)

describe("core.nat_model", function()
  it("is the lab's router without a network", function()
    local model = core.nat_model.new { type = "symmetric", delta = "independent", value = 3, external = { "30.2.1.2" } }
    local ip, port = model:outbound(1, "udp", "192.168.1.10", 5000, "30.1.0.3", 3478)
    assert.equal("30.2.1.2", ip)
    local _, second = model:outbound(1, "udp", "192.168.1.10", 5000, "30.1.0.4", 3478)
    assert.equal(port + 3, second)
    assert.same({ "192.168.1.10", 5000 }, { model:inbound(1.5, "udp", "30.1.0.3", 3478, "30.2.1.2", port) })
    assert.same({ nil, "filtered" }, { model:inbound(1.5, "udp", "30.1.0.4", 3478, "30.2.1.2", port) })
    assert.same({ nil, "no-mapping" }, { model:inbound(400, "udp", "30.1.0.3", 3478, "30.2.1.2", port) })
    assert.same({ nil, "bad-state" }, { model:outbound(401, "tcp", "192.168.1.10", 5000, "30.1.0.3", 3478, 16) })
    model = core.nat_model.new { type = "restricted", delta = "equal", external = { "30.2.1.2" }, uninvited = "reset" }
    assert.same({ nil, "no-mapping", "reset" }, { model:inbound(1, "tcp", "30.1.0.3", 80, "30.2.1.2", 5000, 2) })
  end)

  it("refuses what is no router", function()
    for _, bad in ipairs {
      {}, { type = "symmetric", external = { "30.2.1.2" } }, { type = "symmetric", delta = "random", external = {} },
      { type = "open", external = {}, colour = "red" }, { type = "open", external = {}, mapping = "none" },
    } do
      assert.has_error(function() core.nat_model.new(bad) end)
    end
  end)
end)
