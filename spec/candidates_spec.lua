local candidates = require "p2pd.candidates"
local world = require "spec.support.world"

-- Candidates as "scope ip:port", for comparison.
local function list(options)
  local found, passed_over = candidates.list {
    peer = options.peer or world.address { machine_id = "theirs" },
    own = options.own or world.address { port = 5000, external = "9.9.9.9", internal = "192.168.1.7" },
    prefixes = options.prefixes or { { ip = "192.168.1.7", prefix = 24, interface = "eth0" } },
    loopback_only = options.loopback_only, role = options.role,
  }
  local texts = {}
  for i, candidate in ipairs(found) do
    texts[i] = ("%s %s:%d"):format(candidate.scope, candidate.ip, candidate.port)
  end
  return texts, passed_over, found
end

local function peer(fields)
  fields.machine_id = fields.machine_id or "theirs"
  return world.address(fields)
end

local function reason_of(passed_over, ip)
  for _, entry in ipairs(passed_over) do
    if entry.ip == ip then return entry.reason end
  end
end

describe("kind", function()
  it("is that of core/ip.h, with or without a zone", function()
    for ip, kind in pairs {
      ["8.8.8.8"] = "global", ["10.1.2.3"] = "private", ["127.0.0.1"] = "loopback", ["::1"] = "loopback",
      ["100.64.0.1"] = "shared", ["224.0.0.1"] = "multicast", ["255.255.255.255"] = "broadcast", ["::"] = "unspecified",
      ["fe80::1"] = "link-local", ["fe80::1%lo"] = "link-local", ["fe80::1%no-such-card"] = "link-local",
    } do
      assert.equal(kind, candidates.kind(ip))
    end
    for _, ip in ipairs { "", "1.2.3", "1.2.3.4.5", "x", "01.2.3.4", "1::2::3" } do
      assert.is_nil(candidates.kind(ip))
    end
    assert.is_nil(candidates.kind(3))
  end)
end)

