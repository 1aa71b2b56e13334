local facts = require "p2pd.punch_facts"

describe("the facts of a punch", function()
  it("are read from whatever a peer says, and bounded", function()
    for _, junk in ipairs {
      false, 3, "x", {}, { ip = 1, nat = "open", delta = "na" }, { ip = "30.1.2.3", nat = {} },
    } do
      assert.is_nil(facts.read(junk))
    end
    local many = {}
    for i = 1, 5000 do many[i] = i end
    local read = facts.read {
      ip = "30.1.2.3", nat = "open", delta = "na", value = 1.5, first = "x", last = 7.0, ports = many, other = {},
    }
    assert.same({ "30.1.2.3", "open", "na", nil, nil, 7 }, {
      read.ip, read.nat, read.delta, read.value, read.first, read.last,
    })
    assert.equal(16, #read.ports)
    assert.is_nil(read.other)
    assert.same({ 5, 6 }, facts.read_ports { 5.0, "a", {}, 6, 0.5 })
    assert.same({}, facts.read_ports "ports")
  end)

  it("tell sides apart: kept ports, those that are foreseen, chains", function()
    local function all(nat, delta)
      local side = { nat = nat, delta = delta }
      return { facts.is_kept(side), facts.is_foreseen(side), facts.is_chain(side) }
    end
    assert.same({ true, false, false }, all("port-restricted", "random"))
    assert.same({ true, false, false }, all("symmetric", "equal"))
    assert.same({ false, true, false }, all("symmetric", "independent"))
    assert.same({ false, true, true }, all("symmetric", "dependent"))
    assert.same({ false, false, false }, all("symmetric", "random"))
    assert.same({ false, false, false }, all("blocked", "na"))
  end)

  it("let a spray back off when messages become slow, and recover", function()
    assert.equal(1, facts.share(1, 0.02, 0.03))
    assert.equal(0.5, facts.share(1, 0.02, 0.2))
    assert.equal(0.25, facts.share(0.5, 0.02, 0.2))
    assert.equal(1 / 16, facts.share(1 / 16, 0.02, 2))
    assert.equal(0.5, facts.share(0.25, 0.02, 0.03))
  end)
end)
