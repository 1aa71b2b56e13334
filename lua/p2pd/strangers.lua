-- strangers: the bounds on what others can make a node do. A key costs nothing, so what counts is mostly the address
-- that would get the packets, not who asks.
local task = require "p2pd.task"

local M = {}

local REQUESTS, PER = { reverse = 3 }, 60 -- that one peer may make of a kind, in so many seconds
local OTHER_REQUESTS = 120
local MAX_PEERS = 256        -- whose requests are counted
local MAX_ANSWERING = 256    -- requests at one time; one peer gets at most half, and others what is left
local SYNS, SYNS_EACH = 8, 4 -- to an unproven address in PER seconds; by one dial: again after 1, 3 and 7 s (RFC 6298)
local BURST = 2048           -- SYNs of punching to one address in PER seconds
local SPRAY = 200            -- SYNs from which on a burst is one that goes out alone
local MAX_ADDRESSES = 256    -- that are counted

local strangers = {}
strangers.__index = strangers

function M.new()
  return setmetatable({
    requests = {}, peers = 0, answering = {}, answered = 0, unproven = {}, bursts = {}, spraying = false,
    changed = task.condition(),
  }, strangers)
end

-- Requests ------------------------------------------------------------------------------------------------------------

--- Whether the peer may ask for a thing of this kind once more.
---@param peer string node ID
---@param kind string
---@return boolean
function strangers:may_ask(peer, kind)
  local now, counted = task.now(), self.requests[peer]
  if not counted then
    if self.peers >= MAX_PEERS then self.requests, self.peers = {}, 0 end
    counted = {}
    self.requests[peer], self.peers = counted, self.peers + 1
  end
  counted[kind] = counted[kind] or {}
  local times = counted[kind]
  while times[1] and now - times[1] > PER do table.remove(times, 1) end
  if #times >= (REQUESTS[kind] or OTHER_REQUESTS) then return false end
  times[#times + 1] = now
  return true
end

--- Begins to answer a peer: as many of its requests at one time as there is room for others. Returns a function that
--- ends it, or nil.
---@param peer string node ID
---@return fun()?
function strangers:enter(peer)
  local own = self.answering[peer] or 0
  if own >= MAX_ANSWERING - self.answered then return nil end
  self.answering[peer], self.answered = own + 1, self.answered + 1
  return function()
    local left = self.answering[peer] - 1
    self.answering[peer], self.answered = left > 0 and left or nil, self.answered - 1
  end
end

-- Dialing -------------------------------------------------------------------------------------------------------------

-- What was spent on an address that has not proven itself; nil when too many such addresses are known.
local function spent_on(self, ip)
  local now, count = task.now(), 0
  for known, spent in pairs(self.unproven) do
    if spent.active == 0 and now - spent.since > PER then self.unproven[known] = nil else count = count + 1 end
  end
  if not self.unproven[ip] and count < MAX_ADDRESSES then
    self.unproven[ip] = { since = now, syns = 0, active = 0, changed = task.condition() }
  end
  return self.unproven[ip]
end

--- Dials for a peer that asked us to, when that address was not dialed in vain too often.
---@param ip string an address, or what else is to be counted
---@param dial fun(): any?, string?, string?
---@return any? pipe, string? message, string? code
function strangers:dial(ip, dial)
  local spent = spent_on(self, ip)
  while spent and spent.syns + SYNS_EACH > SYNS and spent.active > 0 do spent.changed:wait() end
  if not spent or spent.syns + SYNS_EACH > SYNS then
    return nil, ("EAGAIN: %s was dialed too often in vain; try again in a minute"):format(ip:match "%S+$"), "EAGAIN"
  end
  local began, proven = task.now(), false
  spent.syns, spent.active = spent.syns + SYNS_EACH, spent.active + 1
  local _ <close> = setmetatable({}, { __close = function()
    local took = task.now() - began
    local sent = took < 1 and 1 or took < 3 and 2 or took < 7 and 3 or SYNS_EACH
    spent.active = spent.active - 1
    spent.syns = proven and spent.active * SYNS_EACH or spent.syns - SYNS_EACH + sent
    spent.changed:signal()
  end })
  local pipe, message, code = dial()
  proven = pipe ~= nil
  return pipe, message, code
end

-- Punching ------------------------------------------------------------------------------------------------------------

-- What was sent to the address within the last minute, and is being sent.
local function burst_to(self, ip)
  local now, count = task.now(), 0
  for known, burst in pairs(self.bursts) do
    if burst.active == 0 and now - burst.since > PER then self.bursts[known] = nil else count = count + 1 end
  end
  if not self.bursts[ip] and count < MAX_ADDRESSES then self.bursts[ip] = { since = now, syns = 0, active = 0 } end
  return self.bursts[ip]
end

local lease = {}
lease.__index = lease

--- How much a burst may send to the address, of what it wants; a spray waits until no other one is under way.
---@param ip string
---@param wanted integer SYNs
---@return { syns: integer, close: fun(self, sent: integer, proven: boolean?) }? lease, string? message, string? code
function strangers:burst(ip, wanted)
  local spray = wanted > SPRAY
  local burst = burst_to(self, ip)
  -- Others that are under way give back what they do not use.
  while spray and self.spraying or burst and burst.active > 0 and burst.syns >= BURST do
    self.changed:wait()
    burst = burst_to(self, ip)
  end
  local left = burst and math.min(wanted, BURST - burst.syns) or 0
  if left <= 0 then
    return nil, ("EAGAIN: %s was sent enough for a minute; try again then"):format(ip), "EAGAIN"
  end
  burst.syns, burst.active = burst.syns + left, burst.active + 1
  self.spraying = self.spraying or spray
  return setmetatable({ strangers = self, to = burst, syns = left, spray = spray }, lease)
end

--- Gives back what was not sent; or all, when the peer has proven to be there.
function lease:close(sent, proven)
  if self.closed then return end
  self.closed = true
  local spent = proven and 0 or math.min(sent, self.syns)
  self.to.syns, self.to.active = self.to.syns - self.syns + spent, self.to.active - 1
  if self.spray then self.strangers.spraying = false end
  self.strangers.changed:signal()
end

return M
