-- What p2pd.nat finds behind the lab's routers: real packets, and coturn to answer them. The bar's other part, over
-- many seeds, is spec/nat_spec.lua.
-- check: alone
-- check: unsanitized
require "p2pd"
local cjson = require "cjson"
local lab = require "p2pd.lab"
local run = require "spec.support.run"
local task = require "p2pd.task"

local ROUND_TRIP = 0.02
local AT_ONCE = 4 -- checks side by side, so that each has a processor when it needs one
local SURE = 0.9

local TYPES = { "full-cone", "restricted", "port-restricted", "symmetric" }
local DELTAS = { "equal", "preserving", "independent:3", "dependent:2", "random" }

local SCRIPT = [[
  local nat, task = require "p2pd.nat", require "p2pd.task"
  local nic = require("p2pd.core").nic
  local began = task.now()
  local results = assert(nat.survey {
    ip = assert(nic.source "30.1.0.3"),
    servers = { { ip = "30.1.0.3", port = 3478 }, { ip = "30.1.0.4", port = 3478 } },
  })
  results.seconds = task.now() - began
  for _, transport in ipairs { "udp", "tcp" } do results[transport].observations = nil end
  print(require("cjson").encode(results))
]]

local function routers(options)
  local list = { open = "open", ["udp-firewall"] = "udp-firewall", blocked = "blocked" }
  for _, kind in ipairs(TYPES) do
    for _, delta in ipairs(DELTAS) do
      list[("%s-%s"):format(kind:sub(1, 6), delta:match "%a+")] = kind .. "/" .. delta
    end
  end
  local made = {}
  for name, nat in pairs(list) do
    made[name] = { nat = nat, delay_ms = ROUND_TRIP * 500 }
    for key, value in pairs(options) do made[name][key] = value end
  end
  return list, made
end

-- The class of a NAT, as lua/doc/nat.md has them.
local function class_of(kind, delta, value)
  if kind == "open" or kind == "udp-firewall" or kind == "blocked" then return kind end
  if kind == "symmetric" and (delta == "equal" or delta == "preserving") then kind = "port-restricted" end
  local steps = delta == "independent" or delta == "dependent"
  return ("%s/%s%s"):format(kind, delta, steps and (":%d"):format(value) or "") -- JSON's numbers have a fraction
end

-- Runs the check on each host, so many at once.
local function survey(made, names)
  local results, place = {}, 0
  local tasks <close> = task.group()
  for _ = 1, AT_ONCE do
    tasks:spawn(function()
      while place < #names do
        place = place + 1
        local name = names[place]
        local ended = assert(assert(made:host(name)):lua(SCRIPT, { timeout = 20 }))
        assert(ended.status == 0, name .. ": " .. ended.err)
        results[name] = cjson.decode(ended.out)
      end
    end)
  end
  for _, one in ipairs(tasks) do one:wait() end
  return results
end

-- What was found of each, and by how much it was wrong: cells, right ones, wrong ones that were sure, the longest time.
local function judge(list, results)
  local cells, right, sure, slowest, where, wrong = 0, 0, 0, 0, nil, {}
  for name, text in pairs(list) do
    local kind, delta, value = text:match "^([^/]+)/?(%a*):?(.*)$"
    local expected = class_of(kind, delta, value)
    if results[name].seconds > slowest then slowest, where = results[name].seconds, text end
    for _, transport in ipairs { "udp", "tcp" } do
      local found = results[name][transport]
      local said = class_of(found.nat, found.delta, found.value)
      cells = cells + 1
      if said == expected then
        right = right + 1
      else
        if found.confidence >= SURE then sure = sure + 1 end
        wrong[#wrong + 1] = ("%s %s: %s (%.2f)"):format(transport, expected, said, found.confidence)
      end
    end
  end
  print(("natcheck: %d of %d cells right, %d wrong and sure, at most %.3f s (%s)"):format(right, cells, sure, slowest,
    where))
  for _, one in ipairs(wrong) do print("natcheck: " .. one) end
  return { cells = cells, right = right, sure = sure, slowest = slowest, wrong = table.concat(wrong, "; ") }
end

local function names_of(list)
  local names = {}
  for name in pairs(list) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function check(options)
  local list, made = routers(options)
  local net <close> = assert(lab.up { routers = made })
  return judge(list, survey(net, names_of(list)))
end

describe("p2pd.nat in the lab", function()
  it("knows each router by both transports, through loss and other people's flows", run(function()
    local it_was = check { loss = 0.02, noise = 5 }
    assert(it_was.right >= it_was.cells - 1, it_was.wrong) -- 99 % of many runs
    assert.equal(0, it_was.sure, it_was.wrong)
    assert(it_was.slowest <= 12 * ROUND_TRIP + 1.5, it_was.slowest)
  end))

  it("takes at most 1.2 s without loss", run(function()
    local it_was = check {}
    assert.equal(it_was.cells, it_was.right, it_was.wrong)
    assert(it_was.slowest <= 1.2, it_was.slowest)
  end))
end)
