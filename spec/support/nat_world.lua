-- nat_world: STUN servers behind a NAT that core.nat_model plays, for p2pd.nat in virtual time: a round trip, loss,
-- other people's flows, servers that lie or are silent. Nothing of it touches the network.
--
--   local world = nat_world.new { nat = { type = "symmetric", delta = "random" }, rtt = 0.02, loss = 0.02, noise = 5 }
--   nat.check { ip = world.ip, servers = world.servers, means = world.means }
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {}

local INSIDE, EXTERNAL = "192.168.1.10", "30.2.1.2"
local SERVERS = { "30.1.0.3", "30.1.0.4" } -- one machine with two addresses
local PORT, OTHER_PORT = 3478, 3479
local FIRST_WAIT = 0.1                     -- p2pd.stun's
local RESENT = 0.25                        -- TCP sends again what was lost (RFC 6298: 200 ms and a round trip)
local TICK = 1e-6                          -- times are rounded to less
local SYN, SYN_ACK, ACK = 2, 18, 16
local SYSTEM_PORTS = { 32768, 60999 }

local world = {}
world.__index = world

--- `nat`: what core.nat_model.new takes; `open` and `udp-firewall` have the inside address outside.
--- `alone`: further servers, each with one address; `liars[ip](ip, port)`: what it says instead; `silent[ip]`.
--- `tcp_other`: whether servers tell their other address over TCP; `changes`: false: they know no change requests.
function M.new(options)
  local nat = {}
  for key, value in pairs(options.nat) do nat[key] = value end
  local translates = nat.type ~= "open" and nat.type ~= "udp-firewall"
  nat.external = nat.external or translates and { EXTERNAL } or {}
  nat.noise = nat.noise or options.noise
  nat.seed = nat.seed or options.seed
  local self = setmetatable({
    model = core.nat_model.new(nat), ip = translates and INSIDE or EXTERNAL, rtt = options.rtt or 0.02,
    loss = options.loss or 0, liars = options.liars or {}, silent = options.silent or {},
    changes = options.changes ~= false, tcp_other = options.tcp_other, servers = {}, others = {}, used = {}, opened = 0,
  }, world)
  for i, ip in ipairs(SERVERS) do
    self.servers[i] = { ip = ip, port = PORT }
    self.others[ip] = SERVERS[3 - i]
  end
  for _, ip in ipairs(options.alone or {}) do self.servers[#self.servers + 1] = { ip = ip, port = PORT } end
  self.means = {
    socket = function(given) return self:socket(given) end,
    connect = function(given) return self:connect(given) end,
  }
  return self
end

function world:lost()
  return math.random() < self.loss
end

function world:listens(ip, port)
  if self.silent[ip] then return false end
  return port == PORT or port == OTHER_PORT and self.others[ip] ~= nil
end

-- From us to a server: the external endpoint that it sees, or nil. Half of the losses are before the router.
function world:out(transport, port, ip, server_port, flags)
  local lost = self:lost()
  if lost and math.random() < 0.5 then return nil end
  local external_ip, external_port = self.model:outbound(task.now(), transport, self.ip, port, ip, server_port, flags)
  if not lost then return external_ip, external_port end
end

-- From a server to us, half a round trip ago.
function world:back(transport, ip, server_port, external_ip, external_port, flags)
  if self:lost() then return false end
  return (self.model:inbound(task.now(), transport, ip, server_port, external_ip, external_port, flags)) ~= nil
end

function world:says(ip, external_ip, external_port)
  local liar = self.liars[ip]
  if liar then return liar(external_ip, external_port) end
  return external_ip, external_port
end

local function timed_out()
  return nil, "ETIMEDOUT: no answer", "ETIMEDOUT"
end

-- UDP -----------------------------------------------------------------------------------------------------------------

local socket = {}
socket.__index = socket

function world:socket(given)
  local port = given.port or 0
  if port ~= 0 and self.used[port] then return nil, "EADDRINUSE: it is taken", "EADDRINUSE" end
  while port == 0 or self.used[port] do port = math.random(SYSTEM_PORTS[1], SYSTEM_PORTS[2]) end
  self.used[port] = true
  self.opened = self.opened + 1
  return setmetatable({ world = self, local_port = port, local_ip = given.ip }, socket)
end

-- One request: when its answer comes, and what it says; nil when none does.
function socket:request(ip, port, change)
  local here = self.world
  local external_ip, external_port = here:out("udp", self.local_port, ip, port)
  if not external_ip or not here:listens(ip, port) then return nil end
  local from_ip, from_port = ip, port
  local other = here.others[ip]
  if change and not (other and here.changes) then return nil end
  if change then from_port = port == PORT and OTHER_PORT or PORT end
  if change == "both" then from_ip = other end
  return {
    at = task.now() + here.rtt, external = { external_ip, external_port }, from_ip = from_ip, from_port = from_port,
    answering = ip, other_ip = here.changes and other or nil,
  }
end

function socket:ask(ip, port, options)
  local began, answers, next_at, wait, requests = task.now(), {}, task.now(), FIRST_WAIT, 0
  local deadline = began + options.timeout
  while true do
    table.sort(answers, function(a, b) return a.at < b.at end)
    local at = math.min(deadline, next_at, answers[1] and answers[1].at or deadline)
    if at > task.now() + TICK then task.sleep(at - task.now()) end
    local now = task.now() + TICK
    if answers[1] and answers[1].at <= now then
      local answer = table.remove(answers, 1)
      if self.world:back("udp", answer.from_ip, answer.from_port, table.unpack(answer.external)) then
        local external_ip, external_port = self.world:says(answer.answering, table.unpack(answer.external))
        return {
          external_ip = external_ip, external_port = external_port, from_ip = answer.from_ip,
          from_port = answer.from_port, other_ip = answer.other_ip, other_port = answer.other_ip and OTHER_PORT,
          rtt = self.world.rtt, requests = requests,
        }
      end
    elseif deadline <= now then
      return timed_out()
    elseif next_at <= now then
      requests = requests + 1
      answers[#answers + 1] = self:request(ip, port, options.change)
      next_at = options.retries == false and math.huge or task.now() + wait
      wait = wait * 2
    end
  end
end

function socket:close()
  if self.closed then return end
  self.closed = true
  self.world.used[self.local_port] = nil
  self.world.opened = self.world.opened - 1
end

-- TCP -----------------------------------------------------------------------------------------------------------------

-- What is lost within a connection comes later.
function world:resent(began, deadline)
  local at = task.now() + self.rtt
  for _ = 1, 2 do
    if self:lost() then at = at + RESENT end
  end
  if at > deadline then
    task.sleep(deadline - task.now())
    return false
  end
  task.sleep(at - task.now())
  return true, (at - began) / 2
end

function world:connect(given)
  local began, ip, port = task.now(), given.ip, given.port
  local deadline = began + given.timeout
  local external_ip, external_port = self:out("tcp", given.local_port, ip, port, SYN)
  task.sleep(math.min(self.rtt, given.timeout))
  if task.now() + TICK >= deadline or not external_ip or not self:listens(ip, port)
    or not self:back("tcp", ip, port, external_ip, external_port, SYN_ACK) then
    task.sleep(math.max(0, deadline - task.now()))
    return timed_out()
  end
  self.model:outbound(task.now(), "tcp", self.ip, given.local_port, ip, port, ACK)
  local came, rtt = self:resent(began, deadline)
  if not came then return timed_out() end
  self.opened = self.opened + 1
  local said_ip, said_port = self:says(ip, external_ip, external_port)
  local other = self.tcp_other and self.others[ip] or nil
  return {
    external_ip = said_ip, external_port = said_port, local_port = given.local_port, rtt = rtt, other_ip = other,
    other_port = other and OTHER_PORT,
    close = function(connection)
      if not connection.closed then self.opened = self.opened - 1 end
      connection.closed = true
    end,
  }
end

return M
