-- busy: stops a user's function that computes on and on and never waits: as long as it does, nothing else of the
-- program can run, and no timeout ends it.
local core = require "p2pd.core"
local luv = require "luv"

local M = {}

local LOOK_EVERY = 1000000 -- instructions
local MOST = 2             -- seconds

--- Watches the running task. What takes longer than 2 s without waiting is thrown out where it is.
function M.watch()
  local began, waited = nil, true
  debug.sethook(function()
    local now = luv.hrtime()
    if waited then
      -- Another task comes to run only when this one waits.
      began, waited = now, false
      core.task.spawn(function() waited = true end):observe()
    elseif now - began > MOST * 1e9 then
      error(("it ran for %d s without waiting, and nothing else could run"):format(MOST), 2)
    end
  end, "", LOOK_EVERY)
end

--- Calls a function so, by pcall.
---@param f function
---@return boolean ok, any ...
function M.call(f)
  M.watch()
  local results = table.pack(pcall(f))
  debug.sethook()
  return table.unpack(results, 1, results.n)
end

return M
