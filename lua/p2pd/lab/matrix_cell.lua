-- matrix_cell: one pair of NATs in a lab: a node behind each of two routers, and an attempt of the one to reach the
-- other. A lab is there for many pairs: of its four routers two translate and two do not, as nothing else about a
-- router has to stay while a lab runs (lab:set).
--
--   a, b    translate: what the connecting and the listening side are behind
--   c, d    the same where nothing is translated
local cjson = require "cjson"
local labs = require "p2pd.lab"
local results = require "p2pd.lab.matrix_results"
local nat = require "p2pd.lab.nat"
local task = require "p2pd.task"

local M = {}

local SEEDS = 2 ^ 32 - 1 | 0
local START = 20         -- seconds until an end is ready
local FAREWELL = 10      -- seconds that a result may come after the attempt's own time
local SAID = 20          -- lines of an end that are kept
local TIMELINE = 16384   -- bytes of the routers' timeline that are kept, about
local LATER = 1e9        -- seconds: nothing was that late
local AT_SERVERS = "30%.1%.0%.%d+:[13][84][87][0-9]%f[%D]" -- 1883, 3478, 3479

local TRANSLATING, PLAIN = { from = "a", to = "b" }, { from = "c", to = "d" }

-- The lab -------------------------------------------------------------------------------------------------------------

--- A lab for pairs under these conditions.
---@param conditions p2pd.lab.MatrixConditions
---@return p2pd.Lab? net, string? message, string? code
function M.lab(conditions)
  local routers = {}
  for name, kind in pairs { a = "port-restricted/equal", b = "port-restricted/equal", c = "open", d = "open" } do
    routers[name] = {
      nat = kind, ipv6 = "none", delay_ms = conditions.delay_ms, loss = conditions.loss, noise = conditions.noise,
      uninvited = conditions.uninvited,
    }
  end
  return labs.up { routers = routers }
end

-- Makes the router on that side a new one of this kind; returns its name and the seed of its chance.
local function become(net, side, kind)
  local name = (nat.keeps_addresses[nat.parse(kind).type] and PLAIN or TRANSLATING)[side]
  local seed = math.random(0, SEEDS)
  local ok, message, code = net:set(name, { nat = kind, seed = seed })
  if not ok then return nil, message, code end
  return name, seed
end

-- An end --------------------------------------------------------------------------------------------------------------

local ending = {}
ending.__index = ending

-- Starts an end on a host, with folders of its own: it knows nothing of the pairs before.
local function start(net, host_name, number, side, conditions)
  local host, message, code = net:host(host_name)
  if not host then return nil, message, code end
  local own = ("%s/home/%d-"):format(host.folder, number)
  local child
  child, message, code = host:start {
    net.program, "lab", "end",
    env = { XDG_DATA_HOME = own .. "data", XDG_CACHE_HOME = own .. "cache", XDG_STATE_HOME = own .. "state" },
  }
  if not child then return nil, message, code end
  local self = setmetatable({ child = child, side = side, said = {}, next_line = child:lines() }, ending)
  self:tell(cjson.encode {
    side = side, turn = conditions.turn, timeout = conditions.timeout, pipeline = conditions.pipeline,
    strategies = conditions.strategies, trip = 4 * conditions.delay_ms / 1000,
  })
  return self
end

function ending:tell(line)
  self.child:write(line .. "\n")
end

-- All else that it says is kept for the case that it fails.
local function keep(self, line)
  if #self.said < SAID then self.said[#self.said + 1] = line end
end

local function next_event(self, name)
  for line in self.next_line do
    local fields = results.decode(line)
    if fields and fields.event == name then return fields end
    if fields and fields.event == "failed" then return nil, fields.message, fields.code end
    keep(self, line)
  end
  return nil, "EIO: it ended", "EIO"
end

--- Waits for an event of an end.
function ending:await(name, seconds)
  local event, message, code = task.timeout(seconds, next_event, self, name)
  if event then return event end
  return nil, ("%s: the %sing end: %s%s"):format(code, self.side, (message:gsub("^%u+: ", "")),
    #self.said > 0 and " (it said: " .. table.concat(self.said, "; ") .. ")" or ""), code
end

function ending:__close()
  self.child:close()
end

-- A pair --------------------------------------------------------------------------------------------------------------

local function tenth(number)
  local tenths = number and math.floor(number * 10 + 0.5)
  return tenths and (tenths % 10 == 0 and tenths // 10 or tenths / 10)
end

--- How often the rung that connected was tried: by the pipeline, or by itself, which its notes say.
function M.tries_of(result)
  for _, rung in ipairs(result.report and result.report.rungs or {}) do
    if rung.ok then
      local tries = rung.tries or 1
      for key in pairs(type(rung.notes) == "table" and rung.notes or {}) do
        tries = math.max(tries, math.tointeger(tonumber(tostring(key):match "%f[%w]try (%d+)$")) or 1)
      end
      return tries
    end
  end
end

-- What the routers did with the hosts' own connections since then: what goes to the servers' own ports is left out.
local function story(net, since)
  local kept, size = {}, 0
  for line in (net:timeline(since) or ""):gmatch "[^\n]+" do
    if line:find " tcp " and not line:find(AT_SERVERS) then
      kept[#kept + 1], size = line:gsub("%s+", " "):gsub("^ ", ""), size + #line
      if size > TIMELINE then
        kept[#kept + 1] = "…"
        break
      end
    end
  end
  return table.concat(kept, "\n")
end

-- Whatever of that has been started ends with this.
local function meet(net, pair, number, conditions, run)
  local hosts, seeds = {}, {}
  for _, side in ipairs { "from", "to" } do
    local name, seed, code = become(net, side, pair[side])
    if not name then return nil, seed, code end
    hosts[side], seeds[side] = name, seed
  end
  local listener <close>, message, code = start(net, hosts.to, number, "listen", conditions)
  if not listener then return nil, message, code end
  local connector <close>, why, what = start(net, hosts.from, number, "connect", conditions)
  if not connector then return nil, why, what end
  local there, here, result
  there, message, code = listener:await("ready", START)
  if not there then return nil, message, code end
  here, message, code = connector:await("ready", START)
  if not here then return nil, message, code end
  local _, since = net:timeline(LATER)
  connector:tell(there.address)
  result, message, code = connector:await("result", conditions.timeout + FAREWELL)
  if not result then return nil, message, code end
  run.ok, run.strategy, run.ms, run.echo_ms = result.ok, result.strategy, tenth(result.ms), tenth(result.echo_ms)
  run.message, run.code, run.remote, run.tries = result.message, result.code, result.remote, M.tries_of(result)
  run.report, run.text, run.seeds = result.report, result.text, seeds
  run.examined = { from = here.own, to = there.own }
  run.unexamined = not (here.examined and there.examined) or nil
  if not run.ok then run.timeline = story(net, tonumber(since)) end
  return run
end

--- Tries a pair once. What comes of it is in the run's fields; nil where that could not be found out: then the lab is
--- not to be used again.
---@param net p2pd.Lab of M.lab
---@param pair {from: string, to: string} their NATs
---@param number integer not given to this lab before
---@param conditions p2pd.lab.MatrixConditions
---@return p2pd.lab.MatrixRun? run, string? message, string? code
function M.run(net, pair, number, conditions)
  local began = task.now()
  local run, message, code = meet(net, pair, number, conditions, { from = pair.from, to = pair.to })
  if not run then return nil, message, code end
  run.seconds = tenth(task.now() - began)
  return run
end

return M
