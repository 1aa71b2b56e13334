-- node: a node of a virtual world: what strategies reach through it (p2pd.Means), and what answers the other one's.
local cjson = require "cjson"
local context = require "p2pd.context"
local pipeline = require "p2pd.pipeline"
local ports = require "p2pd.lab.virtual.ports"
local puncher = require "p2pd.lab.virtual.puncher"
local relays = require "p2pd.lab.virtual.relays"
local task = require "p2pd.task"

local M = {}

local json = cjson.new()
json.decode_max_depth(8)
json.encode_max_depth(8)

local PORT = 4000
local EPOCH = 1.7e9         -- what the clock shows when virtual time begins
local BROKER = 0.0005       -- seconds that a broker and both ends take for a message, and by chance as much again
local RESENT = 0.2          -- seconds more where one of its segments was lost (RFC 6298, 2.4, as Linux has it)
local RESPOND_TIMEOUT = 20  -- seconds, as p2pd.node has it
local SECURE_TIMEOUT = 5
local MOST_UNHEARD = 8
local MOST_ARRIVED = 8

local node = {}
node.__index = node

-- Dialing and being dialed --------------------------------------------------------------------------------------------

local function dial(self, options)
  local net, host, answers = self.net, self.side.host, task.channel(1)
  local to = ("%s:%d"):format(options.ip, options.port)
  local owner = {
    opened = function(socket) answers:send(socket) end,
    refused = function() answers:send(false) end,
  }
  local began = task.now()
  local opened
  local _ <close> = setmetatable({}, { __close = function()
    owner.over = true
    host:leave(owner, function(socket) return socket == opened end)
  end })
  local socket = host:connect {
    local_port = host:any_port(), ip = (options.ip:gsub("%%.*", "")), port = options.port, owner = owner,
  }
  local answer = socket and answers:recv(options.timeout)
  if answer == false or not socket then return nil, ("ECONNREFUSED: %s refuses"):format(to), "ECONNREFUSED" end
  if not answer then return nil, ("ETIMEDOUT: %s does not answer"):format(to), "ETIMEDOUT" end
  opened = answer
  if options.token then
    net:after(answer.link.way, function() self.peer:shown(answer.link, options.token, answer) end)
  end
  local left = math.max(0, options.timeout - (task.now() - began))
  return answer.link:secure(options.role, left, to, options.relayed)
end

-- A connection has come to the port that we listen on: its dialer is the client, unless it shows a token.
local function accept(self, socket)
  self.tasks:spawn(function()
    local one = socket.link
    if self.listens and not one.ready.server then one:secure("server", SECURE_TIMEOUT, socket.remote) end
  end)
end

--- The dialer of a connection shows a token.
function node:shown(way, token, socket)
  local expected = self.expected[token]
  if not expected then return way:close "client" end
  self.tasks:spawn(function()
    local pipe = way:secure("client", SECURE_TIMEOUT, ("%s:%d"):format(self.peer.side.external_ip,
      socket.external_port or socket.local_port))
    if not pipe then return end
    if #expected < MOST_ARRIVED then expected:send(pipe) else pipe:close() end
  end)
end

local function expect(self, token)
  local queue = task.channel(MOST_ARRIVED)
  self.expected[token] = queue
  return {
    wait = function(_, timeout) return queue:recv(timeout) end,
    close = function()
      self.expected[token] = nil
      queue:close()
    end,
  }
end

-- Messages ------------------------------------------------------------------------------------------------------------

-- Sends a table as signaling does: as JSON, so that what cannot be said there cannot be said here.
local function post(self, fields)
  local net, peer = self.net, self.peer
  self.ids = self.ids + 1
  fields.id = fields.id or ("%s%d"):format(self.side.name, self.ids)
  local text = json.encode(fields)
  local way = self.side.delay + peer.side.delay + BROKER * (1 + net.chance())
  if net:lost() then way = way + RESENT end
  net:after(way, function() peer:hear(json.decode(text), way) end)
  return true
end

local function request(self, fields, timeout)
  local answers, began = task.channel(1), task.now()
  post(self, fields)
  local id = fields.id
  self.waiting[id] = answers
  local _ <close> = setmetatable({}, { __close = function() self.waiting[id] = nil end })
  local reply = answers:recv(timeout)
  if not reply then return nil, "ETIMEDOUT: the peer did not answer through its brokers", "ETIMEDOUT" end
  reply.age = (task.now() - began) / 2
  return reply
end

local function reply(self, message, fields)
  fields.re, fields.kind = message.id, fields.kind or "reply"
  return post(self, fields)
end

