local cjson = require "cjson"
local core = require "p2pd.core"
local address = require "p2pd.address"

local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."

local function vectors(name)
  local file <close> = assert(io.open(("%s/vectors/%s.json"):format(here, name)))
  return cjson.decode(file:read("a"))
end

local SEED = "0,1-[1,0,8.8.8.8,192.168.21.21,58959,3,2,0]-0-zmUGXPOFxUBuToh-easdasd"
local NAT = { "open", "udp-firewall", "full-cone", "restricted", "port-restricted", "symmetric", "blocked" }
local DELTA = { "na", "equal", "preserving", "independent", "dependent", "random" }

-- The vectors key interfaces by if_index and write IPv6 in full.
local function check_family(section, wanted)
  local count = 0
  for _ in pairs(wanted) do count = count + 1 end
  assert.equal(count, #section)
  for _, entry in ipairs(section) do
    local other = assert(wanted[tostring(entry.if_index)])
    assert.equal(other.netiface_index, entry.netiface_index)
    assert.equal(other.if_index, entry.if_index)
    assert.equal(other.port, entry.port)
    assert.equal(NAT[other.nat.type], entry.nat)
    assert.equal(DELTA[other.nat.delta.type], entry.delta)
    assert.equal(other.nat.delta.value, entry.delta_value)
    assert.equal(core.address.ip(other.ext).text, entry.external)
    assert.equal(core.address.ip(other.nic).text, entry.internal)
  end
end

describe("address", function()
  it("reads every valid vector but the one with four interfaces", function()
    local refused = 0
    for _, case in ipairs(vectors("address_valid").vectors) do
      local parsed, message, code = address.parse(case.text)
      if case.note:find("^four NICs") then
        assert.is_nil(parsed)
        assert.equal("EINVAL", code)
        assert.equal("EINVAL: ipv4: it has 4 interfaces; at most 3 are allowed", message)
        refused = refused + 1
      else
        assert(parsed, message)
        assert.same(case.parsed.signal, parsed.signal)
        assert.equal(case.parsed.node_id, parsed.node_id)
        assert.equal(case.parsed.machine_id, parsed.machine_id)
        assert.is_false(parsed.ours)
        check_family(parsed.ipv4, case.parsed.v4)
        check_family(parsed.ipv6, case.parsed.v6)
        if case.source == "make_peer_addr" then assert.equal(case.text, tostring(parsed)) end
        assert.same(parsed, address.parse(address.format(parsed)))
      end
    end
    assert.equal(1, refused)
  end)

  it("refuses every invalid vector, by the section that is wrong", function()
    local fields = {
      sections = "address", signal = "signal offset", ["signal count"] = "signal",
      ["interface list"] = "interface", ["interface fields"] = "interface", ["interface brackets"] = "interface",
      ["interface count"] = "ipv4", ["address family"] = "nal ip", identifiers = "id",
    }
    local all = vectors("address_invalid")
    assert.equal(all.count, #all.vectors)
    for _, case in ipairs(all.vectors) do
      local parsed, message, code = address.parse(case.text)
      assert.is_nil(parsed, case.why)
      assert.equal("EINVAL", code)
      local field, reason = message:match("^EINVAL: (.*): (.+)$")
      assert(field and #reason > 0, message)
      local wanted = fields[case.rule] or case.rule
      if case.why:find("the dash adds a section") or case.why:find("^empty text") then wanted = "address" end
      if case.why == "leading space" then wanted = "signal offset" end
      assert(field:find(wanted, 1, true), ("%s: %s"):format(case.why, message))
    end
  end)

  it("reads and writes the seed's example", function()
    local parsed = assert(address.parse(SEED))
    assert.same({
      signal = { 0, 1 },
      ipv4 = { {
        netiface_index = 1, if_index = 0, external = "8.8.8.8", internal = "192.168.21.21", port = 58959,
        nat = "full-cone", delta = "equal", delta_value = 0,
      } },
      ipv6 = {}, node_id = "zmUGXPOFxUBuToh", machine_id = "easdasd", ours = false,
    }, setmetatable(parsed, nil))
    assert.equal(SEED, address.format(parsed))
  end)

  it("writes what a script built", function()
    assert.equal("None-0-0-a-b", address.format { node_id = "a", machine_id = "b" })
    local entry = {
      netiface_index = 2, if_index = 1, external = "2001:db8::1", internal = "fe80::1%lo", port = 1,
      nat = "symmetric", delta = "dependent", delta_value = 7,
    }
    local external, internal = "2001:0db8:0000:0000:0000:0000:0000:0001", "fe80:0000:0000:0000:0000:0000:0000:0001"
    assert.equal(("14-0-[2,1,%s,%s,1,6,5,7]-a-b"):format(external, internal),
      address.format { signal = { 14 }, ipv6 = { entry }, node_id = "a", machine_id = "b" })
  end)

  local function refusal(change)
    local parsed = assert(address.parse(SEED))
    change(parsed, parsed.ipv4[1])
    local text, message, code = address.format(parsed)
    assert.is_nil(text)
    assert.equal("EINVAL", code)
    return message
  end

  it("refuses values that are out of range, with the field and the reason", function()
    local cases = {
      { "EINVAL: ipv4 interface 1: port: 65536 is not between 1 and 65535", function(_, e) e.port = 65536 end },
      { "EINVAL: ipv4 interface 1: port: -1 is not between 1 and 65535", function(_, e) e.port = -1 end },
      { "EINVAL: ipv4 interface 1: delta value: 65536 is not between 0 and 65535",
        function(_, e) e.delta_value = 65536 end },
      { "EINVAL: ipv4 interface 1: if index: 4294967296 is not between 0 and 2147483647",
        function(_, e) e.if_index = 1 << 32 end },
      { "EINVAL: ipv4 interface 1: nat: 'cone' is none of open udp-firewall full-cone restricted port-restricted "
        .. "symmetric blocked", function(_, e) e.nat = "cone" end },
      { "EINVAL: ipv4 interface 1: delta: '' is none of na equal preserving independent dependent random",
        function(_, e) e.delta = "" end },
      { "EINVAL: ipv4 interface 1: external: 'example.com' is no IP address",
        function(_, e) e.external = "example.com" end },
      { "EINVAL: ipv4 interface 1: internal ip: it is no IPv4 address", function(_, e) e.internal = "::1" end },
      { "EINVAL: signal offset 3: 15 is not between 0 and 14", function(a) a.signal[3] = 15 end },
      { "EINVAL: signal offset 7: at most 6 are allowed", function(a) a.signal = { 1, 2, 3, 4, 5, 6, 7 } end },
      { "EINVAL: ipv4 interface 2: if index: 0 is that of interface 1 too", function(a, e) a.ipv4[2] = e end },
      { "EINVAL: ipv4: it has 4 interfaces; at most 3 are allowed", function(a, e) a.ipv4 = { e, e, e, e } end },
      { "EINVAL: node id: character 2 is a '-', or not printable ASCII", function(a) a.node_id = "a-b" end },
      { "EINVAL: node id: it has 65 characters; at most 64 are allowed", function(a) a.node_id = ("x"):rep(65) end },
      { "EINVAL: machine id: it is empty", function(a) a.machine_id = "" end },
      { "EINVAL: machine id: it holds a zero byte", function(a) a.machine_id = "a\0b" end },
    }
    for _, case in ipairs(cases) do assert.equal(case[1], refusal(case[2])) end
  end)

  it("throws at the caller's line for values of the wrong type", function()
    local cases = {
      { "port is no whole number but a string", function(_, e) e.port = "80" end },
      { "port is no whole number but a number", function(_, e) e.port = 80.5 end },
      { "port is no whole number but a nil", function(_, e) e.port = nil end },
      { "nat is no string but a number", function(_, e) e.nat = 3 end },
      { "external is no string but a nil", function(_, e) e.external = nil end },
      { "ipv4 is no list of tables but a string", function(a) a.ipv4 = { "x" } end },
      { "ipv6 is no table but a string", function(a) a.ipv6 = "0" end },
      { "signal offset is no whole number but a boolean", function(a) a.signal = { true } end },
      { "node_id is no string but a nil", function(a) a.node_id = nil end },
      { "machine_id is no string but a number", function(a) a.machine_id = 7 end },
    }
    for _, case in ipairs(cases) do
      local parsed = assert(address.parse(SEED))
      case[2](parsed, parsed.ipv4[1])
      local ok, message = pcall(function()
        local text = address.format(parsed)
        return text
      end)
      assert.is_false(ok)
      assert(message:find(case[1], 1, true), message)
      assert(message:find("address_spec.lua:%d"), message)
    end
    for _, bad in ipairs { 7, {}, true } do
      local ok, message = pcall(function()
        local parsed = address.parse(bad)
        return parsed
      end)
      assert.is_false(ok)
      assert(message:find("address_spec.lua:%d"), message)
    end
    assert.has_error(function() address.format(SEED) end)
  end)

  it("shows an address that cannot be written without throwing", function()
    local parsed = assert(address.parse(SEED))
    parsed.ipv4[1].port = 0
    assert.equal("address (EINVAL: ipv4 interface 1: port: 0 is not between 1 and 65535)", tostring(parsed))
  end)

  it("tells nodes of ours by their key", function()
    local id = vectors("seal").sender
    assert.is_true(assert(address.parse(("0-0-0-%s-m"):format(id))).ours)
    assert.is_false(assert(address.parse(("0-0-0-%s-m"):format(id:reverse()))).ours)
  end)

  it("tries brokers in the order of the vectors", function()
    for _, case in ipairs(vectors("identity").broker_order) do
      assert.same(case.order, core.address.broker_order(case.node_id, case.servers))
    end
    assert.same({}, core.address.broker_order("a", 0))
    assert.has_error(function() core.address.broker_order("a", 257) end)
    assert.has_error(function() core.address.broker_order("a", -1) end)
  end)

  it("derives ports as the vectors do", function()
    for _, case in ipairs(vectors("identity").listen_port) do
      assert.equal(case.port, core.address.port(case.machine_id))
    end
  end)

  it("knows IP addresses", function()
    assert.same({ family = 4, kind = "private", text = "10.0.0.1" }, core.address.ip("10.0.0.1"))
    assert.same({ family = 6, kind = "global", text = "2600::1" }, core.address.ip("2600:0::0001"))
    assert.same({ family = 6, kind = "link-local", text = "fe80::1%lo" }, core.address.ip("fe80::1%lo"))
    for text, kind in pairs {
      ["127.0.0.1"] = "loopback", ["100.64.0.1"] = "shared", ["224.0.0.1"] = "multicast",
      ["255.255.255.255"] = "broadcast", ["0.0.0.0"] = "unspecified",
    } do
      assert.equal(kind, core.address.ip(text).kind)
    end
    local ip, message, code = core.address.ip("localhost")
    assert.is_nil(ip)
    assert.equal("EINVAL: 'localhost' is no IP address", message)
    assert.equal("EINVAL", code)
    assert.is_true(core.address.same_prefix("192.168.1.5", "192.168.1.77", 24))
    assert.is_false(core.address.same_prefix("192.168.1.5", "192.168.2.5", 24))
    assert.is_false(core.address.same_prefix("192.168.1.5", "fe80::1", 0))
    assert.has_error(function() core.address.same_prefix("x", "192.168.2.5", 24) end)
  end)

  it("has no trouble with thousands of malformed texts", function()
    math.randomseed(7)
    local pool = "0123456789-,|[].:%abcdefN \0\255"
    for _ = 1, 20000 do
      local bytes = { SEED:byte(1, -1) }
      for _ = 1, math.random(1, 6) do
        local at, with = math.random(#bytes), math.random(#pool)
        local what = math.random(3)
        if what == 1 then
          bytes[at] = pool:byte(with)
        elseif what == 2 then
          table.insert(bytes, at, pool:byte(with))
        else
          table.remove(bytes, at)
        end
      end
      local text = string.char(table.unpack(bytes))
      local parsed, message = address.parse(text)
      if parsed then
        assert.equal(tostring(parsed), tostring(address.parse(tostring(parsed))))
      else
        assert(message:find("^EINVAL: [%w ]+: [ -~]+$") or message:find("^EINVAL: [%w ]+: [%w ]+: [ -~]+$"), message)
      end
    end
  end)
end)
