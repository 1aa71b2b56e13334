-- matrix_end: what runs on the two hosts of a pair (p2pd.lab.matrix_cell): a node that echoes, and one that connects.
--
-- Both are told what to do by a line of JSON, and tell a line for each thing that has come about:
--
--   {"event":"ready", "address":…, "examined":true, …}   the node is up, and its NAT was looked at
--   {"event":"result", "ok":true, "ms":…, "report":…}    of the one that connects: how it went
--
-- A new node learns what its NAT is while it runs already, so who connects at once knows less than who waited. What is
-- measured is the attempt, not that: both ends wait until the NAT was examined, and so `ms` is node:connect's alone.
local cjson = require "cjson"
local p2pd = require "p2pd"
local stdio = require "p2pd.stdio"
local task = require "p2pd.task"

local M = {}

local EXAMINATION = 6   -- seconds that it may take
local TICK = 0.02       -- seconds between two looks whether it is done
local SETTLING = 0.1    -- seconds in which what follows from it (warm ports, say) is made; and in round trips
local SETTLING_TRIPS = 4
local ECHO_PATIENCE = 5 -- seconds for the line to come back
local LINE = "there and back\n"

local function tell(event, fields)
  fields.event = event
  io.stdout:write(cjson.encode(fields), "\n")
  io.stdout:flush()
end

-- Waiting for the examination -----------------------------------------------------------------------------------------

-- Where no STUN server has answered there is nothing to examine.
local function all_examined(network)
  for _, one in pairs(network.known or {}) do
    local nothing_to_see = one.ready and not one.seen
    if not one.examined and not nothing_to_see then return false end
  end
  return true
end

-- A network that tells facts does so when its NAT was examined, or nothing can be known; or it tells what it has when
-- the time is over, with a confidence of 0.
local function await_facts(network, deadline)
  repeat
    local facts, _, code = network:facts(4, math.max(0, deadline - task.now()))
    if facts then return facts.confidence ~= 0, facts end
    task.sleep(TICK)
  until code ~= "ETIMEDOUT" or task.now() >= deadline
  return false
end

-- Whether the NAT was examined before the time was over; and the facts, where there are some.
local function examined(node)
  local deadline = task.now() + EXAMINATION
  if node.network.facts then return await_facts(node.network, deadline) end
  while not all_examined(node.network) do
    if task.now() >= deadline then return false end
    task.sleep(TICK)
  end
  return true
end

-- What the node takes its NAT for: { nat =, delta =, value =, external = }.
local function own_words(node, facts)
  if facts and facts.nat then
    return { nat = facts.nat, delta = facts.delta, value = facts.value, external = facts.ip }
  end
  local parsed = p2pd.address.parse(node:address())
  local one = parsed and parsed.ipv4[1]
  return one and { nat = one.nat, delta = one.delta, value = one.delta_value, external = one.external } or nil
end

-- The two ends --------------------------------------------------------------------------------------------------------

--- The pipeline that both ends use: the default one, a file's, or some strategies of either.
---@param given {pipeline: string?, strategies: string[]?}
---@return p2pd.Strategy? pipeline, string? message, string? code
function M.pipeline(given)
  local chosen, message, code = p2pd.pipeline.default()
  if given.pipeline then chosen, message, code = p2pd.pipeline.load(given.pipeline) end
  if chosen and given.strategies then chosen, message, code = p2pd.pipeline.restrict(chosen, given.strategies) end
  return chosen, message, code
end

local function settings_of(given)
  local chosen, message, code = p2pd.settings.load()
  if chosen and not given.turn then chosen.turn = {} end
  return chosen, message, code
end

local function failed(message, code)
  tell("failed", { message = message, code = code })
  return 1
end

local function open(given, listens)
  local settings, message, code = settings_of(given)
  if not settings then return nil, message, code end
  local pipeline
  pipeline, message, code = M.pipeline(given)
  if not pipeline then return nil, message, code end
  local began = task.now()
  local node, why, what = p2pd.node {
    settings = settings, pipeline = pipeline, listen = listens,
    on_notice = function(text) tell("notice", { message = text }) end,
  }
  if not node then return nil, why, what end
  local up = task.now()
  local was_examined, facts = examined(node)
  local looked = task.now()
  task.sleep(SETTLING + SETTLING_TRIPS * given.trip)
  tell("ready", {
    address = node:address(), own = own_words(node, facts), examined = was_examined,
    up_ms = (up - began) * 1000, examined_ms = (looked - up) * 1000,
  })
  return node
end

local function echo(pipe)
  local _ <close> = pipe
  local data = pipe:recv()
  while data and pipe:send(data) do data = pipe:recv() end
  pipe:shutdown()
end

-- Until nobody tells it anything any more.
local function listen(given, input)
  local node <close>, message, code = open(given, true)
  if not node then return failed(message, code) end
  p2pd.spawn(function()
    for pipe in node:accept() do p2pd.spawn(echo, pipe) end
  end)
  while input.read() do end -- luacheck: ignore 542
  return 0
end

-- Whether a line comes back, and in how many milliseconds.
local function exchange(pipe)
  local began = task.now()
  local sent, message, code = pipe:send(LINE)
  if not sent then return nil, message, code end
  local line
  line, message, code = task.timeout(ECHO_PATIENCE, pipe:lines())
  if line == LINE:sub(1, -2) then return (task.now() - began) * 1000 end
  if line then return nil, ("EPROTO: '%s' came back"):format(line), "EPROTO" end
  return nil, message or "EOF: the other end closed before the line came back", code or "EOF"
end

local function attempt(node, address, timeout)
  local began = task.now()
  local pipe <close>, message, code = node:connect(address, { timeout = timeout })
  local result = { ok = pipe ~= nil, ms = (task.now() - began) * 1000, message = message, code = code }
  if pipe then
    result.strategy, result.remote = pipe.strategy, pipe.remote
    result.echo_ms, result.message, result.code = exchange(pipe)
    result.ok = result.echo_ms ~= nil
  end
  local report = node.last_report
  if report then
    result.report, result.text = report:table(), report:text()
    result.report.rungs = #result.report.rungs > 0 and result.report.rungs or nil
  end
  return result
end

local function connect(given, input)
  local node <close>, message, code = open(given, false)
  if not node then return failed(message, code) end
  local address = input.line()
  if not address then return failed("EOF: no address came", "EOF") end
  tell("result", attempt(node, address, given.timeout))
  return 0
end

-- The program ---------------------------------------------------------------------------------------------------------

-- Standard input: `read` gives what comes, `line` the next line.
local function open_input()
  local reader, text, input = stdio.reader(0), "", {}
  function input.read() return reader:read() end
  function input.line()
    while not text:find("\n", 1, true) do
      local data = reader:read()
      if not data then return nil end
      text = text .. data
    end
    local line
    line, text = text:match "^([^\n]*)\n(.*)$"
    return line
  end
  return setmetatable(input, { __close = function() reader:close() end })
end

local sides = { listen = listen, connect = connect }

--- The program `lab end`: returns its exit status.
function M.run()
  local input <close> = open_input()
  local ok, given = pcall(cjson.decode, input.line() or "")
  local side = ok and type(given) == "table" and sides[given.side]
  if not side then
    io.stderr:write "p2pd-lua lab end: EINVAL: this is a part of `p2pd-lua lab matrix`, which starts it\n"
    return 2
  end
  return side(given, input)
end

return M
