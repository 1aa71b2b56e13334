-- holds: local ports of ours of which it is known what the world sees of them, and looks at which ports come next.
--
--   hold     a TCP connection to a STUN server stays open from that port: its mapping lives as long as something
--            passes, and where it does not depend on who is spoken to, everybody can be met from the same port
--   sample   connections to STUN servers from new ports in a row: which external ports do they get, just now?
local luv = require "luv"
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {}

-- Seconds.
local KEEP = 25          -- between two questions: routers keep a TCP mapping for longer
local ANSWER = 3         -- for an answer to them
local NEXT = 0.25        -- after which one more server is connected to
local FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60 -- before a hold that broke is made anew
local SAMPLE = 1.4       -- for a sample's first answer: a connection and an answer take two round trips
local LATE = 0.1         -- after it, what has not come by then is lost

local ATTEMPTS = 3       -- connections at least, before a hold is given up
local MORE_PORTS = 4     -- that are tried where the external port is to be the same
local MOST_SAMPLES = 16
-- Ports that the system gives to nobody by itself, of sizes that routers with a range of their own rarely leave out.
local PORTS = { 20000, 32000 }

local holds = {}
holds.__index = holds

local hold = {}
hold.__index = hold
hold.__name = "p2pd.hold"

-- Connecting ----------------------------------------------------------------------------------------------------------

-- What servers see counts when it can be an address on the Internet.
local function is_outside(ip)
  local kind = core.address.ip(ip).kind
  return kind == "global" or kind == "shared"
end

-- Whether a server speaks STUN over TCP; nil where nobody knows.
local speaks = { ECONNREFUSED = false, ECONNRESET = false, EPROTO = false }

