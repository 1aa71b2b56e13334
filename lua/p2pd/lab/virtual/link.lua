-- link: a connection of which both ends may prove their keys: how long TLS 1.3 takes, from when each end is ready.
local task = require "p2pd.task"

local M = {}

local PROOF = 0.0006 -- seconds that an end computes

local link = {}
link.__index = link

local pipe = {}
pipe.__index = pipe
pipe.__name = "p2pd.pipe"

--- `way`: seconds from one end to the other.
function M.new(world, way)
  return setmetatable({ world = world, way = way, ready = {}, changed = task.condition() }, link)
end

-- When the keys are proven at an end; nil while the other one is not ready.
local function proven_at(self, role)
  local client, server = self.ready.client, self.ready.server
  if not client or not server then return nil end
  local at_client = math.max(client + self.way, server) + PROOF + self.way + PROOF
  return role == "client" and at_client or at_client + self.way + PROOF
end

local function lost(self, other)
  local closed = self.closed and self.closed[other]
  return closed and task.now() >= closed + self.way - 1e-9
end

--- Says that an end is ready, and waits until both keys are proven.
---@param role "client"|"server"
---@param timeout number seconds
---@param remote string
---@return table? pipe, string? message, string? code
function link:secure(role, timeout, remote, relayed)
  local other, deadline = role == "client" and "server" or "client", task.now() + timeout
  if self.ready[role] then return nil, "EBUSY: the connection is in use", "EBUSY" end
  self.ready[role] = task.now()
  self.changed:signal()
  while true do
    if lost(self, other) then return nil, ("ECONNRESET: %s closed"):format(remote), "ECONNRESET" end
    local at, now = proven_at(self, role), task.now()
    if at and now >= at - 1e-9 then
      return setmetatable({ link = self, role = role, remote = remote, relayed = relayed }, pipe)
    end
    if now >= deadline - 1e-9 then
      self:close(role)
      return nil, ("ETIMEDOUT: %s proved no key"):format(remote), "ETIMEDOUT"
    end
    local until_time = deadline
    if at then until_time = math.min(until_time, at) end
    if self.closed and self.closed[other] then until_time = math.min(until_time, self.closed[other] + self.way) end
    self.changed:wait(math.max(0, until_time - now))
  end
end

--- An end closes it.
function link:close(role)
  self.closed = self.closed or {}
  self.closed[role] = self.closed[role] or task.now()
  self.changed:signal()
end

function pipe:close()
  if self.is_closed then return true end
  self.is_closed = true
  self.link:close(self.role)
  return true
end

pipe.__close = pipe.close

function pipe:__tostring()
  return ("pipe to %s%s"):format(self.remote, self.is_closed and " (closed)" or "")
end

return M
