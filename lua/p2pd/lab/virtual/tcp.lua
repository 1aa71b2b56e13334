-- tcp: a host's TCP as far as connections open, for p2pd.lab.virtual.wire: what connect() and listen() do, and what the
-- executor (core.punch.open) makes of what they say. Pure.
--
-- A socket may have an owner: `owner.opened(socket)` is called when it is a connection, `owner.refused(socket)` when a
-- RST has come and it is not fired again. What a listener accepts has the listener's owner.
local M = { RST = 4, ACK = 16 }

local SYN, RST, ACK, SYN_ACK, RST_ACK = 2, M.RST, M.ACK, 18, 20
local RESENT = { 1, 3, 7 } -- seconds after the first (RFC 6298, 2.1)
local EPHEMERAL = { 52000, 60999 }

local host = {}
host.__index = host

--- `world`: a p2pd.lab.virtual.wire, or what has its methods.
function M.host(world, side)
  return setmetatable({ world = world, side = side, sockets = {}, listeners = {}, any = EPHEMERAL[1] }, host)
end

local numbers = {} -- of addresses: taking them apart would be most of the work

-- The four of a connection, less our own address, as one number.
local function key_of(local_port, ip, port)
  local number = numbers[ip]
  if not number then
    number = string.unpack(">I4", string.char(ip:match "(%d+)%.(%d+)%.(%d+)%.(%d+)"))
    numbers[ip] = number
  end
  return number | port << 32 | local_port << 48
end

--- Listens on a port: a port of 0 is any. Returns the port.
function host:listen(port, owner)
  if port == 0 then port = self:any_port() end
  self.listeners[port] = owner or true
  return port
end

function host:close()
  for _, socket in pairs(self.sockets) do socket.over = true end
  self.sockets, self.listeners = {}, {}
end

--- Ends a socket, whatever its state.
function host:drop(socket)
  socket.over = true
  if self.sockets[socket.key] == socket then self.sockets[socket.key] = nil end
end

--- Ends an owner's listeners, and those of its sockets that `keeps` does not name.
function host:leave(owner, keeps)
  for port, listener in pairs(self.listeners) do
    if listener == owner then self.listeners[port] = nil end
  end
  for _, socket in pairs(self.sockets) do
    if socket.owner == owner and not (keeps and keeps(socket)) then self:drop(socket) end
  end
end

--- A port that the system gives.
function host:any_port()
  local port = self.any
  self.any = port + 1 > EPHEMERAL[2] and EPHEMERAL[1] or port + 1
  return port
end

function host:out(socket, flags, more)
  self.world:send(self.side, {
    local_port = socket.local_port, ip = socket.ip, port = socket.port, flags = flags, number = socket.number,
    acked = more and more.acked, ttl = more and more.ttl, socket = socket,
  })
end

function host:resend(socket, time)
  local delay = RESENT[time]
  if not delay then return end
  local number = socket.number
  self.world:at(socket.began + delay, function()
    if socket.over or socket.number ~= number or socket.state == "established" then return end
    self:out(socket, socket.state == "sent" and SYN or SYN_ACK)
    self:resend(socket, time + 1)
  end)
end

function host:begin(socket, state)
  self.world.numbers = self.world.numbers + 1 -- a sequence number: what answers it names it
  socket.number, socket.state, socket.began = self.world.numbers, state, self.world.now
  self:resend(socket, 1)
end

--- connect(): { local_port, ip, port, ttl?, revive?, listens?, owner? }; nil when the four are in use.
function host:connect(to)
  local local_port = to.local_port
  if local_port == 0 then local_port = self:any_port() end
  local at = key_of(local_port, to.ip, to.port)
  if to.listens then self.listeners[local_port] = to.owner or true end
  if self.sockets[at] then return nil end -- EADDRNOTAVAIL
  local socket = {
    key = at, local_port = local_port, ip = to.ip, port = to.port, revive = to.revive, revived = 0, ttl = to.ttl,
    owner = to.owner,
  }
  self.sockets[at] = socket
  self:begin(socket, "sent")
  self:out(socket, SYN, to.ttl and { ttl = to.ttl })
  return socket
end

-- What died of an ICMP error leaves its port to the listener.
function host:unreachable(socket)
  if not socket or socket.over or socket.state ~= "sent" then return end
  socket.over = true
  self.sockets[socket.key] = nil
end

--- Refused: fired again, if it may be.
function host:refused(socket)
  socket.over = true
  self.sockets[socket.key] = nil
  local owner = socket.owner
  if not socket.revive or socket.revived >= socket.revive.times then
    if owner and owner.refused then owner.refused(socket) end
    return
  end
  self.world:at(self.world.now + socket.revive.gap_ms / 1000, function()
    if self.sockets[socket.key] or not next(self.listeners) or owner and owner.over then return end
    local again = {
      key = socket.key, owner = owner, local_port = socket.local_port, ip = socket.ip, port = socket.port,
      revive = socket.revive, revived = socket.revived + 1, external_port = socket.external_port,
    }
    self.sockets[again.key] = again
    self:begin(again, "sent")
    self:out(again, SYN)
  end)
end

--- What an ICMP error says that means the same as a RST.
function host:refused_by_icmp(socket, number)
  if not socket or socket.over or socket.state ~= "sent" or socket.number ~= number then return end
  self:refused(socket)
end

function host:establish(socket)
  socket.state = "established"
  self.world:established(self.side, socket)
end

function host:receive(packet)
  local at = key_of(packet.port, packet.from_ip, packet.from_port)
  local socket, flags = self.sockets[at], packet.flags
  if flags & RST ~= 0 then
    if socket and socket.state ~= "established" and packet.acked == socket.number then self:refused(socket) end
    return
  end
  if not socket and flags == SYN and self.listeners[packet.port] then
    socket = {
      key = at, local_port = packet.port, ip = packet.from_ip, port = packet.from_port, external_port = packet.to_port,
      owner = self.listeners[packet.port] ~= true and self.listeners[packet.port] or nil, accepted = true,
    }
    self.sockets[at] = socket
    self:begin(socket, "received")
    self:out(socket, SYN_ACK, { acked = packet.number })
  elseif not socket then
    self.world:send(self.side, {
      local_port = packet.port, ip = packet.from_ip, port = packet.from_port, flags = RST_ACK, acked = packet.number,
    })
  elseif flags == SYN then
    if socket.state == "sent" then socket.state = "received" end
    if socket.state == "received" then self:out(socket, SYN_ACK, { acked = packet.number }) end
  elseif packet.acked == socket.number and socket.state ~= "established" then
    if flags == SYN_ACK then self:out(socket, ACK, { acked = packet.number }) end
    self:establish(socket)
  elseif flags == SYN_ACK and socket.state == "established" then
    self:out(socket, ACK, { acked = packet.number })
  end
end

return M
