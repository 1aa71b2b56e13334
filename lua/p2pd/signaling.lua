-- signaling: what two nodes say to each other through brokers, as sealed JSON: requests, replies, and the clock.
local cjson = require "cjson"
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {}

local json = cjson.new()
json.decode_max_depth(8)
json.encode_max_depth(8)
json.decode_invalid_numbers(false)

local FIRST_SIGNAL_TIME = 0.25 -- seconds that a message is thought to take until one was measured
local LEAST_SIGNAL_TIME = 0.02
local LONGEST_WAIT = 1         -- seconds, for a broker to come up; its coming ends the wait
local CLOCK_PAUSE = 1          -- seconds between two answers to peers whose clocks are wrong
local MAX_REMEMBERED = 256     -- requests whose replies are kept for their repetition
local REMEMBER = 60            -- seconds
local MAX_TALKS = 128          -- conversations at one time
local MAX_SKEWS = 256          -- peers
local MAX_UNHEARD = 8          -- messages of one that wait to be received

local signaling = {}
signaling.__index = signaling

--- The messages of one node.
---@param signal userdata core.signal
---@param brokers table p2pd.brokers
---@param on_request fun(from: string, message: table) in a task of its own
function M.new(signal, brokers, on_request)
  return setmetatable({
    signal = signal, brokers = brokers, on_request = on_request,
    waiting = {},  -- requests of ours, by their id
    answered = {}, -- requests of others: the reply, or false while it is being made
    skews = {}, skewed = 0, -- of peers whose clocks are not ours
    talks = {}, talking = 0, -- conversations, by the peer's node ID and the name of the conversation
    remembered = {}, signal_time = FIRST_SIGNAL_TIME,
  }, signaling)
end

local function new_id()
  return core.identity.random(16)
end

--- By how much a peer's clock is another one than ours: its messages go out by its own clock from then on.
function signaling:know_skew(peer, skew)
  if not self.skews[peer] then
    if self.skewed >= MAX_SKEWS then self.skews, self.skewed = {}, 0 end
    self.skewed = self.skewed + 1
  end
  self.skews[peer] = skew
end

--- Sends a message once, to every broker of the peer that is up.
---@param to table parsed address
---@param fields table
---@return integer? brokers, string? message, string? code
function signaling:send(to, fields)
  local links = self.brokers:up(to.signal)
  if #links == 0 then return nil, "ENOTCONN: none of the peer's brokers is connected", "ENOTCONN" end
  fields.id = fields.id or new_id()
  return self.signal:send(to.node_id, json.encode(fields), links, self.skews[to.node_id])
end

