-- check: timeout 180
-- Pairs of NATs in virtual time (p2pd.lab.virtual): the strategies themselves, through the ctx, over core.nat_model and
-- TCP's opening handshake: which way, how long, the same for the same seed, and nothing left behind.
require "p2pd"
local cell = require "p2pd.lab.virtual.cell"
local matrix_pairs = require "p2pd.lab.matrix_pairs"
local program = require "spec.support.program"
local referee = require "spec.support.referee"
local run = require "spec.support.run"
local virtual_matrix = require "p2pd.lab.virtual.matrix"

local SANITIZED = os.getenv "P2PD_SANITIZED"

local function conditions(more)
  local all = { uninvited = "drop", loss = 0, noise = 0, delay_ms = 10, turn = true, timeout = 20 }
  for key, value in pairs(more or {}) do all[key] = value end
  return all
end

local function try(from, to, more, seed)
  return cell.run({ from = from, to = to, round = 1 }, conditions(more), seed or 7)
end

local function file(folder, text)
  local path = tostring(folder) .. "/mine.lua"
  local out = assert(io.open(path, "w"))
  out:write(text)
  out:close()
  return path
end

describe("a pair in virtual time", function()
  -- R = 40 ms, T = 20 ms, S = 20 ms: the most that DESIGN.md allows, and the least that light does.
  for _, case in ipairs {
    { "open", "open", "direct", 80, 90 }, { "open", "symmetric/random", "reverse", 120, 140 },
    { "port-restricted/equal", "restricted/random", "punch", 120, 140 },
    { "port-restricted/equal", "symmetric/independent:7", "punch", 140, 190 },
    { "symmetric/dependent:1", "symmetric/independent:7", "punch", 140, 190 },
    { "symmetric/random", "restricted/equal", "punch", 120, 350 },
    { "symmetric/random", "symmetric/random", "relay", 180, 240 }, { "blocked", "open", "relay", 180, 240 },
  } do
    local from, to, way, least, most = table.unpack(case)
    it(("meets by %s: %s > %s"):format(way, from, to), run.virtual(function()
      local one = try(from, to)
      assert.is_true(one.ok, one.message)
      assert.equal(way, one.strategy, one.text)
      assert(one.ms >= least and one.ms <= most, one.ms)
      assert.equal(1, one.tries)
      assert.equal(way, one.report.strategy)
    end))
  end

  it("goes the same way, and takes as long, whatever was tried before it", run(function()
    local hard = conditions { loss = 0.05, noise = 20, uninvited = "reset" }
    local pair = { from = "symmetric/random", to = "udp-firewall", round = 1 }
    local made = {}
    assert(virtual_matrix.run {
      runs = { pair, { from = "open", to = "open", round = 1 }, pair }, conditions = hard,
      on_end = function(one) made[#made + 1] = one end,
    })
    assert.equal(made[1].text, made[3].text)
    assert.same({ made[1].ms, made[1].syns }, { made[3].ms, made[3].syns })
  end))

  for _, uninvited in ipairs { "reset", "unreachable" } do
    it("meets where uninvited SYNs are answered: " .. uninvited, run.virtual(function()
      for _, to in ipairs { "port-restricted/random", "symmetric/independent:1" } do
        local one = try("restricted/equal", to, { uninvited = uninvited })
        assert.equal("punch", one.strategy, one.text)
      end
    end))
  end

  it("needs a relay for who is blocked", run.virtual(function()
    local one = try("open", "blocked", { turn = false })
    assert.is_false(one.ok)
    assert(one.message:find "ENOTSUP", one.message)
    assert.is_nil(one.strategy)
  end))

  it("runs both ends of a strategy of one's own", run.virtual(function()
    local folder <close> = program.folder()
    local path = file(folder, [[
      return {
        name = "mine", timeout = 3,
        connect = function(ctx)
          local hold = assert(ctx:hold(4))
          local reply, message, code = ctx:request { port = hold.external_port }
          if not reply then return nil, message, code end
          ctx:note("heard", reply.word)
          local puncher <close> = ctx:puncher { ip = ctx.peer.ipv4[1].external }
          puncher:fire { { local_port = hold.local_port, remote_port = math.tointeger(reply.port) } }
          return puncher:pipe()
        end,
        respond = function(ctx, message)
          local hold = assert(ctx:hold(4))
          ctx:reply(message, { port = hold.external_port, word = ctx:facts(4).nat })
          local puncher <close> = ctx:puncher { ip = ctx.peer.ipv4[1].external }
          ctx:sleep(ctx:signal_time())
          puncher:fire { { local_port = hold.local_port, remote_port = math.tointeger(message.port) } }
          return puncher:pipe()
        end,
      }
    ]])
    local one = try("port-restricted/equal", "restricted/random", { pipeline = path })
    assert.equal("mine", one.strategy, one.text)
    assert(one.text:find("heard: restricted", 1, true), one.text)
    one = try("port-restricted/equal", "symmetric/random", { pipeline = path })
    assert.is_false(one.ok)
    assert.equal("ETIMEDOUT", one.code)
  end))

  it("has an end where a timeout ends when the keys are proven", run.virtual(function()
    local one = try("open", "open", { pipeline = "fastest-of-three" })
    assert.equal("fastest-of-three", one.strategy, one.text)
    assert(one.ms < 300, one.ms)
  end))

  it("tells of a mistake in one, and goes on", run.virtual(function()
    local folder <close> = program.folder()
    local path = file(folder, [[
      local p2pd = require "p2pd"
      local function wrong(ctx) return ctx:hold("four") end
      return p2pd.pipeline.seq { wrong, {
        name = "lonely", connect = function(ctx) return ctx:request {} end,
      }, "direct" }
    ]])
    local one = try("symmetric/random", "open", { pipeline = path })
    assert.equal("direct", one.strategy, one.text)
    assert(one.text:find("mine.lua:2: an address family is 4 or 6", 1, true), one.text)
    assert(one.text:find("the peer's strategy 'lonely' has no respond", 1, true), one.text)
  end))
end)

describe("all pairs in virtual time", function()
  it("meet as the referee says, within seconds", run(function()
    local kinds, runs = matrix_pairs.KINDS, {}
    if SANITIZED then kinds = { "open", "port-restricted/equal", "symmetric/independent:7", "symmetric/random" } end
    local began = os.clock()
    assert(virtual_matrix.run {
      runs = matrix_pairs.all(kinds), conditions = conditions(), on_end = function(made) runs[#runs + 1] = made end,
    })
    local took = os.clock() - began
    assert(SANITIZED or took < 10, took)
    for _, one in ipairs(runs) do one.round = 1 end
    local verdict = referee.verdict({ conditions = conditions(), runs = runs }, not SANITIZED)
    assert(verdict.kept, table.concat(verdict, "\n"))
  end))
end)
