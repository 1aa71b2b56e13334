-- clock: what time it is, asked of servers on the network: how many of them, in which order, and with what patience.
--
-- Nothing sets the machine's clock: what is known is how far the true time is from a steady clock (core/clock.h).
local core = require "p2pd.core"
local settings = require "p2pd.settings"
local task = require "p2pd.task"

local M = {}

local NS = 1e9
local TIMEOUT = 2          -- seconds, for all
local LOOKUP_TIMEOUT = 1   -- seconds, for a name
local FAMILY_DELAY = 0.25  -- seconds until a name's address of the other family is tried (RFC 8305, 5)
local AT_ONCE = 5          -- servers that are asked side by side
local STALL = 0.3          -- seconds without any answer after which one more is asked
local ENOUGH, MAJORITY = 4, 3 -- so many answers end it when so many agree: one may lie
local GRACE = 0.1          -- seconds that the others get once a majority agrees
local MOST = 64            -- servers of a list (core/clock.h)

local measure_options = {
  servers = "table", timeout = "number", clock_error = "number", max_age = "number", on_server = "function",
}

local function check_options(options)
  for name, value in pairs(options) do
    local kind = measure_options[name]
    if not kind then error(("unknown option '%s'"):format(tostring(name)), 3) end
    if type(value) ~= kind then error(("option '%s' is a %s, not a %s"):format(name, kind, type(value)), 3) end
  end
  for _, name in ipairs { "timeout", "max_age" } do
    if options[name] and not (options[name] >= 0) then error(("'%s' is a time"):format(name), 3) end
  end
  local ok, why = settings.from { ntp = options.servers, clock_error = options.clock_error }
  if not ok then error((why:gsub("^EINVAL: settings: ", "")), 3) end
end

-- Asking one server ---------------------------------------------------------------------------------------------------

