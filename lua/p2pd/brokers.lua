-- brokers: links to MQTT brokers, kept up side by side: a dead one costs no time, it is only tried again.
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {}

local CONNECT_TIMEOUT = 5   -- seconds, for name and connection each
local FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60
local STEADY = 10           -- seconds after which a link counts as good, so that its next pause is short again
local IDLE = 60             -- seconds that a peer's broker is kept after its last use

local brokers = {}
brokers.__index = brokers

--- Links from one node's signal object to the brokers of its settings.
---@param signal userdata core.signal
---@param list table[] settings.mqtt
function M.new(signal, list)
  return setmetatable({
    signal = signal, list = list, entries = {}, closed = false,
    changed = task.condition(), -- a link came up, or failed
    renewed = task.condition(), -- the network is another one: who waits to try again does so now
  }, brokers)
end

-- One connection to one of the broker's addresses, or why there is none.
local function dial(self, server)
  local ips, message, code = core.dns.resolve(server.host, CONNECT_TIMEOUT)
  if not ips then return nil, message, code end
  for _, ip in ipairs(ips) do
    local link
    link, message, code = self.signal:link {
      ip = ip, port = server.port, host = server.host, tls = server.tls or false, ca = server.ca,
      timeout = CONNECT_TIMEOUT,
    }
    if link then return link end
  end
  return nil, message, code
end

local function keep_up(self, entry)
  local pause = FIRST_PAUSE
  while true do
    local link, message, code = dial(self, entry.server)
    if link then
      entry.link, entry.tried, entry.message, entry.code = link, true, nil, nil
      self.changed:signal()
      local since = task.now()
      message, code = select(2, link:wait_down())
      entry.link = nil
      link:close()
      if task.now() - since >= STEADY then pause = FIRST_PAUSE end
    end
    entry.tried, entry.message, entry.code = true, message, code
    self.changed:signal()
    local renewed = entry.renewed or self.renewed:wait(pause * (0.75 + math.random() / 2))
    entry.renewed, pause = false, renewed and FIRST_PAUSE or math.min(pause * 2, LONGEST_PAUSE)
  end
end

local function start(self, offset)
  local entry = self.entries[offset]
  if entry then return entry end
  local server = self.list[offset + 1]
  if not server then return nil end
  entry = { server = server, offset = offset, users = 0 }
  self.entries[offset] = entry
  entry.task = task.spawn(keep_up, self, entry)
  return entry
end

local function stop(self, entry)
  self.entries[entry.offset] = nil
  entry.task:cancel()
  if entry.link then entry.link:close() end
  entry.link = nil
end

--- Keeps a link to the broker at this offset of the list until it is released.
---@param offsets integer[]
function brokers:use(offsets)
  for _, offset in ipairs(offsets) do
    local entry = start(self, offset)
    if entry then entry.users = entry.users + 1 end
  end
end

--- Ends a use; the links are kept for a while, since peers are often met again.
---@param offsets integer[]
function brokers:release(offsets)
  for _, offset in ipairs(offsets) do
    local entry = self.entries[offset]
    if entry then
      entry.users = entry.users - 1
      entry.idle_since = task.now()
    end
  end
  for _, entry in pairs(self.entries) do
    if entry.users == 0 and task.now() - entry.idle_since >= IDLE then stop(self, entry) end
  end
end

--- The links that are up, of these offsets or of all.
---@param offsets? integer[]
function brokers:up(offsets)
  local links = {}
  if offsets then
    for _, offset in ipairs(offsets) do
      local entry = self.entries[offset]
      if entry and entry.link then links[#links + 1] = entry.link end
    end
  else
    for _, entry in pairs(self.entries) do links[#links + 1] = entry.link end
  end
  return links
end

--- Waits until one of the brokers is up, or all were tried in vain, or the time is over.
---@param offsets integer[]
---@param timeout number seconds
---@return boolean up
function brokers:wait(offsets, timeout)
  local deadline = task.now() + timeout
  while true do
    local tried = true
    for _, offset in ipairs(offsets) do
      local entry = self.entries[offset]
      if entry and entry.link then return true end
      tried = tried and (not entry or entry.tried)
    end
    local left = deadline - task.now()
    if tried or left <= 0 then return false end
    self.changed:wait(left)
  end
end

--- Connects anew, at once: the network is another one, and connections by the old one may be dead without a word.
function brokers:renew()
  for _, entry in pairs(self.entries) do
    if entry.link then
      entry.renewed = true
      entry.link:close()
    end
  end
  self.renewed:signal()
end

--- What is known of each broker in use: host, port, ok, message, code.
function brokers:state()
  local state = {}
  for offset, entry in pairs(self.entries) do
    state[#state + 1] = {
      offset = offset, host = entry.server.host, port = entry.server.port, ok = entry.link ~= nil,
      message = entry.message, code = entry.code,
    }
  end
  table.sort(state, function(a, b) return a.offset < b.offset end)
  return state
end

function brokers:close()
  self.closed = true
  for _, entry in pairs(self.entries) do stop(self, entry) end
end

return M
