-- core.punch.predict, wanted, between: against the vectors of the protocol's reference (where we agree with it, and
-- where we know better, and why), and what is refused. Against the router model itself: spec/c/test_predict.c.
local cjson = require "cjson"
local core = require "p2pd.core"

local punch = core.punch
local NATS = { "open", "udp-firewall", "full-cone", "restricted", "port-restricted", "symmetric", "blocked" }
local DELTAS = { "na", "equal", "preserving", "independent", "dependent", "random" }
local REMOTE = 2 -- mode

local function vectors()
  local file <close> = assert(io.open("spec/vectors/nat_predict.json", "rb"))
  return cjson.decode(file:read "a").single_mapping
end

local function asked_of(row, range)
  local nat = row.our_nat
  return {
    nat = NATS[nat.type], delta = DELTAS[nat.delta_type], value = nat.delta_value,
    first = range[1], last = range[2], samples = { { local_port = row.last_preloaded[1],
      external_port = row.last_preloaded[2] } },
  }
end

-- A port is wanted of us: the peer's reply port, or else the one where it is.
local function wanted_port(row)
  local reply = row.peer_mapping[2]
  return math.tointeger(reply ~= 0 and reply or row.peer_mapping[3])
end

-- What we make of the same: local port, external port; nil and why not.
local function ours(row)
  local asked = asked_of(row, row.our_nat.range)
  local kept = asked.nat == "open" or asked.nat == "udp-firewall" or asked.delta == "equal"
    or asked.delta == "preserving"
  if kept then
    asked.port = wanted_port(row)
    if asked.port == 0 then return nil, "no port" end
    local pair, why = punch.wanted(asked)
    return pair and pair.local_port, pair and pair.external_port or why
  end
  if asked.delta == "random" or asked.delta == "na" then
    asked.samples[1] = { local_port = row.preloaded[1], external_port = row.preloaded[2] }
  else
    asked.first, asked.last = row.use_range[1], row.use_range[2]
  end
  local list, why = punch.predict(asked)
  return list and list[1].local_port, list and list[1].external_port or why
end

-- Why ours is another answer than the reference's, by its note.
local function better(row)
  local note, delta, type = row.note, DELTAS[row.our_nat.delta_type], NATS[row.our_nat.type]
  if note:find "port 0 but a reply port" then return "a reply port is enough" end
  if type == "blocked" then return "nothing comes through what is blocked" end
  if row.random_draws and (delta == "equal" or delta == "preserving") then
    return "a port out of range: said, not drawn from elsewhere"
  end
  if delta == "preserving" and note:find "below" then return "the distance's sign" end
  if note:find "exactly 65535" or note:find "local 65534" then return "65535 is a port" end
end

describe("core.punch.predict and wanted", function()
  it("agree with the reference, but where they know better", function()
    local agreed, differed = 0, {}
    for _, row in ipairs(vectors()) do
      if row.mode == REMOTE then
        local local_port, external_port = ours(row)
        local theirs = row.result
        local independent = DELTAS[row.our_nat.delta_type] == "independent" and row.our_nat.type > 2
        -- An independent mapping has any local port; theirs is drawn.
        local same = theirs and local_port and theirs[3] == external_port
          and (independent or theirs[1] == local_port)
        if same or (not theirs and not local_port) then
          agreed = agreed + 1
          assert.is_nil(theirs and not row.random_draws and better(row) or nil, row.note)
        else
          local why = better(row)
          assert(why, ("%s: %s, %s"):format(row.note, local_port, external_port))
          differed[why] = (differed[why] or 0) + 1
        end
      end
    end
    assert.equal(34, agreed)
    assert.same({
      ["nothing comes through what is blocked"] = 2, ["the distance's sign"] = 4, ["65535 is a port"] = 2,
      ["a reply port is enough"] = 1,
      ["a port out of range: said, not drawn from elsewhere"] = 2,
    }, differed)
  end)

  it("give each of several mappings its own port", function()
    local list = punch.predict {
      nat = "symmetric", delta = "independent", value = 10, samples = { { 44333, 30000 }, { 44334, 30010 } }, count = 3,
    }
    assert.same({ 30020, 30030, 30040 }, list.ports)
    assert.same({ 44335, 44336, 44337 }, list.locals)
    assert.same({ local_port = 44335, external_port = 30020 }, list[1])
    assert.equal(3, #list)
  end)

  it("say why there is none", function()
    for delta, reason in pairs { random = "at random", independent = "no STUN server" } do
      local list, message, code = punch.predict {
        nat = "symmetric", delta = delta, value = 1, samples = { { 44333, 0 } },
      }
      assert.is_nil(list)
      assert.equal("EUNREACHABLE", code)
      assert.truthy(message:find("^EUNREACHABLE: ") and message:find(reason, 1, true))
    end
    local _, message = punch.predict {
      nat = "symmetric", delta = "dependent", value = 1, samples = { { 44333, 30000 } }, taken = { 44334 },
    }
    assert.truthy(message:find "no local port is free")
  end)

  it("fill in what lies between two samples", function()
    local list, unknown = punch.between {
      nat = "symmetric", delta = "dependent", value = -2,
      list = { { 2000, 5000 }, { 2001, 0 }, { 2002 }, { 2003, 4994 } },
    }
    assert.equal(0, unknown)
    assert.same({ 5000, 4998, 4996, 4994 }, list.ports)
    list, unknown = punch.between {
      nat = "symmetric", delta = "independent", value = 2, list = { { 2000, 5000 }, { 2001, 0 }, { 2002, 5006 } },
    }
    assert.equal(1, unknown)
    assert.same({ 5000, 0, 5006 }, list.ports)
  end)

  it("throw at what are no options", function()
    local good = { nat = "symmetric", delta = "independent", value = 1, samples = { { 2000, 3000 } } }
    assert(punch.predict(good))
    for key, values in pairs {
      nat = { "wall", 5 }, delta = { "sometimes", {} }, value = { 0, 70000, 1.5, "1" }, first = { 5 }, last = { 70000 },
      samples = { 5, { 5 }, { {} }, { { 0, 1 } }, { { 1.5, 1 } }, { { 1, 70000 } }, { { 1, -1 } }, { { 1, "2" } } },
      count = { 0, 65, 1.5 }, taken = { { 70000 }, "all" },
    } do
      for _, value in ipairs(values) do
        local bad = { nat = good.nat, delta = good.delta, value = good.value, samples = good.samples }
        bad[key] = value
        assert.has_error(function() punch.predict(bad) end)
      end
    end
    assert.has_error(function() punch.predict(5) end)
    assert.has_error(function() punch.wanted { nat = "open" } end)
    assert.has_error(function() punch.wanted { nat = "open", port = 0 } end)
    local many = {}
    for i = 1, 65 do many[i] = { 2000 + i, 3000 } end
    assert.has_error(function()
      punch.predict { nat = "symmetric", delta = "independent", value = 1, samples = many }
    end)
  end)
end)