-- Connects from that port (any, when nil) to the first server that answers; one more is asked whenever one fails or is
-- slow, and the same ones again: a connection whose SYN was lost is not waited for.
local function connect(self, local_ip, local_port, deadline)
  local stun = require "p2pd.stun"
  local servers = self.options.servers(core.address.ip(local_ip).family)
  if #servers == 0 then return nil, "ENOTSUP: no STUN server is known", "ENOTSUP" end
  local tasks <close> = task.group()
  local changed, ended, winner, failure = task.condition(), 0, nil, nil
  local function try(server)
    local connection, message, code = stun.connect {
      ip = server.ip, port = server.port, local_ip = local_ip, local_port = local_port,
      timeout = math.max(0, deadline - task.now()),
    }
    if connection and not is_outside(connection.external_ip) then
      connection:close()
      connection, code = nil, "EPROTO"
      message = ("EPROTO: STUN server %s sees no address of the Internet"):format(server.ip)
    end
    self.options.heard(server, connection and true or speaks[code])
    ended = ended + 1
    if connection and not winner then
      winner = connection
    elseif connection then
      connection:close()
    else
      failure = failure or { message, code }
    end
    changed:signal()
  end
  local most = math.max(#servers, ATTEMPTS)
  while not winner and ended < most and task.now() < deadline do
    local before = ended
    if #tasks < most then tasks:spawn(try, servers[#tasks % #servers + 1]) end
    if ended == before then changed:wait(math.min(NEXT, math.max(0, deadline - task.now()))) end
  end
  if winner then return winner end
  if failure then return nil, table.unpack(failure) end
  return nil, "ETIMEDOUT: no STUN server answers over TCP", "ETIMEDOUT"
end

-- Holds ---------------------------------------------------------------------------------------------------------------

local function take_over(self, connection)
  self.connection = connection
  self.local_port, self.external_ip = connection.local_port, connection.external_ip
  self.external_port = connection.external_port
end

-- By the same port, so that the mapping stays what it is; a hold that nobody has taken may get another one.
local function make_anew(self)
  local pause = FIRST_PAUSE
  while true do
    local connection, _, code = connect(self.pool, self.local_ip, self.local_port, task.now() + ANSWER)
    if not connection and not self.taken and code ~= "ETIMEDOUT" then
      connection = connect(self.pool, self.local_ip, nil, task.now() + ANSWER)
    end
    if connection then return take_over(self, connection) end
    task.sleep(pause * (0.75 + math.random() / 2))
    pause = math.min(2 * pause, LONGEST_PAUSE)
  end
end

-- Asks now and then, so that the mapping lives.
local function keep(self)
  while true do
    local before = self.external_ip
    local _, _, code = self.connection:wait_down(self.pool.options.keep or KEEP)
    local answer
    if code == "ETIMEDOUT" then answer = self.connection:ask(ANSWER) end
    if not answer then
      self.connection:close()
      self.connection = nil
      make_anew(self)
    elseif is_outside(answer.external_ip) then
      self.external_ip, self.external_port = answer.external_ip, answer.external_port
    end
    if self.external_ip ~= before then self.pool.options.on_moved(self.local_ip) end
  end
end

local function new_hold(self, local_ip, fields)
  fields.pool, fields.local_ip = self, local_ip
  self.open[fields] = true
  return setmetatable(fields, hold)
end

-- A port that we have for ourselves: what is bound to it says so to the system alone.
local function reserve(self, local_ip)
  local socket = luv.new_tcp()
  local ok, message, code = socket:bind((local_ip:gsub("%%.*", "")), 0)
  local name = ok and socket:getsockname()
  if not name then
    socket:close()
    return nil, ("%s: cannot bind to %s"):format(code or "EIO", local_ip, message), code or "EIO"
  end
  return new_hold(self, local_ip, {
    socket = socket, local_port = name.port, external_ip = local_ip, external_port = name.port, translated = false,
  })
end

-- Some routers keep ports only within a range of their own.
local function connect_equal(self, local_ip, deadline)
  local local_port
  for _ = 1, MORE_PORTS do
    local connection, message, code = connect(self, local_ip, local_port, deadline)
    if not connection then return nil, message, code end
    if connection.external_port == connection.local_port then return connection end
    connection:close()
    local_port = math.random(PORTS[1], PORTS[2])
  end
  return nil, "EAGAIN: the router gives no port its own number just now", "EAGAIN"
end

local function open(self, where, deadline)
  if not where.translated then return reserve(self, where.local_ip) end
  local connection, message, code
  if where.equal then
    connection, message, code = connect_equal(self, where.local_ip, deadline)
  else
    connection, message, code = connect(self, where.local_ip, nil, deadline)
  end
  if not connection then return nil, message, code end
  local one = new_hold(self, where.local_ip, { translated = true })
  take_over(one, connection)
  one.keeper = task.spawn(keep, one):observe()
  return one
end

--- Ends it; its port is anybody's then.
function hold:close()
  if self.closed then return end
  self.closed, self.pool.open[self] = true, nil
  if self.keeper then self.keeper:cancel() end
  if self.connection then self.connection:close() end
  if self.socket then self.socket:close() end
end

hold.__close = hold.close

function hold:__tostring()
  return ("hold (%s port %d, seen as %s port %d%s)"):format(self.local_ip, self.local_port, self.external_ip,
    self.external_port, self.closed and ", closed" or "")
end

-- The pool ------------------------------------------------------------------------------------------------------------

--- Holds of one network. `servers` gives those of a family, the best first; `heard` is told whether one answers over
--- TCP, `on_moved` is called when a hold is seen at another address than before.
---@param options { servers: fun(family: integer): table[], heard: fun(server: table, answers: boolean?),
---                 on_moved: fun(local_ip: string), keep: number? }
function M.new(options)
  return setmetatable({ options = options, open = {}, warm_ones = {}, changed = task.condition() }, holds)
end

local function fill(self, entry)
  local pause = FIRST_PAUSE
  while true do
    local one = open(self, entry.where, task.now() + ANSWER)
    if one then
      entry.hold, entry.filling = one, nil
      return self.changed:signal()
    end
    self.changed:signal() -- who waits for it may try by itself
    task.sleep(pause)
    pause = math.min(2 * pause, LONGEST_PAUSE)
  end
end

--- Keeps one ready for whoever takes it.
---@param where { local_ip: string, translated: boolean, equal: boolean? }
function holds:warm(where)
  local entry = self.warm_ones[where.local_ip]
  if self.closed or not where.translated or entry and entry.where.equal == where.equal then return end
  self:cool(where.local_ip)
  entry = { where = where }
  self.warm_ones[where.local_ip] = entry
  entry.filling = task.spawn(fill, self, entry):observe()
end

--- Keeps none ready any more at that address.
---@param local_ip string
function holds:cool(local_ip)
  local entry = self.warm_ones[local_ip]
  if not entry then return end
  self.warm_ones[local_ip] = nil
  if entry.filling then entry.filling:cancel() end
  if entry.hold then entry.hold:close() end
end

-- The one that is ready, or about to be: for the first who waits.
local function take_warm(self, where, deadline)
  local entry = self.warm_ones[where.local_ip]
  if entry and entry.filling and not entry.awaited then
    entry.awaited = true
    local _ <close> = setmetatable({}, { __close = function() entry.awaited = nil end })
    self.changed:wait(math.max(0, deadline - task.now()))
    entry = self.warm_ones[where.local_ip]
  end
  local one = entry and entry.hold
  if not one or not one.connection then return nil end
  if where.equal and one.external_port ~= one.local_port then return nil end
  self.warm_ones[where.local_ip], one.taken = nil, true
  self:warm(entry.where)
  return one
end

--- A hold of the caller's own, to be closed by it.
---@param where { local_ip: string, translated: boolean, equal: boolean? }
---@param deadline number
---@return p2pd.Hold? hold, string? message, p2pd.Code? code
function holds:take(where, deadline)
  if self.closed then return nil, "ECLOSED: the network was closed", "ECLOSED" end
  local one, message, code = take_warm(self, where, deadline), nil, nil
  if not one then one, message, code = open(self, where, deadline) end
  if one then one.taken = true end
  return one, message, code
end

--- Ends all of them.
function holds:close()
  local tasks = {}
  self.closed = true
  for _, entry in pairs(self.warm_ones) do tasks[#tasks + 1] = entry.filling end
  for one in pairs(self.open) do tasks[#tasks + 1] = one.keeper end
  for local_ip in pairs(self.warm_ones) do self:cool(local_ip) end
  for one in pairs(self.open) do one:close() end
  for _, own in ipairs(tasks) do pcall(own.wait, own) end
end

-- Samples -------------------------------------------------------------------------------------------------------------

local sample = {}
sample.__index = sample
sample.__name = "p2pd.sample"

--- Ends its connections.
function sample:close()
  for _, connection in ipairs(self.connections) do connection:close() end
  self.connections = {}
  if self.on_close then self.on_close() end
  self.on_close = nil
end

sample.__close = sample.close

function sample:__tostring()
  local texts = {}
  for place, entry in ipairs(self) do texts[place] = ("%d > %d"):format(entry.local_port, entry.external_port) end
  return ("sample (%s)"):format(table.concat(texts, ", "))
end

local under_way = { ready = 1, running = 1, parked = 1 }

local function wait_for(self, tasks, changed, timeout)
  local began, first = task.now(), nil
  while true do
    local running = 0
    for _, one in ipairs(tasks) do running = running + (under_way[one:status()] or 0) end
    local now = task.now()
    if #self.connections > 0 then first = first or now - began end
    local limit = began + (first and math.min(timeout, math.max(2.5 * first, first + LATE)) or timeout)
    if running == 0 or now >= limit then return end
    changed:wait(limit - now)
  end
end

--- Connects from new ports in a row, one to each of so many servers, all at once and in their order.
---@param where { local_ip: string }
---@param options { count: integer?, local_port: integer?, timeout: number? }
---@return p2pd.Samples? sample, string? message, p2pd.Code? code
function holds:sample(where, options)
  if self.closed then return nil, "ECLOSED: the network was closed", "ECLOSED" end
  local stun = require "p2pd.stun"
  local servers = self.options.servers(core.address.ip(where.local_ip).family)
  if #servers == 0 then return nil, "ENOTSUP: no STUN server is known", "ENOTSUP" end
  local count, timeout = math.min(options.count or 2, MOST_SAMPLES), options.timeout or SAMPLE
  local first = options.local_port or math.random(PORTS[1], PORTS[2] - count)
  local self_sample = setmetatable({ connections = {} }, sample)
  local changed, failure = task.condition(), nil
  do
    local tasks <close> = task.group()
    for place = 1, count do
      local server = servers[(place - 1) % #servers + 1]
      local entry = { local_port = first + place - 1, external_port = 0, server_ip = server.ip }
      self_sample[place] = entry
      tasks:spawn(function()
        local connection, message, code = stun.connect {
          ip = server.ip, port = server.port, local_ip = where.local_ip, local_port = entry.local_port,
          timeout = timeout,
        }
        self.options.heard(server, connection and true or speaks[code])
        if connection then
          table.insert(self_sample.connections, connection)
          entry.external_ip, entry.external_port = connection.external_ip, connection.external_port
        else
          failure = failure or { message, code }
        end
        changed:signal()
      end)
    end
    wait_for(self_sample, tasks, changed, timeout)
  end
  if #self_sample.connections > 0 then return self_sample end
  if failure then return nil, table.unpack(failure) end
  return nil, "ETIMEDOUT: no STUN server answers over TCP", "ETIMEDOUT"
end

return M
