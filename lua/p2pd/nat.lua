-- nat: what kind of NAT there is. STUN servers are asked, side by side, from ports in a known order; what they say goes
-- to core.nat, which judges. What is asked when, and for how long an answer is waited for, is decided here.
--
--   mapping     one port asks all servers, and then their other addresses and ports (RFC 5780, 4.3)
--   filtering   a port for each server, which asks it to answer from elsewhere (RFC 5780, 4.4); by UDP alone
--   series      new ports, one after another and in jumps: which external port does each get?
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {
  classify = core.nat.classify,
}

-- Seconds. Requests are sent after 0, 0.1, 0.3, 0.7 (RFC 8489, 6.2.1, begun at 0.1): four of them are silence enough.
local FIRST_WAIT, FOURTH = 0.1, 0.7
local PATIENCE = 1.0     -- for servers of which nothing is known
local TCP_PATIENCE = 1.4 -- where a connection and an answer take two round trips
local MARGIN = 0.05      -- beside round trips
local LATE = 0.1         -- after the first of a series, what has not come by then is lost
local UDP_SAYS = 0.15    -- until UDP has told a server's other address, which TCP has no means to ask for
local TICK = 0.001       -- the shortest wait
local LIMIT = 1.2        -- after which no further series begins

local SERVERS = 4        -- that are asked
local BLOCKS, ROUNDS = 2, 3
local ATTEMPTS = 3       -- of a connection, each abandoned soon
local ENOUGH = 0.9       -- confidence for which no further series is needed
-- Of ours, below and above: a router that keeps ports within a range of its own shows it only to who is inside.
local PORTS = { { 20000, 32000 }, { 40000, 58000 } }

-- Local ports of a block: in a row, a jump forward, in a row, a jump back. Rows show "dependent", jumps tell it from
-- "preserving" and "independent".
local BLOCK = { 0, 1, 2, 3, 8, 9, 10, 11, 5 }
local BLOCK_DISTANCE = 1100

local option_types = {
  ip = "string", servers = "table", transport = "string", udp = "table", turn = "function", on_progress = "function",
  means = "table",
}

-- How many requests go out within so many seconds.
local function tries_within(timeout)
  local count, at, wait = 1, FIRST_WAIT, FIRST_WAIT
  while at < timeout do
    count, wait = count + 1, wait * 2
    at = at + wait
  end
  return count
end

local function endpoint(ip, port)
  return ip .. " " .. port
end

-- A check -------------------------------------------------------------------------------------------------------------

local check = {}
check.__index = check