local function converse(self, name)
  if self.talks[name] then return nil, "EEXIST: the peer has such a conversation already", "EEXIST" end
  local inbox = task.channel(MOST_UNHEARD)
  self.talks[name] = inbox
  return {
    receive = function(_, timeout)
      local message = inbox:recv(timeout)
      if message then return message end
      return nil, "ETIMEDOUT: the peer said nothing more", "ETIMEDOUT"
    end,
    close = function()
      self.talks[name] = nil
      inbox:close()
    end,
  }
end

local function refuse(self, message, code, sentence, lacks)
  return reply(self, message, { kind = "refused", code = code, message = sentence, lacks = lacks })
end

local function answer(self, message)
  local strategy, lacks = pipeline.responder(self.pipeline, message.kind)
  if message.more then return refuse(self, message, "ECLOSED", "what this belongs to is over") end
  if not strategy then
    return refuse(self, message, "ENOTSUP", "this node has nothing that answers it", lacks)
  end
  self.tasks:spawn(function()
    local ctx = context.new {
      peer = self.peer.address, own = self.address, role = "respond", means = self:means "respond",
      deadline = task.now() + RESPOND_TIMEOUT,
    }
    local pipe = pipeline.respond(strategy, ctx, message)
    if pipe then self.pipes[#self.pipes + 1] = pipe end
  end)
end

--- A message of the peer's is here.
function node:hear(message, age)
  if message.re then
    local answers = self.waiting[message.re]
    if answers and #answers == 0 then answers:send(message) end
    return
  end
  message.age = age
  local inbox = message.talk and self.talks[message.talk]
  if inbox then
    if #inbox < MOST_UNHEARD then inbox:send(message) end
  elseif self.listens then
    answer(self, message)
  end
end

-- Means ---------------------------------------------------------------------------------------------------------------

--- What a strategy of this node's has.
---@param role "connect"|"respond"
---@return p2pd.Means
function node:means(role)
  local net, side = self.net, self.side
  local tls_role = role == "connect" and "client" or "server"
  local function no_ipv6(family)
    if family == 4 then return nil end
    return "ENETUNREACH: no interface has an IPv6 address that leads out", "ENETUNREACH"
  end
  return {
    dial = function(options) return dial(self, options) end,
    expect = function(token) return expect(self, token) end,
    send = function(fields) return post(self, fields) end,
    request = function(fields, timeout) return request(self, fields, timeout) end,
    reply = function(message, fields) return reply(self, message, fields) end,
    converse = function(name) return converse(self, name) end,
    clock = function() return EPOCH + task.now() end,
    prefixes = function() return side.prefixes end,
    loopback_only = function() return false end,
    facts = function(family)
      local message, code = no_ipv6(family)
      if message then return nil, message, code end
      return ports.facts(side)
    end,
    hold = function(family)
      local message, code = no_ipv6(family)
      if message then return nil, message, code end
      return ports.hold(net, side)
    end,
    sample = function(family, options)
      local message, code = no_ipv6(family)
      if message then return nil, message, code end
      return ports.sample(net, side, options)
    end,
    puncher = function(options) return puncher.open(net, side, options) end,
    relay = function(options)
      if not self.turn then return nil, "ENOTSUP: no relay is configured", "ENOTSUP" end
      return relays.allocate(net, side, options)
    end,
    adopt = function(options)
      local socket = options.socket
      return socket.link:secure(tls_role, options.timeout, socket.remote, options.keep ~= nil)
    end,
  }
end

-- The node itself -----------------------------------------------------------------------------------------------------

local function address_of(side, name)
  local found = ports.examined(side.nat)
  return {
    signal = { 0 }, ipv6 = {}, node_id = name, machine_id = name, ours = true,
    ipv4 = { {
      netiface_index = 1, if_index = 0, external = side.external_ip, internal = side.ip, port = PORT,
      nat = found.nat, delta = found.delta, delta_value = found.value,
    } },
  }
end

--- A node behind one of the routers, which has been up for a while.
---@param net table p2pd.lab.virtual.world
---@param side table
---@param options { pipeline: p2pd.Strategy, listens: boolean, turn: boolean }
function M.new(net, side, options)
  local self = setmetatable({
    net = net, side = side, pipeline = options.pipeline, listens = options.listens, turn = options.turn,
    address = address_of(side, side.name), expected = {}, waiting = {}, talks = {}, pipes = {}, ids = 0,
    tasks = task.group(),
  }, node)
  side.host:listen(PORT, { opened = function(socket) accept(self, socket) end })
  ports.warm(net, side)
  return self
end

function node:__close()
  getmetatable(self.tasks).__close(self.tasks)
end

return M