describe("private addresses", function()
  it("are tried on an on-link prefix", function()
    assert.same({ "private 192.168.1.5:4000", "external 8.8.8.8:4000" }, (list {}))
  end)

  it("are not tried from another network", function()
    local texts, passed_over = list { prefixes = { { ip = "192.168.2.7", prefix = 24, interface = "eth0" } } }
    assert.same({ "external 8.8.8.8:4000" }, texts)
    assert.equal("it is a private address of another network", reason_of(passed_over, "192.168.1.5"))
  end)

  it("heed each bit of the prefix", function()
    for prefix, found in pairs { [30] = 1, [29] = 2, [25] = 2, [22] = 2, [0] = 2 } do
      local texts = list { prefixes = { { ip = "192.168.1.3", prefix = prefix, interface = "eth0" } } }
      assert.equal(found, #texts, "prefix " .. prefix)
    end
    for prefix, found in pairs { [33] = 1, [32] = 2 } do
      local texts = list {
        peer = peer { ipv4 = {}, ipv6 = world.address { external = "2a00:1::5", internal = "fd00:0:8000::5" }.ipv4 },
        prefixes = { { ip = "fd00::1", prefix = prefix, interface = "eth0" } },
      }
      assert.equal(found, #texts, "prefix " .. prefix)
    end
  end)

  it("are tried behind the same external address", function()
    local texts = list {
      own = world.address { port = 5000, external = "8.8.8.8", internal = "10.0.0.7" },
      prefixes = { { ip = "10.0.0.7", prefix = 24, interface = "eth0" } },
    }
    assert.same({ "private 192.168.1.5:4000", "external 8.8.8.8:4000" }, texts)
  end)

  it("are tried on the same machine, by one that was asked only when they are its own", function()
    local own = world.address { port = 5000, external = "9.9.9.9", internal = "10.0.0.7", machine_id = "theirs" }
    local elsewhere = { { ip = "10.0.0.7", prefix = 24, interface = "eth0" } }
    assert.equal(2, #list { own = own, prefixes = elsewhere })
    assert.equal(1, #list { own = own, prefixes = elsewhere, role = "respond" })
    local here = { { ip = "192.168.1.5", prefix = 32, interface = "eth0" } }
    assert.equal(2, #list { own = own, prefixes = here, role = "respond" })
  end)

  it("of this machine are not taken for another machine's", function()
    local texts, passed_over = list { prefixes = { { ip = "192.168.1.5", prefix = 24, interface = "eth0" } } }
    assert.same({ "external 8.8.8.8:4000" }, texts)
    assert.equal("here it is this machine's own address", reason_of(passed_over, "192.168.1.5"))
  end)

  it("may be all that a peer knows of itself", function()
    assert.same({ "private 192.168.1.5:4000" }, (list { peer = peer { external = "192.168.1.5" } }))
    local shared = peer { external = "100.64.3.4", internal = "100.64.3.4" }
    assert.same({}, (list { peer = shared }))
  end)

  it("may look global", function()
    local odd = peer { internal = "11.0.0.5" }
    assert.same({ "external 8.8.8.8:4000" }, (list { peer = odd }))
    assert.same({ "private 11.0.0.5:4000", "external 8.8.8.8:4000" },
      (list { peer = odd, prefixes = { { ip = "11.0.0.9", prefix = 24, interface = "eth0" } } }))
  end)
end)

describe("loopback", function()
  local at_home = peer { external = "127.0.0.1", internal = "127.0.0.1" }
  local own = world.address { external = "127.0.0.1", internal = "127.0.0.1", port = 5000, machine_id = "theirs" }

  it("is tried when this node listens on loopback alone", function()
    assert.same({ "loopback 127.0.0.1:4000" }, (list { peer = at_home, own = own, loopback_only = true }))
  end)

  it("is not tried otherwise", function()
    local texts, passed_over = list { peer = at_home, own = own }
    assert.same({}, texts)
    assert.equal("loopback is tried only by a node that listens on loopback alone", reason_of(passed_over, "127.0.0.1"))
    own.machine_id = "ours"
    assert.same({}, (list { peer = at_home, own = own, loopback_only = true }))
    own.machine_id = "theirs"
  end)
end)

describe("never", function()
  it("is a multicast, broadcast or unspecified address dialed", function()
    for _, ip in ipairs { "224.0.0.1", "239.1.2.3", "255.255.255.255", "0.0.0.0", "192.168.1.255" } do
      local texts, passed_over = list { peer = peer { external = ip, internal = ip } }
      assert.same({}, texts, ip)
      assert.is_string(reason_of(passed_over, ip), ip)
    end
    for _, ip in ipairs { "ff02::1", "::" } do
      local six = world.address { external = ip, internal = ip }.ipv4
      assert.same({}, (list { peer = peer { ipv4 = {}, ipv6 = six } }), ip)
    end
  end)

  it("is the node's own address and port", function()
    local own = world.address { external = "8.8.8.8", internal = "192.168.1.7", machine_id = "theirs" }
    assert.same({ "private 192.168.1.5:4000" }, (list { own = own }))
    local same = peer { internal = "192.168.1.7", port = 5000 }
    local texts, passed_over = list { peer = same }
    assert.same({ "external 8.8.8.8:5000" }, texts)
    assert.equal("it is this node's own address and port", reason_of(passed_over, "192.168.1.7"))
  end)

  it("is the same address listed twice", function()
    local entry = world.address { internal = "8.8.8.8" }.ipv4[1]
    assert.same({ "external 8.8.8.8:4000" }, (list { peer = peer { ipv4 = { entry, entry } } }))
  end)
end)

describe("link-local IPv6", function()
  local six = world.address { external = "2a00:1::5", internal = "fe80::5" }.ipv4

  it("gets the zone of the link that the peer is on", function()
    local texts = list {
      peer = peer { ipv4 = {}, ipv6 = six },
      prefixes = {
        { ip = "192.168.1.7", prefix = 24, interface = "eth0" }, { ip = "2a00:1::7", prefix = 64, interface = "wlan0" },
      },
    }
    assert.same({ "link-local fe80::5%wlan0:4000", "external 2a00:1::5:4000" }, texts)
  end)

  it("learns the link from the same card's IPv4 too", function()
    local texts = list { peer = peer { ipv6 = six } }
    assert.equal("link-local fe80::5%eth0:4000", texts[2])
  end)

  it("is not tried on other links", function()
    local texts = list {
      peer = peer { ipv4 = {}, ipv6 = six }, prefixes = { { ip = "fe80::7%eth0", prefix = 64, interface = "eth0" } },
    }
    assert.same({ "external 2a00:1::5:4000" }, texts)
  end)

  it("of this machine gets its own card's zone", function()
    local texts = list {
      own = world.address { port = 5000, machine_id = "theirs" }, peer = peer { ipv4 = {}, ipv6 = six },
      prefixes = { { ip = "fe80::5%eth1", prefix = 64, interface = "eth1" } },
    }
    assert.equal("link-local fe80::5%eth1:4000", texts[1])
  end)
end)

describe("link-local IPv4", function()
  it("is tried on its link alone", function()
    local auto = peer { external = "169.254.3.4", internal = "169.254.3.4" }
    assert.same({}, (list { peer = auto }))
    assert.same({ "link-local 169.254.3.4:4000" },
      (list { peer = auto, prefixes = { { ip = "169.254.9.9", prefix = 16, interface = "eth0" } } }))
  end)
end)

describe("order", function()
  local function entries(...)
    local result = {}
    for i, ip in ipairs { ... } do
      result[i] = world.address { external = ip, internal = ip }.ipv4[1]
      result[i].if_index = i - 1
    end
    return result
  end
  local both = peer { ipv4 = entries("8.8.8.1", "8.8.8.2"), ipv6 = entries("2a00::1", "2a00::2", "2a00::3") }

  it("takes the families by turns, IPv6 first", function()
    local texts = list { peer = both, prefixes = { { ip = "2a01::7", prefix = 64, interface = "eth0" } } }
    assert.same({ "external 2a00::1:4000", "external 8.8.8.1:4000", "external 2a00::2:4000", "external 8.8.8.2:4000",
      "external 2a00::3:4000" }, texts)
  end)

  it("leaves IPv6 for the end where this side has none", function()
    local texts = list { peer = both, prefixes = { { ip = "fe80::7%eth0", prefix = 64, interface = "eth0" } } }
    assert.same({ "external 8.8.8.1:4000", "external 8.8.8.2:4000", "external 2a00::1:4000", "external 2a00::2:4000",
      "external 2a00::3:4000" }, texts)
  end)
end)

describe("a peer looks unreachable", function()
  local function unreachable(options)
    local _, _, found = list(options)
    return candidates.unreachable(options.peer, found)
  end
  local far = { { ip = "10.0.0.7", prefix = 24, interface = "eth0" } }

  it("behind a NAT that drops what it did not ask for", function()
    for nat, expected in pairs {
      open = false, ["full-cone"] = false, restricted = true, ["port-restricted"] = true, symmetric = true,
      blocked = true, ["udp-firewall"] = true,
    } do
      assert.equal(expected, unreachable { peer = peer { nat = nat }, prefixes = far }, nat)
    end
  end)

  it("not without a NAT", function()
    assert.is_false(unreachable { peer = peer { internal = "8.8.8.8" }, prefixes = far })
  end)

  it("not in the same network", function()
    local own = world.address { port = 5000, external = "8.8.8.8", internal = "192.168.1.7" }
    assert.is_false(unreachable { peer = peer {}, own = own })
    assert.is_false(unreachable { peer = peer { external = "192.168.1.5" } })
  end)

  it("even when its private prefix is also ours, behind another address", function()
    assert.is_true(unreachable { peer = peer {} })
  end)
end)
