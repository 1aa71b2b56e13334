-- p2pd: what `require "p2pd"` gives.
local task = require "p2pd.task"

local M = {
  spawn = task.spawn,
  sleep = task.sleep,
  race = task.race,
  timeout = task.timeout,
  channel = task.channel,
  group = task.group,
  run = task.run,
  now = task.now,
  is_cancelled = task.is_cancelled,
}

--- Starts a node: see p2pd.NodeOptions.
function M.node(options)
  return require("p2pd.node").open(options)
end

-- The other parts are loaded when they are first asked for: a script that only sleeps starts at once.
local parts = {
  address = "p2pd.address", clock = "p2pd.clock", lab = "p2pd.lab", nat = "p2pd.nat", netcheck = "p2pd.netcheck",
  nic = "p2pd.nic", pipeline = "p2pd.pipeline", portmap = "p2pd.portmap", punch = "p2pd.punch",
  reach = "p2pd.reach", settings = "p2pd.settings", stun = "p2pd.stun",
  timeline = "p2pd.timeline", turn = "p2pd.turn",
}

return setmetatable(M, {
  __index = function(self, key)
    local part = parts[key] and require(parts[key])
    rawset(self, key, part)
    return part
  end,
})
