-- node: one identity on the network: it listens, is found through its brokers, and connects to others.
local core = require "p2pd.core"
local address = require "p2pd.address"
local brokers = require "p2pd.brokers"
local context = require "p2pd.context"
local means = require "p2pd.means"
local network = require "p2pd.network"
local pipeline = require "p2pd.pipeline"
local pipes = require "p2pd.pipe"
local report = require "p2pd.report"
local settings = require "p2pd.settings"
local signaling = require "p2pd.signaling"
local strangers = require "p2pd.strangers"
local strategies = require "p2pd.strategy"
local task = require "p2pd.task"

local M = {}

local OWN_BROKERS = 3        -- on which a node is to be found
local SPARE_BROKERS = 3      -- tried as well when none of those can be reached
local BROKER_PATIENCE = 3    -- seconds that a new node waits for its first broker
local CONNECT_TIMEOUT = 20   -- seconds, unless the caller says otherwise
local RESPOND_TIMEOUT = 20
local UNKNOWN = ""           -- the kind of requests that no strategy answers
local MISTAKE_PAUSE = 1      -- seconds between two notices of mistakes in scripts
local ACCEPTED = 128         -- pipes that wait for accept()
-- What pipes receive becomes strings of up to 256 KiB that live for a moment; a cycle of the collector marks all that
-- lives, so cycles are to be few.
local GC_PAUSE = 400
local CLOCK_AGAIN, CLOCK_RETRY = 1024, 64 -- seconds
local MAX_OFFSETS = 15       -- of the brokers that an address can name (the address format's limit)

local node = {}
node.__index = node
node.__name = "p2pd.node"

-- Those that were started, for who looks into a running program.
local live = setmetatable({}, { __mode = "k" })

--- The nodes that run.
---@return table[]
function M.list()
  local list = {}
  for each in next, live do
    if not each.closed then list[#list + 1] = each end
  end
  table.sort(list, function(a, b) return a.started < b.started end)
  return list
end

local function check_options(options, known, level)
  if options ~= nil and type(options) ~= "table" then error("the options are a table", level + 1) end
  for key, value in pairs(options or {}) do
    local kind = known[key]
    if not kind then error(("unknown option '%s'"):format(tostring(key)), level + 1) end
    if not (" " .. kind .. " "):find(" " .. type(value) .. " ", 1, true) then
      error(("option '%s' is a %s, not a %s"):format(key, type(value), (kind:gsub(" ", " or "))), level + 1)
    end
  end
  return options or {}
end

local function random_bytes(count)
  return (core.identity.random(count):gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- Runs a task of the node's own; it ends with the node.
local function spawn(self, f, ...)
  local own
  own = task.spawn(function(...)
    local _ <close> = setmetatable({}, { __close = function() self.tasks[own] = nil end })
    f(...)
  end, ...)
  self.tasks[own] = true
  return own
end

-- What arrives --------------------------------------------------------------------------------

local function allowed(self, peer)
  if not self.allow then return true end
  local ok, answer = pcall(self.allow, peer)
  if ok then return answer end
  if task.is_cancelled(answer) then error(answer, 0) end
  io.stderr:write(("p2pd-lua: allow() failed, so the peer is refused: %s\n"):format(tostring(answer)))
  return false
end

-- Hands a proven and committed pipe to accept().
local function hand_out(self, pipe, strategy)
  pipes.give(pipe, strategy)
  if #self.arrived >= ACCEPTED or self.closed then return pipe:refuse "EBUSY" end
  self.arrived:send(pipe)
end

local function accept_direct(self)
  while true do
    local pipe = self.listener:accept()
    if not pipe then return end
    if not self.listens then
      pipe:refuse()
    elseif not self.allow then
      hand_out(self, pipe, "direct")
    else -- it may wait, and others are not to wait for it
      spawn(self, function()
        if allowed(self, pipe.peer) then hand_out(self, pipe, "direct") else pipe:refuse() end
      end)
    end
  end
end

--- Yields the pipes that arrive, until the node is closed: `for pipe in node:accept() do`.
function node:accept()
  return function()
    return (self.arrived:recv())
  end
end

-- What others ask for -------------------------------------------------------------------------

-- What went wrong in a script is for its user: the peer hears only that it did.
local function tell_mistake(self, strategy, message)
  local now = task.now()
  if self.mistake_told and now - self.mistake_told < MISTAKE_PAUSE then return end
  self.mistake_told = now
  self.notice(("strategy %s could not answer: %s"):format(strategy.name, (message:gsub("^ESCRIPT: ", ""))))
end

local function respond(self, strategy, peer, message)
  local ctx = context.new {
    peer = peer, own = self.parsed, role = "respond", means = means.new(self, peer, "respond"),
    deadline = task.now() + RESPOND_TIMEOUT,
  }
  local pipe, why, code = pipeline.respond(strategy, ctx, message)
  if pipe then return hand_out(self, pipe, strategy.name) end
  if code == "ESCRIPT" then tell_mistake(self, strategy, why) end
end

local function on_request(self, peer, message)
  if not self.listens then return end
  local strategy, lacks = pipeline.responder(self.pipeline, message.kind)
  if not strategy and not strategies.is_name(message.kind) then return end
  local kind = strategy and not message.more and message.kind or UNKNOWN -- what is in vain is counted as one kind
  local leave = self.strangers:may_ask(peer.node_id, kind) and self.strangers:enter(peer.node_id)
  if not leave then
    self.signaling:reply(peer, message, {
      kind = "refused", code = "EAGAIN", message = "it was asked too often; try again in a minute",
    })
    return
  end
  if message.more then
    leave()
    self.signaling:reply(peer, message, {
      kind = "refused", code = "ECLOSED", message = "what this belongs to is over",
    })
    return
  end
  spawn(self, function()
    local _ <close> = setmetatable({}, { __close = leave })
    if not allowed(self, peer.node_id) then return end
    if strategy then return respond(self, strategy, peer, message) end
    self.signaling:reply(peer, message, {
      kind = "refused", code = "ENOTSUP", message = "this node has nothing that answers it", lacks = lacks,
    })
  end)
end

-- Connecting ----------------------------------------------------------------------------------

local connect_options = {
  strategies = "table", pipeline = "table function", timeout = "number", on_event = "function",
}

local function choose_pipeline(self, options)
  if options.pipeline then return options.pipeline end
  if options.strategies then return pipeline.restrict(self.pipeline, options.strategies) end
  return self.pipeline
end

--- Connects to a peer by the means that its pipeline finds fit.
---@param to string an address
---@param options? {strategies: string[]?, pipeline: table?, timeout: number?, on_event: function?}
---@return userdata? pipe, string? message, string? code
function node:connect(to, options)
  options = check_options(options, connect_options, 2)
  if type(to) ~= "string" then error("an address is expected, not a " .. type(to), 2) end
  if options.timeout and not (options.timeout >= 0) then error("option 'timeout' is not a number of seconds", 2) end
  if self.closed then return nil, "ECLOSED: the node was closed", "ECLOSED" end
  if not to:find("-", 1, true) then
    return nil, "ENOTSUP: names cannot be looked up; use the address that the peer printed", "ENOTSUP"
  end
  local peer, message, code = address.parse(to)
  if not peer then return nil, message, code end
  if not peer.ours then
    return nil, "ENOTSUP: the node ID is not a key of this implementation, so nothing could be proven or sealed",
      "ENOTSUP"
  end
  if peer.node_id == self:id() then return nil, "EINVAL: that is this node's own address", "EINVAL" end
  local chosen
  chosen, message, code = choose_pipeline(self, options)
  if not chosen then return nil, message, code end
  local attempt = random_bytes(16)
  local own_report = report.new { on_event = options.on_event }
  self.last_report, M.last_report = own_report, own_report
  self.brokers:use(peer.signal)
  local _ <close> = setmetatable({}, { __close = function() self.brokers:release(peer.signal) end })
  local ctx = context.new {
    peer = peer, own = self.parsed, role = "connect", attempt = attempt, means = means.new(self, peer, "connect"),
    report = own_report, deadline = task.now() + (options.timeout or CONNECT_TIMEOUT),
  }
  local pipe
  pipe, message, code = pipeline.run(chosen, ctx)
  if not pipe then return nil, message, code end
  pipes.give(pipe, own_report.winner)
  local committed, why, what = pipe:commit(attempt)
  if committed then return pipe end
  pipe:close()
  return nil, why, what
end

--- Uses another pipeline from now on: it answers, and the next attempts go by it; what is under way stays as it began.
---@param strategy p2pd.Strategy|string|function in place of a strategy its name or its file
---@return p2pd.Strategy? former, string? message, string? code
function node:use(strategy)
  if type(strategy) == "string" then
    local loaded, message, code = pipeline.load(strategy)
    if not loaded then return nil, message, code end
    strategy = loaded
  end
  local chosen, problem = strategies.of(strategy)
  if not chosen then error(problem, 2) end
  local former = self.pipeline
  self.pipeline = chosen
  if self.watching then
    local ok, message = self.watching:follow(chosen)
    if not ok then self.notice(message) end
  end
  return former
end

--- Uses the pipeline anew whenever one of its files changes, until the node is closed; also what `use` gives it later.
---@param on_news? fun(news: p2pd.PipelineNews)
---@return boolean? ok, string? message, string? code
function node:watch(on_news)
  if on_news ~= nil and type(on_news) ~= "function" then
    error("a function is expected that gets the news, not a " .. type(on_news), 2)
  end
  if self.closed then return nil, "ECLOSED: the node was closed", "ECLOSED" end
  on_news = on_news or function(news) self.notice(news.text) end
  local watching, message, code = pipeline.watch(self.pipeline, function(news)
    self.pipeline = news.pipeline or self.pipeline
    on_news(news)
  end)
  if not watching then return nil, message, code end
  if self.watching then self.watching:close() end
  self.watching = watching
  return true
end

-- Opening and closing -------------------------------------------------------------------------

local node_options = {
  settings = "table string", key = "string", port = "number", allow = "function", bind = "string",
  listen = "boolean", map = "boolean", pipeline = "table function", on_notice = "function", on_address = "function",
}

-- What is known of the network has changed, and with it perhaps the address. Interfaces that came or went may have
-- taken connections to brokers with them.
local function readdress(self, interfaces)
  if not self.text or self.closed then return end
  self.parsed.ipv4, self.parsed.ipv6 = self.network.ipv4, self.network.ipv6
  if interfaces then self.brokers:renew() end
  local text = address.format(self.parsed)
  if not text or text == self.text then return end
  self.text = text
  if not self.on_address then return end
  local ok, failure = pcall(self.on_address, text)
  if ok then return end
  if task.is_cancelled(failure) then error(failure, 0) end
  io.stderr:write(("p2pd-lua: on_address failed: %s\n"):format(tostring(failure)))
end

-- Messages carry the true time, whatever the machine's clock says.
local function keep_time(self, servers, clock_error)
  local clock = require "p2pd.clock"
  while true do
    local reading = clock.measure { servers = servers, clock_error = clock_error }
    if reading then self.signal:set_clock_offset(-reading.offset) end
    task.sleep(reading and CLOCK_AGAIN or CLOCK_RETRY)
  end
end

local function open_listener(self, options, notice)
  local wanted = options.port or core.address.port(self.node_id)
  local listener, message, code = core.listener.new { identity = self.identity, ip = options.bind, port = wanted }
  if listener or code ~= "EADDRINUSE" or options.port then return listener, message, code end
  listener, message, code = core.listener.new { identity = self.identity, ip = options.bind, port = 0 }
  if listener and options.listen ~= false then
    notice(("port %d is in use, so this node listens on %d; its address will not outlive a restart")
      :format(wanted, listener.port))
  end
  return listener, message, code
end

-- The brokers on which this node is to be found: always the same ones for the same key, so that an address outlives a
-- restart; others only when none of these can be reached.
local function join_brokers(self, list)
  local order = core.address.broker_order(self.node_id, math.min(#list, MAX_OFFSETS))
  local offsets = table.move(order, 1, math.min(OWN_BROKERS, #order), 1, {})
  self.brokers:use(offsets)
  if #offsets == 0 or self.brokers:wait(offsets, BROKER_PATIENCE) then return offsets end
  local spare = table.move(order, OWN_BROKERS + 1, math.min(OWN_BROKERS + SPARE_BROKERS, #order), 1, {})
  self.brokers:use(spare)
  if self.brokers:wait(spare, BROKER_PATIENCE) then table.move(spare, 1, #spare, #offsets + 1, offsets) end
  return offsets
end

local function start(self, options, notice)
  local chosen, message, code = settings.load(options.settings)
  if not chosen then return nil, message, code end
  if #chosen.mqtt > 0 then core.signal.start_early() end -- while all else is made ready
  self.turn = chosen.turn
  self.identity, message, code = core.identity.open { path = options.key, lock = self.listens }
  if not self.identity then return nil, message, code end
  self.node_id = self.identity:id()
  self.signal = core.signal.new { identity = self.identity, clock_error = chosen.clock_error }
  self.brokers = brokers.new(self.signal, chosen.mqtt)
  self.signaling = signaling.new(self.signal, self.brokers, function(...) return on_request(self, ...) end)
  self.listener, message, code = open_listener(self, options, notice)
  if not self.listener then return nil, message, code end
  spawn(self, accept_direct, self)
  spawn(self, self.signaling.run, self.signaling)
  local opening <close> = task.group()
  local joining = opening:spawn(join_brokers, self, chosen.mqtt)
  self.network, message, code = network.open {
    bind = options.bind, port = self.listener.port, stun = chosen.stun, turn = chosen.turn, name = self.node_id,
    notice = notice,
    map = self.listens and options.map ~= false, on_change = function(interfaces) readdress(self, interfaces) end,
  }
  if not self.network then return nil, message, code end
  if #chosen.ntp > 0 and not self.network.loopback_only then
    spawn(self, keep_time, self, chosen.ntp, chosen.clock_error)
  end
  self.network:ready()
  local offsets = joining:wait()
  if #offsets > 0 and #self.brokers:up() == 0 then
    notice "no broker can be reached; they are tried again, and until then only direct connections can come"
  end
  self.parsed = {
    signal = offsets, ipv4 = self.network.ipv4, ipv6 = self.network.ipv6, node_id = self.node_id,
    machine_id = core.identity.machine_id(),
  }
  self.text, message, code = core.address.format(self.parsed)
  if not self.text then return nil, message, code end
  self.network:warm()
  core.task.settle() -- what starting left behind need not stay for the node's life
  collectgarbage("setpause", GC_PAUSE)
  live[self], self.started = true, task.now()
  return self
end

local function print_notice(text)
  io.stderr:write("p2pd-lua: ", text, "\n")
end

--- Starts a node.
---@param options? p2pd.NodeOptions
---@return table? node, string? message, string? code
function M.open(options)
  options = check_options(options, node_options, 2)
  if options.bind and not core.address.ip(options.bind) then error("option 'bind' is no IP address", 2) end
  local port = options.port
  if port and (math.type(port) ~= "integer" or port < 0 or port > 65535) then
    error("option 'port' is not a whole number from 0 to 65535", 2)
  end
  local chosen, problem = strategies.of(options.pipeline or pipeline.default())
  if not chosen then error(problem, 2) end
  local self = setmetatable({
    notice = options.on_notice or print_notice,
    tasks = {}, strangers = strangers.new(), closed = false,
    listens = options.listen ~= false, allow = options.allow, on_address = options.on_address,
    pipeline = chosen, arrived = task.channel(ACCEPTED),
  }, node)
  local _ <close> = setmetatable({}, { __close = function() if not self.text then self:close() end end })
  return start(self, options, self.notice)
end

--- The text that others connect to.
function node:address()
  return self.text
end

--- What this node's router does to TCP of a family; waits until it has been examined.
---@param family 4|6
---@param timeout? number seconds
---@return p2pd.Facts? facts, string? message, string? code
function node:facts(family, timeout)
  if self.closed then return nil, "ECLOSED: the node was closed", "ECLOSED" end
  return self.network:facts(family, timeout)
end

--- The node ID: the public key, in base58btc.
function node:id()
  return self.node_id
end

--- A short name for an address; looking names up comes later.
function node.nickname()
  return nil, "ENOTSUP: nicknames are not supported by this version", "ENOTSUP"
end

--- What the brokers in use are doing, and which messages were dropped and why.
function node:signal_state()
  return { brokers = self.brokers:state(), counters = self.signal:counters() }
end

--- Ends everything that the node began; pipes that were handed out live on.
function node:close()
  if self.closed then return true end
  self.closed = true
  self.arrived:close()
  if self.watching then self.watching:close() end
  while true do
    local pipe = #self.arrived > 0 and self.arrived:recv()
    if not pipe then break end
    pipe:close()
  end
  if self.brokers then self.brokers:close() end
  for own in pairs(self.tasks) do own:cancel() end
  for own in pairs(self.tasks) do
    if own ~= task.current() then pcall(own.wait, own) end
  end
  if self.network then self.network:close() end
  if self.listener then self.listener:close() end
  if self.signal then self.signal:close() end
  if self.identity then self.identity:close() end
  return true
end

node.__close = node.close

function node:__tostring()
  return ("node %s (%s)"):format(self.node_id or "?",
    self.closed and "closed" or self.listener and ("port %d"):format(self.listener.port) or "starting")
end

return M
