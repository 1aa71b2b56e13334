-- cell: one pair of NATs in virtual time: as p2pd.lab.matrix_cell, without a lab.
local context = require "p2pd.context"
local ends = require "p2pd.lab.matrix_end"
local identity = require("p2pd.core").identity
local nat = require "p2pd.lab.nat"
local nodes = require "p2pd.lab.virtual.node"
local pipeline = require "p2pd.pipeline"
local ports = require "p2pd.lab.virtual.ports"
local report = require "p2pd.report"
local task = require "p2pd.task"
local worlds = require "p2pd.lab.virtual.world"

local M = {}

local SEEDS = 2 ^ 31 - 1 | 0
local SETTLING = 1 -- seconds of virtual time: until holds are there

local function attempt(node, conditions)
  local own_report, began = report.new(), task.now()
  local ctx = context.new {
    peer = node.peer.address, own = node.address, role = "connect", attempt = identity.random(16),
    means = node:means "connect", report = own_report, deadline = began + conditions.timeout,
  }
  local pipe, message, code = pipeline.run(node.pipeline, ctx)
  local found = own_report:table()
  found.rungs = #found.rungs > 0 and found.rungs or nil
  return {
    ok = pipe ~= nil, ms = (task.now() - began) * 1000, message = message, code = code,
    strategy = pipe and own_report.winner, remote = pipe and pipe.remote, echo_ms = pipe and 2000 * pipe.link.way,
    report = found, text = own_report:text(),
  }
end

local function words_of(side)
  local found = ports.examined(side.nat)
  found.external = side.external_ip
  return found
end

--- Tries a pair once, in virtual time (core.task.virtual). The same seed gives the same.
---@param pair { from: string, to: string, round: integer? } their NATs
---@param conditions p2pd.lab.MatrixConditions
---@param seed integer? of all chance: the routers', the network's, and the strategies' own
---@return p2pd.lab.MatrixRun
function M.run(pair, conditions, seed)
  local began = os.clock()
  seed = seed or math.random(1, SEEDS)
  math.randomseed(seed)
  local net <close> = worlds.new {
    from = assert(nat.parse(pair.from)), to = assert(nat.parse(pair.to)), conditions = conditions, seed = seed,
  }
  local chosen = assert(ends.pipeline(conditions))
  local there <close> = nodes.new(net, net.to, { pipeline = chosen, listens = true, turn = conditions.turn })
  local here <close> = nodes.new(net, net.from, { pipeline = chosen, listens = false, turn = conditions.turn })
  here.peer, there.peer = there, here
  task.sleep(SETTLING)
  local run = attempt(here, conditions)
  run.from, run.to, run.round, run.seeds = pair.from, pair.to, pair.round, { from = seed, to = seed }
  run.tries = M.tries_of(run)
  run.examined = { from = words_of(net.from), to = words_of(net.to) }
  run.syns = net.syns
  run.seconds = os.clock() - began
  return run
end

M.tries_of = require("p2pd.lab.matrix_cell").tries_of

return M