--- Sends a request, again after twice the signal time and whenever another of the peer's brokers comes up, until the
--- reply arrives.
---@param to table parsed address
---@param fields table
---@param timeout? number seconds
---@return table? reply, string? message, string? code
function signaling:request(to, fields, timeout)
  local request = { id = fields.id or new_id(), from = to.node_id, changed = self.brokers.changed, sent = {} }
  fields.id = request.id
  self.waiting[request.id] = request
  local _ <close> = setmetatable({}, { __close = function() self.waiting[request.id] = nil end })
  local deadline, pause, repeat_at = task.now() + (timeout or math.huge), self.signal_time * 2, 0
  while true do
    local now = task.now()
    if request.reply then return request.reply end
    if now >= deadline then break end
    local up, fresh = self.brokers:up(to.signal), {}
    for _, link in ipairs(up) do
      if now >= repeat_at or not request.sent[link] then fresh[#fresh + 1] = link end
    end
    if #fresh > 0 then
      local sent, message, code = self.signal:send(to.node_id, json.encode(fields), fresh, self.skews[to.node_id])
      if not sent and code == "EMSGSIZE" then return nil, message, code end
      for _, link in ipairs(fresh) do request.sent[link] = true end
      request.first_sent = request.first_sent or now
      if now >= repeat_at then
        repeat_at, pause = now + pause, pause * 2
      end
    end
    self.brokers.changed:wait(math.min(deadline - now, #up == 0 and LONGEST_WAIT or math.max(0, repeat_at - now)))
  end
  if next(request.sent) == nil then
    return nil, "ENOTCONN: none of the peer's brokers could be reached", "ENOTCONN"
  end
  return nil, "ETIMEDOUT: the peer did not answer through its brokers", "ETIMEDOUT"
end

-- The peer listens on our brokers while it waits, so an answer goes out on whatever is up.
local function answer(self, to, fields)
  return self.signal:send(to.node_id, json.encode(fields), self.brokers:up())
end

--- Answers a request. The reply is kept for a while: a repeated request gets it again.
---@param to table parsed address
---@param request table
---@param fields table
function signaling:reply(to, request, fields)
  fields.re, fields.kind = request.id, fields.kind or "reply"
  local key = to.node_id .. request.id
  if self.answered[key] ~= nil then self.answered[key] = fields end
  return answer(self, to, fields)
end

local conversation = {}
conversation.__index = conversation

--- Takes part in a conversation: messages of the peer that name it come here, once each, and not to `on_request`.
---@param peer string node ID
---@param name string
---@return table? conversation with :receive([timeout]) and :close(), string? message, string? code
function signaling:converse(peer, name)
  local key = peer .. name
  if self.talks[key] then return nil, "EEXIST: the peer has such a conversation already", "EEXIST" end
  if self.talking >= MAX_TALKS then
    return nil, ("ENOBUFS: %d conversations are held already"):format(MAX_TALKS), "ENOBUFS"
  end
  self.talks[key], self.talking = task.channel(MAX_UNHEARD), self.talking + 1
  return setmetatable({ signaling = self, key = key, inbox = self.talks[key] }, conversation)
end

function conversation:receive(timeout)
  local message = self.inbox:recv(timeout)
  if message then return message end
  return nil, "ETIMEDOUT: the peer said nothing more", "ETIMEDOUT"
end

function conversation:close()
  local talks = self.signaling.talks
  if talks[self.key] ~= self.inbox then return end
  talks[self.key], self.signaling.talking = nil, self.signaling.talking - 1
  self.inbox:close()
end

local function remember(self, key)
  local remembered, now = self.remembered, task.now()
  while #remembered > 0 and (#remembered >= MAX_REMEMBERED or now - remembered[1].at > REMEMBER) do
    self.answered[table.remove(remembered, 1).key] = nil
  end
  remembered[#remembered + 1] = { key = key, at = now }
  self.answered[key] = false
end

local function on_reply(self, received, message)
  local request = self.waiting[message.re]
  if not request or request.from ~= received.from or request.reply then return end
  if message.kind == "clock" then -- the request was stale there: it goes out once more, by the peer's clock
    if not received.stale or request.corrected then return end
    self:know_skew(received.from, received.skew)
    request.corrected, request.sent = true, {}
  else
    local took = (task.now() - request.first_sent) / 2
    message.age = took
    self.signal_time = math.max(LEAST_SIGNAL_TIME, 0.7 * self.signal_time + 0.3 * took)
    request.reply = message
  end
  self.brokers.changed:signal()
end

local function on_request(self, from, message, sender)
  local key = from .. message.id
  local reply = self.answered[key]
  if reply then
    answer(self, sender, reply)
  elseif reply == nil then
    remember(self, key)
    local inbox = type(message.talk) == "string" and self.talks[from .. message.talk]
    if inbox and #inbox < MAX_UNHEARD then
      inbox:send(message)
    elseif not inbox then
      self.on_request(sender, message)
    end
  end
end

-- A peer whose clock is wrong (or ours) is told so, now and then; the answer's own time says by how much.
local function on_stale(self, from, message)
  local now = task.now()
  if self.clock_told_at and now - self.clock_told_at < CLOCK_PAUSE then return end
  self.clock_told_at = now
  self.signal:send(from, json.encode { kind = "clock", re = message.id }, self.brokers:up())
end

--- Takes one verified message apart. Its sender is proven; what it says is not to be trusted for that. A reply is fresh
--- whatever its time, since nobody else knows the id that it repeats.
function signaling:dispatch(received)
  local ok, message = pcall(json.decode, received.body)
  if not ok or type(message) ~= "table" or type(message.kind) ~= "string" then return end
  if type(message.re) == "string" then return on_reply(self, received, message) end
  if type(message.id) ~= "string" or #message.id ~= 32 then return end
  -- Who knows the name of a conversation was told it; its messages are kept apart by their ids.
  local talks = type(message.talk) == "string" and self.talks[received.from .. message.talk] ~= nil
  if received.stale and not talks then return on_stale(self, received.from, message) end
  local sender = type(message.from) == "string" and core.address.parse(message.from)
  if not sender or sender.node_id ~= received.from then return end
  message.age = math.max(0, self.signal:time() - received.time)
  on_request(self, received.from, message, sender)
end

--- Takes messages until it is cancelled.
function signaling:run()
  while true do
    local received, message, code = self.signal:recv()
    if not received then return nil, message, code end
    self:dispatch(received)
  end
end

return M
