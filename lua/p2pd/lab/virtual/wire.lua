-- wire: what lies between hosts: their routers, which core.nat_model plays, and the way between these. Whatever happens
-- is an event with a time; whoever has the wire says when that is now. Pure.
--
--   side    { ip, external_ip, router, host, delay }: a host (p2pd.lab.virtual.tcp) behind its router; `delay` seconds
--           from the router to the middle
local tcp = require "p2pd.lab.virtual.tcp"

local M = {
  LAN = 0.0003, -- seconds from a host to its router
}

local SYN = 2

local wire = {}
M.methods = wire

-- Time ----------------------------------------------------------------------------------------------------------------

-- A heap of { at, order, what }: what happens at the same time happens in the order of its making.
local function is_before(a, b)
  return a.at < b.at or a.at == b.at and a.order < b.order
end

--- Lets something happen at a time, or now where that has passed.
function wire:at(time, what)
  local heap, i = self.heap, #self.heap + 1
  self.order = self.order + 1
  local event = { at = math.max(time, self.now), order = self.order, what = what }
  while i > 1 and is_before(event, heap[i // 2]) do
    heap[i] = heap[i // 2]
    i = i // 2
  end
  heap[i] = event
  if i == 1 and self.hurry then self:hurry() end
end

local function pop(heap)
  local top, last = heap[1], table.remove(heap)
  local count, i = #heap, 1
  if count == 0 then return top end
  while 2 * i <= count do
    local child = 2 * i
    if child < count and is_before(heap[child + 1], heap[child]) then child = child + 1 end
    if not is_before(heap[child], last) then break end
    heap[i] = heap[child]
    i = child
  end
  heap[i] = last
  return top
end

--- When the next thing happens.
---@return number
function wire:next_at()
  return self.heap[1] and self.heap[1].at or math.huge
end

--- It is that time now.
function wire:reach(time)
  self.now = time
end

--- Lets it happen.
function wire:step()
  local event = pop(self.heap)
  self:reach(event.at)
  event.what()
end

-- Packets -------------------------------------------------------------------------------------------------------------

function wire:lost()
  return self.loss > 0 and self.chance() < self.loss
end

local function refuse(self, packet, answer, way)
  if answer == "reset" then
    self:at(self.now + way, function()
      if self:lost() then return end
      self:arrive({
        from_ip = packet.ip, from_port = packet.port, ip = packet.from_ip, port = packet.from_port,
        flags = tcp.RST | tcp.ACK, acked = packet.number,
      }, way)
    end)
  elseif answer == "unreachable" and packet.socket then
    self:at(self.now + way, function()
      if not self:lost() then packet.sender.host:refused_by_icmp(packet.socket, packet.number) end
    end)
  end
end

--- A packet is at the other router.
function wire:arrive(packet, way)
  local side = self.by_ip[packet.ip]
  if not side then return end
  local ip, port_or_reason, answer = side.router:inbound(self.now, "tcp", packet.from_ip, packet.from_port, packet.ip,
    packet.port, packet.flags)
  if ip then
    packet.port, packet.to_port = port_or_reason, packet.port
    self:at(self.now + M.LAN, function() side.host:receive(packet) end)
  elseif answer then
    refuse(self, packet, answer, way)
  end
end

--- A packet leaves a host: `packet` = { local_port, ip, port, flags, ttl, number, acked, socket }.
function wire:send(side, packet)
  if packet.flags == SYN then self.syns = self.syns + 1 end
  local lost = self:lost()
  if lost and self.chance() < 0.5 then return end
  self:at(self.now + M.LAN, function()
    local from_ip, from_port = side.router:outbound(self.now, "tcp", side.ip, packet.local_port, packet.ip,
      packet.port, packet.flags)
    if not from_ip then return end
    if packet.socket then packet.socket.external_port = from_port end
    local to = self.by_ip[packet.ip]
    local way = side.delay + (to and to.delay or side.delay)
    if packet.ttl and packet.ttl - 1 <= self.hops then
      -- Time exceeded (RFC 792) comes back from where it ended.
      self:at(self.now + way / 2, function() side.host:unreachable(packet.socket) end)
    elseif not lost then
      self:at(self.now + way, function()
        self:arrive({
          from_ip = from_ip, from_port = from_port, ip = packet.ip, port = packet.port, flags = packet.flags,
          number = packet.number, acked = packet.acked, socket = packet.socket, sender = side,
        }, way)
      end)
    end
  end)
end

return M
