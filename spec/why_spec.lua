local why = require "p2pd.why"

local LET_NOBODY_IN = {
  { name = "direct", skipped = "the peer's router lets nobody in uninvited" },
  { name = "reverse", skipped = "this node's router lets nobody in uninvited" },
}

local function sentence(strategy, ...)
  local rungs = table.move(LET_NOBODY_IN, 1, 2, 1, {})
  for _, rung in ipairs { ... } do rungs[#rungs + 1] = rung end
  return why.sentence { strategy = strategy, rungs = rungs }
end

describe("why", function()
  it("says in one sentence what connected", function()
    assert.equal("the peer could be dialed", why.sentence { strategy = "direct", rungs = {} })
    assert.equal("the peer's router lets nobody in uninvited, but it could dial this node",
      why.sentence { strategy = "reverse", rungs = { LET_NOBODY_IN[1], { name = "reverse", ok = true } } })
    assert.equal("neither router lets anybody in uninvited, so both were opened at the same moment",
      sentence("punch", { name = "punch", ok = true }))
    assert.equal("both routers scatter ports, so only the relay could work",
      sentence("relay", { name = "punch", skipped = "both routers scatter ports" }))
    assert.equal("punching did not come through (nothing came in 3 tries), so the relay was used",
      sentence("relay", { name = "punch", code = "ETIMEDOUT", message = "ETIMEDOUT: nothing came in 3 tries" }))
  end)

  it("says nothing of strategies that it does not know", function()
    assert.is_nil(why.sentence { strategy = "mine", rungs = {} })
    assert.is_nil(why.sentence { rungs = {} })
    assert.is_string(why.sentence { strategy = "relay", rungs = {} })
  end)
end)