-- The first address of each family, in the order of preference.
local function one_of_each_family(ips)
  local found, seen = {}, {}
  for _, ip in ipairs(ips) do
    local family = core.address.ip(ip).family
    if not seen[family] then found[#found + 1] = ip end
    seen[family] = true
  end
  return found
end

-- Fills in what the server says, or why it says nothing. Names that lead to one address count once.
local function ask(entry, asked, deadline)
  local function left() return math.max(0, deadline - task.now()) end
  local ips, message, code = core.dns.resolve(entry.host, math.min(LOOKUP_TIMEOUT, left()))
  local attempts, said = {}, nil
  for place, ip in ipairs(one_of_each_family(ips or {})) do
    attempts[place] = function()
      if place > 1 then task.sleep(FAMILY_DELAY) end
      local key = ("%s %d"):format(ip, entry.port)
      if asked[key] then return nil, "ESKIPPED: its address is that of " .. asked[key], "ESKIPPED" end
      asked[key] = entry.host
      local answer, why, how = core.clock.ask { ip = ip, port = entry.port, timeout = left() }
      if answer then answer.ip = ip end
      return answer, why, how
    end
  end
  if ips then said, message, code = task.race(attempts) end
  entry.said, entry.ok = said, said ~= nil
  if not said then
    entry.message, entry.code = message, code
    return
  end
  entry.ip, entry.stratum, entry.samples = said.ip, said.stratum, said.samples
  entry.rtt, entry.error = said.delay_ns / NS, said.error_ns / NS
end

-- Asking several ------------------------------------------------------------------------------------------------------

local poll = {}
poll.__index = poll

function poll:ask_next()
  local server = self.servers[#self.entries + 1]
  if not server or #self.entries == MOST then return end
  local entry = { host = server.host, port = server.port }
  self.entries[#self.entries + 1] = entry
  self.running = self.running + 1
  self.tasks:spawn(function()
    ask(entry, self.asked, self.deadline)
    self.ended:send(entry)
  end)
end

-- What those that answered agree on, by now.
function poll:compare()
  local offset_ns, error_ns, agrees = core.clock.select(self.good)
  self.agreeing = 0
  if not offset_ns then
    self.why, self.code = error_ns, agrees
    return
  end
  self.offset_ns, self.error_ns = offset_ns, error_ns
  for place, said in ipairs(self.good) do
    said.agrees = agrees[place]
    if agrees[place] then self.agreeing = self.agreeing + 1 end
  end
end

function poll:take(entry)
  self.running = self.running - 1
  if entry.ok then
    self.good[#self.good + 1] = entry.said
    self:compare()
  elseif #self.good == 0 then
    self.why, self.code = entry.message, entry.code
  end
  if self.on_server then self.on_server(entry) end
  if not entry.ok or (#self.good >= ENOUGH and self.agreeing < MAJORITY) then self:ask_next() end
end

-- Until when there is something to wait for.
function poll:patience()
  if self.agreeing < MAJORITY then return self.deadline end
  if #self.good >= ENOUGH then return task.now() end
  self.grace = self.grace or task.now() + GRACE
  return math.min(self.grace, self.deadline)
end

function poll:run()
  for _ = 1, AT_ONCE do self:ask_next() end
  while self.running > 0 do
    local left = self:patience() - task.now()
    if left <= 0 then break end
    local entry = self.ended:recv(math.min(left, STALL))
    if entry then self:take(entry) else self:ask_next() end
  end
end

-- A server that was not waited for.
function poll:give_up(entry)
  entry.ok = false
  if self.agreeing >= MAJORITY then
    entry.message, entry.code = "ECANCELED: the others agreed before it answered", "ECANCELED"
  else
    entry.message, entry.code = "ETIMEDOUT: it did not answer in time", "ETIMEDOUT"
  end
end

-- What this node's clock, error and all, is ahead of a time that is so far from the steady clock.
local function ahead(offset_ns, clock_error)
  return (core.clock.machine() - offset_ns) / NS + clock_error
end

local latest -- what was measured last

local function result_of(measured, clock_error)
  local offset_ns, error_ns = core.clock.view()
  local servers = {}
  for place, entry in ipairs(measured.entries) do
    local copy = {}
    for name, value in pairs(entry) do copy[name] = value end
    copy.said = nil
    if entry.ok then
      copy.offset, copy.agrees = ahead(entry.said.offset_ns, clock_error), entry.said.agrees
    end
    servers[place] = copy
  end
  return {
    offset = ahead(offset_ns, clock_error), error = error_ns / NS, agreeing = measured.agreeing, servers = servers,
  }
end

--- Asks several servers for the time, and goes by it from then on.
function M.measure(options)
  options = options or {}
  if type(options) ~= "table" then error("options are a table", 2) end
  check_options(options)
  local servers, clock_error = options.servers, options.clock_error
  if not servers then
    local loaded, message, code = settings.load()
    if not loaded then return nil, message, code end
    servers, clock_error = loaded.ntp, clock_error or loaded.clock_error
  end
  local _, _, age_ns = core.clock.view()
  if latest and age_ns <= (options.max_age or -1) * NS then return result_of(latest, clock_error or 0) end
  local tasks <close> = task.group()
  local this = setmetatable({
    servers = servers, deadline = task.now() + (options.timeout or TIMEOUT), on_server = options.on_server,
    entries = {}, asked = {}, good = {}, agreeing = 0, running = 0, tasks = tasks, ended = task.channel(MOST),
  }, poll)
  this:run()
  for _, entry in ipairs(this.entries) do
    if entry.ok == nil then this:give_up(entry) end
  end
  if this.agreeing == 0 then
    if #servers == 0 then return nil, "ENOENT: no clocks are in the settings", "ENOENT" end
    if this.why then return nil, this.why, this.code end
    return nil, ("ETIMEDOUT: none of %d clocks answered"):format(#this.entries), "ETIMEDOUT"
  end
  core.clock.set(this.offset_ns, this.error_ns)
  latest = this
  return result_of(this, clock_error or 0)
end

--- What the time is.
function M.now()
  local _, error_ns = core.clock.view()
  return core.clock.now() / NS, error_ns and error_ns / NS
end

--- How far a clock is ahead now.
function M.offset(clock_error)
  if clock_error ~= nil and type(clock_error) ~= "number" then error("a clock error is a number of seconds", 2) end
  local offset_ns, error_ns = core.clock.view()
  if not offset_ns then return nil, "ENOENT: no clock was asked yet", "ENOENT" end
  return ahead(offset_ns, clock_error or 0), error_ns / NS
end

return M
