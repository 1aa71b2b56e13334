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

-- The other parts are loaded when they are first asked for: a script that only sleeps starts at once.
local parts = {
  address = "p2pd.address",
  node = "p2pd.node",
  pipeline = "p2pd.pipeline",
  settings = "p2pd.settings",
}

return setmetatable(M, {
  __index = function(self, key)
    local name = parts[key]
    if not name then return nil end
    local part = require(name)
    rawset(self, key, part)
    return part
  end,
})