local function servers_of(options)
  local list = {}
  for i = 1, math.min(SERVERS, #options.servers) do
    local server = type(options.servers[i]) == "table" and options.servers[i] or {}
    list[i] = { ip = server.ip or server[1], port = server.port or server[2] or 3478 } -- RFC 8489, 18.4
  end
  return list
end

local function check_options(options, level)
  if type(options) ~= "table" then error("options are a table", level + 1) end
  for key, value in pairs(options) do
    local kind = option_types[key] or error(("unknown option '%s'"):format(tostring(key)), level + 1)
    if type(value) ~= kind then error(("'%s' is a %s, not a %s"):format(key, type(value), kind), level + 1) end
  end
  if not options.ip then error("'ip' is missing: the address that is to be looked at", level + 1) end
  if not options.servers or #options.servers == 0 then error("'servers' has no STUN server in it", level + 1) end
  for i, server in ipairs(servers_of(options)) do
    if type(server.ip) ~= "string" or not core.address.ip(server.ip) or math.type(server.port) ~= "integer" then
      error(("servers[%d] is no { ip = …, port = … }"):format(i), level + 1)
    end
  end
end

-- How servers are reached: p2pd.stun, or a world of a spec.
local function means_of(options)
  if options.means then return options.means end
  local stun = require "p2pd.stun"
  return { socket = stun.socket, connect = stun.connect }
end

local function new(options, transport)
  return setmetatable({
    transport = transport, patience = transport == "udp" and PATIENCE or TCP_PATIENCE,
    ip = options.ip, servers = servers_of(options), means = means_of(options),
    on_progress = options.on_progress or function() end, turn = options.turn, base = math.random(0, 65535),
    seen = {}, tests = {}, others = {}, rtts = {}, open = {}, changed = task.condition(), started = task.now(),
  }, check)
end

function check:__close()
  for _, thing in ipairs(self.open) do thing:close() end
end

-- One socket of ours on this address; on a port of the system's choice unless one is given.
function check:socket(port)
  local socket, message, code = self.means.socket { ip = self.ip, port = port }
  if not socket then
    self.failure = self.failure or { message, code }
    return nil
  end
  self.open[#self.open + 1] = socket
  return socket
end

-- A request goes out now: its place in the list is its place in time.
function check:record(local_port, ip, port, tries)
  local entry = { local_port = local_port, server_ip = ip, server_port = port, tries = tries }
  self.seen[#self.seen + 1] = entry
  return entry
end

-- Of another address only such a one as the server's own is asked: no server leads us into our own network.
local function is_believable(answer, server_ip)
  local other, server = answer.other_ip and core.address.ip(answer.other_ip), core.address.ip(server_ip)
  return other and other.kind == server.kind and other.family == server.family and (answer.other_port or 0) > 0
end

function check:heard(entry, answer, seconds)
  entry.external_ip, entry.external_port = answer.external_ip, answer.external_port
  if is_believable(answer, entry.server_ip) then
    self.others[endpoint(entry.server_ip, entry.server_port)] = { ip = answer.other_ip, port = answer.other_port }
  end
  self.rtts[entry.server_ip] = math.min(self.rtts[entry.server_ip] or seconds, seconds)
  self.changed:signal()
  return answer
end

-- Who refuses was reached; but for silence, all else means that nothing went out.
local refusals = { ECONNREFUSED = true, ECONNRESET = true, EPROTO = true }

function check:missed(entry, message, code)
  entry.refused = refusals[code]
  entry.void = code ~= "ETIMEDOUT" and not entry.refused
  if code ~= "ETIMEDOUT" then self.failure = self.failure or { message, code } end
  self.changed:signal()
end

-- Asks a server by UDP; `once` sends one request, so that its place in time is known.
function check:ask(socket, ip, port, timeout, once)
  local entry = self:record(socket.local_port, ip, port, once and 1 or tries_within(timeout))
  local sent = task.now()
  local answer, message, code = socket:ask(ip, port, { timeout = timeout, retries = not once })
  if answer then return self:heard(entry, answer, answer.requests == 1 and answer.rtt or task.now() - sent) end
  self:missed(entry, message, code)
end

-- Asks a server over TCP; the connection stays open.
function check:connect(local_port, ip, port, entry)
  local sent = task.now()
  entry = entry or self:record(local_port, ip, port, 1)
  local connection, message, code = self.means.connect {
    ip = ip, port = port, local_ip = self.ip, local_port = local_port, timeout = TCP_PATIENCE,
  }
  if not connection then return self:missed(entry, message, code) end
  self.open[#self.open + 1] = connection
  return self:heard(entry, connection, (task.now() - sent) / 2) -- one round trip to connect, one to ask
end

-- What was seen until now, as core.nat takes it.
function check:observations()
  local observations = { transport = self.transport, ip = self.ip, seen = {}, tests = self.tests }
  for _, entry in ipairs(self.seen) do
    if not entry.void then observations.seen[#observations.seen + 1] = entry end
  end
  if self.udp then
    observations.tests = self.udp.tests
    observations.udp_silent = not self.udp:answered()
    observations.stranger = self.stranger
  end
  return observations
end

function check:answered()
  for _, entry in ipairs(self.seen) do
    if entry.external_ip then return true end
  end
  return false
end

function check:judge()
  local observations = self:observations()
  local result = core.nat.classify(observations)
  result.observations = observations
  return result
end

function check:progress(part)
  if self:answered() then self.on_progress(part, self:judge()) end
end

-- Mapping and filtering by UDP ----------------------------------------------------------------------------------------

-- The server's other address and port, and its own address with the other port.
local function elsewhere(server, other)
  if other then return { { ip = other.ip, port = other.port }, { ip = server.ip, port = other.port } } end
  return {}
end

function check:map_by_udp()
  local socket = self:socket()
  if not socket then return end
  local asked, tasks <close> = {}, task.group()
  local function ask(target, timeout)
    local key = endpoint(target.ip, target.port)
    if asked[key] then return end
    asked[key] = true
    return self:ask(socket, target.ip, target.port, timeout)
  end
  for _, server in ipairs(self.servers) do
    tasks:spawn(function()
      ask(server, PATIENCE)
      for _, target in ipairs(elsewhere(server, self.others[endpoint(server.ip, server.port)])) do
        tasks:spawn(ask, target, FOURTH + 2 * self.rtts[server.ip] + MARGIN)
      end
    end)
  end
  for _, one in ipairs(tasks) do one:wait() end
  self:progress "mapping"
end

-- From a port that speaks to this server alone.
function check:filter_by(server)
  local socket = self:socket()
  local answer = socket and self:ask(socket, server.ip, server.port, PATIENCE)
  local other = answer and self.others[endpoint(server.ip, server.port)]
  if not other then return end
  local timeout = FOURTH + 2 * self.rtts[server.ip] + MARGIN
  local tasks <close> = task.group()
  for _, change in ipairs { "both", "port" } do
    tasks:spawn(function()
      local test = {
        server_ip = server.ip, server_port = server.port, from_ip = change == "both" and other.ip or server.ip,
        from_port = other.port, tries = tries_within(timeout),
      }
      test.answered = socket:ask(server.ip, server.port, { change = change, timeout = timeout }) ~= nil
      self.tests[#self.tests + 1] = test
    end)
  end
  for _, one in ipairs(tasks) do one:wait() end
  self:progress "filtering"
end

local under_way = { ready = 1, running = 1, parked = 1 }

-- Mapping over TCP ----------------------------------------------------------------------------------------------------

-- Waits for a task until that is late, by what is known of the round trip to that server then.
function check:in_time(one, server_ip)
  local began = task.now()
  while under_way[one:status()] do
    local rtt = self.rtts[server_ip]
    local left = began + (rtt and 3 * rtt + LATE or TCP_PATIENCE) - task.now()
    if left <= 0 then return nil end
    self.changed:wait(math.max(TICK, left))
  end
  return one:wait()
end

-- A connection whose SYN was lost is abandoned, and another one tried: TCP's own patience is a second at least.
function check:reach(local_port, target, server_ip)
  for _ = 1, ATTEMPTS do
    local attempt <close> = task.group()
    local entry
    local connection = self:in_time(attempt:spawn(function()
      entry = self:record(local_port, target.ip, target.port, 1) -- when the SYN leaves, not before
      return self:connect(local_port, target.ip, target.port, entry)
    end), server_ip)
    if connection or entry.refused or entry.void then return connection end
  end
end

-- Where else the server listens: it says so by UDP, and some do over TCP. Where UDP is blocked, the usual place.
function check:other_of(server)
  local key, deadline = endpoint(server.ip, server.port), self.started + UDP_SAYS
  while true do
    local other = self.others[key] or self.udp.others[key]
    if other or self.udp:answered() and task.now() >= deadline then return other end
    if task.now() >= deadline then return { ip = server.ip, port = server.port + 1 } end
    self.changed:wait(math.max(TICK, deadline - task.now()))
  end
end

function check:map_by_tcp()
  local asked, tasks <close> = {}, task.group()
  local local_port = math.random(PORTS[1][1], PORTS[1][2])
  local function reach(target, server_ip)
    local key = endpoint(target.ip, target.port)
    if asked[key] then return end
    asked[key] = true
    return self:reach(local_port, target, server_ip)
  end
  for _, server in ipairs(self.servers) do
    tasks:spawn(function()
      local connection = reach(server, server.ip)
      if not connection then return end
      if self.turn and not self.asked_turn then
        self.asked_turn = true
        tasks:spawn(function()
          self.stranger = self.turn(connection.external_ip, connection.external_port, local_port)
        end)
      end
      for _, target in ipairs(elsewhere(server, self:other_of(server))) do tasks:spawn(reach, target, server.ip) end
    end)
  end
  for _, one in ipairs(tasks) do one:wait() end
  self:progress "mapping"
end

-- The series ----------------------------------------------------------------------------------------------------------

-- Waits until all of them have ended, or what is left is late.
function check:wait_for(tasks, began)
  local first
  while true do
    local running = 0
    for _, one in ipairs(tasks) do running = running + (under_way[one:status()] or 0) end
    local now = task.now()
    if self:answered() then first = first or now - began end
    local limit = began + (first and math.max(2.5 * first, first + LATE) or self.patience)
    if running == 0 or now >= limit then return end
    self.changed:wait(math.max(TICK, limit - now))
  end
end

-- New ports, in their order, ask one server. Blocks lie apart from each other.
function check:block(tasks, server, place)
  local first, last = table.unpack(PORTS[place % #PORTS + 1])
  local base = first + (self.base + place * BLOCK_DISTANCE) % (last - first)
  for _, offset in ipairs(BLOCK) do
    local port = base + offset
    if self.transport == "tcp" then
      tasks:spawn(self.connect, self, port, server.ip, server.port)
    else
      local socket = self:socket(port)
      if socket then tasks:spawn(self.ask, self, socket, server.ip, server.port, PATIENCE, true) end
    end
  end
end

-- The servers that have answered, or all.
function check:speaking()
  local spoken, list = {}, {}
  for _, entry in ipairs(self.seen) do
    if entry.external_ip then spoken[endpoint(entry.server_ip, entry.server_port)] = true end
  end
  for _, server in ipairs(self.servers) do
    if spoken[endpoint(server.ip, server.port)] then list[#list + 1] = server end
  end
  return #list > 0 and list or self.servers
end

function check:series()
  local place = 0
  for _ = 1, ROUNDS do
    local began, tasks <close> = task.now(), task.group()
    local servers = self:speaking()
    for _ = 1, math.max(BLOCKS, math.min(3, #servers)) do
      place = place + 1
      self:block(tasks, servers[(place - 1) % #servers + 1], place)
    end
    self:wait_for(tasks, began)
    if not self:answered() or self:judge().delta_confidence >= ENOUGH or task.now() > self.started + LIMIT then
      break
    end
  end
  self:progress "delta"
end

-- Together ------------------------------------------------------------------------------------------------------------

-- Of mapping, filtering and series the first packets leave in this order, at once.
function check:start(tasks)
  if self.transport == "udp" then
    tasks:spawn(self.map_by_udp, self)
    for _, server in ipairs(self.servers) do tasks:spawn(self.filter_by, self, server) end
  else
    tasks:spawn(self.map_by_tcp, self)
  end
  tasks:spawn(self.series, self)
end

-- Silence says something of the router; that nothing could be sent, or was refused by all, says nothing.
function check:finish()
  local heard = self:answered()
  for _, entry in ipairs(self.seen) do heard = heard or not entry.void and not entry.refused end
  if heard or not self.failure then return self:judge() end
  return nil, table.unpack(self.failure)
end

local function wait_all(tasks)
  for _, one in ipairs(tasks) do one:wait() end
end

local function udp_before(result)
  local seen, tests = result.observations.seen, result.observations.tests
  local others = {}
  for _, test in ipairs(tests) do
    local other = { ip = test.from_ip, port = test.from_port }
    if test.from_ip ~= test.server_ip then others[endpoint(test.server_ip, test.server_port)] = other end
  end
  return setmetatable({ seen = seen, tests = tests, others = others }, check)
end

--- What kind of NAT is before an address, for one transport.
---@param options p2pd.NatOptions
---@return p2pd.NatResult? result, string? message, p2pd.Code? code
function M.check(options)
  check_options(options, 2)
  local transport = options.transport or "udp"
  if transport ~= "udp" and transport ~= "tcp" then error("'transport' is neither udp nor tcp", 2) end
  local self <close> = new(options, transport)
  local udp <close> = new(options, "udp")
  local tasks <close> = task.group()
  self:start(tasks)
  if transport == "tcp" then
    self.udp = options.udp and udp_before(options.udp) or udp
    udp.on_progress, udp.changed, udp.rtts = function() end, self.changed, self.rtts
    for _, server in ipairs(options.udp and {} or udp.servers) do tasks:spawn(udp.filter_by, udp, server) end
  end
  wait_all(tasks)
  return self:finish()
end

--- The same for both transports at once: TCP's filtering is taken from UDP's tests, which are made once.
---@param options p2pd.NatOptions
---@return { udp: p2pd.NatResult?, tcp: p2pd.NatResult? }? results, string? message, p2pd.Code? code
function M.survey(options)
  check_options(options, 2)
  if options.transport or options.udp then error("a survey is of both transports", 2) end
  local udp <close> = new(options, "udp")
  local tcp <close> = new(options, "tcp")
  tcp.udp, tcp.changed, tcp.rtts = udp, udp.changed, udp.rtts
  local tasks <close> = task.group()
  udp:start(tasks)
  tcp:start(tasks)
  wait_all(tasks)
  local by_udp, message, code = udp:finish()
  local by_tcp = tcp:finish()
  if not by_udp and not by_tcp then return nil, message, code end
  return { udp = by_udp, tcp = by_tcp }
end

return M
