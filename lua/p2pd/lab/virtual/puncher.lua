-- puncher: core.punch's, over virtual hosts: the same bursts, and the same that is seen of them.
local task = require "p2pd.task"

local M = {}

local MOST_HOLES = 32 -- core/punch.h

local puncher = {}
puncher.__index = puncher

---@param options { remote_ip: string, syns: integer }
function M.open(net, side, options)
  local self = setmetatable({
    net = net, side = side, ip = options.remote_ip, syns = options.syns, holes = task.channel(MOST_HOLES),
    counts = { sent = 0, refused = 0, unreachable = 0, connected = 0, accepted = 0, revived = 0 }, taken = {},
  }, puncher)
  self.owner = {
    opened = function(socket)
      if self.closed or socket.ip ~= self.ip or #self.holes >= MOST_HOLES then return side.host:drop(socket) end
      local how = socket.accepted and "accepted" or "connected"
      self.counts[how] = self.counts[how] + 1
      self.holes:send(socket)
    end,
    refused = function() self.counts.refused = self.counts.refused + 1 end,
  }
  return self
end

local function refuse_closed()
  return nil, "ECLOSED: the puncher was closed", "ECLOSED"
end

function puncher:listen(port)
  if self.closed then return refuse_closed() end
  return self.side.host:listen(port, self.owner)
end

function puncher:fire(shots, options)
  if self.closed then return refuse_closed() end
  options = options or {}
  if #shots > self.syns then
    return nil, ("ENOBUFS: this puncher's limit of SYNs leaves no %d more"):format(#shots), "ENOBUFS"
  end
  self.syns = self.syns - #shots
  local start, revive = math.max(options.at or 0, task.now()), nil
  if options.revive and options.revive > 0 then
    revive = { times = options.revive, gap_ms = options.revive_gap_ms or 4 }
  end
  for _, shot in ipairs(shots) do
    if shot.listens and shot.local_port ~= 0 then self.side.host:listen(shot.local_port, self.owner) end
    self.net:at(start + (shot.at_ms or 0) / 1000, function()
      if self.closed then return end
      self.counts.sent = self.counts.sent + 1
      self.side.host:connect {
        local_port = shot.local_port or 0, ip = self.ip, port = shot.remote_port, ttl = shot.ttl,
        listens = shot.listens, revive = revive, owner = self.owner,
      }
    end)
  end
  return true
end

function puncher:wait(timeout)
  local socket, message, code = self.holes:recv(timeout)
  if socket then
    self.taken[socket] = true
    return socket
  end
  if self.closed then return refuse_closed() end
  return nil, message, code
end

function puncher:seen()
  local seen = { open = self.counts.connected + self.counts.accepted, self = 0, stranger = 0, crowded = 0 }
  for name, count in pairs(self.counts) do seen[name] = count end
  return seen
end

function puncher:close()
  if self.closed then return end
  self.closed, self.owner.over = true, true
  self.holes:close()
  self.side.host:leave(self.owner, function(socket) return self.taken[socket] end)
end

return M
