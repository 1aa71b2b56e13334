-- stun: which address STUN servers see us come from: `require "p2pd.stun"`.
local core = require "p2pd.core"
local task = require "p2pd.task"

local M = {
  socket = core.stun.socket,
  connect = core.stun.connect,
  lookup = core.stun.lookup,
  methods = core.stun.methods, -- for spec/meta_spec.lua
}

local TIMEOUT = 3        -- seconds, unless the caller says otherwise
local AT_ONCE = 3        -- servers that are asked at first
local PATIENCE = 0.1     -- seconds in which one of them should answer, before one more is asked
local RIGHT_TO_WRONG = 4 -- how much likelier a server tells the truth than not
local ENOUGH = 2         -- so many more servers for an address than against it: no more are asked

local external_options = {
  servers = "table", ip = "string", port = "number", device = "string", family = "number", socket = "userdata",
  timeout = "number", on_answer = "function",
}

local function check_options(options, known, level)
  if type(options) ~= "table" then error("a table of options is expected, not a " .. type(options), level + 1) end
  for key, value in pairs(options) do
    local kind = known[key]
    if not kind then error(("unknown option '%s'"):format(tostring(key)), level + 1) end
    if type(value) ~= kind then error(("'%s' is a %s, not a %s"):format(key, type(value), kind), level + 1) end
  end
  for i, server in ipairs(options.servers or {}) do
    local port = type(server) == "table" and type(server.host or server.ip) == "string" and math.tointeger(server.port)
    if not port or port < 1 or port > 65535 then
      error(("servers[%d] is no { host = …, port = … }"):format(i), level + 1)
    end
  end
  if not options.servers or #options.servers == 0 then error("'servers' has none", level + 1) end
  if options.ip and not core.address.ip(options.ip) then error("'ip' is no IP address", level + 1) end
end

-- The first address of a server in this family.
local function resolve(server, family, timeout)
  local name = server.ip or server.host
  local list, message, code = core.dns.resolve(name, timeout)
  for _, ip in ipairs(list or {}) do
    if core.address.ip(ip).family == family then return ip end
  end
  if list then message, code = ("EAI_NONAME: %s has no IPv%d address"):format(name, family), "EAI_NONAME" end
  return nil, message, code
end

-- What the answers say together. Each server is a witness: those for the commonest address against all others.
local function weigh(answers)
  local votes, best = {}, answers[1]
  for _, answer in ipairs(answers) do
    votes[answer.external_ip] = (votes[answer.external_ip] or 0) + 1
    if votes[answer.external_ip] > votes[best.external_ip] then best = answer end
  end
  local lead = 2 * votes[best.external_ip] - #answers
  local odds = RIGHT_TO_WRONG ^ lead
  local result = {
    external_ip = best.external_ip, external_port = best.external_port, answers = answers,
    confidence = odds / (1 + odds), confirmed = lead >= ENOUGH, disagreement = votes[best.external_ip] < #answers,
  }
  if votes[best.external_ip] > 1 then
    result.same_port = true
    for _, answer in ipairs(answers) do
      if answer.external_ip == best.external_ip and answer.external_port ~= best.external_port then
        result.same_port = false
      end
    end
  end
  return result
end

-- Asks the servers in their order, the first few at once, one more whenever one fails or is slow, and calls
-- `heard(result)` after each answer, until that returns true or none is left.
local function ask_all(socket, servers, family, deadline, heard)
  local tasks <close> = task.group()
  local answers, failures, started, ended, changed = {}, {}, 0, 0, task.condition()
  local function left() return math.max(0, deadline - task.now()) end
  local function ask(server)
    local ip, answer, message, code
    ip, message, code = resolve(server, family, left())
    if ip then answer, message, code = socket:ask(ip, server.port, { timeout = left() }) end
    if answer then
      answer.host, answer.port = server.host or server.ip, server.port
      answers[#answers + 1] = answer
    else
      failures[#failures + 1] = { host = server.host or server.ip, port = server.port, message = message, code = code }
    end
    ended = ended + 1
    changed:signal()
  end
  local function start()
    started = started + 1
    tasks:spawn(ask, servers[started])
  end
  local told, failed = 0, 0
  for _ = 1, math.min(AT_ONCE, #servers) do start() end
  while ended < #servers or told < #answers do
    local idle = started == ended -- and what they said was not enough
    if told < #answers then
      told = #answers
      local result = weigh(table.move(answers, 1, told, 1, {}))
      result.failures = failures
      if heard(result) then return end
    elseif started == #servers then
      changed:wait()
    elseif failed < #failures or idle or not changed:wait(PATIENCE) then
      failed = math.min(failed + 1, #failures)
      start()
    end
  end
  return failures[1]
end

-- A socket for one call, unless the caller has one.
local function open(options, family)
  if options.socket then return nil end
  return M.socket { ip = options.ip or family == 6 and "::" or nil, port = options.port, device = options.device }
end

--- The external address of this machine, as several servers see it.
function M.external(options)
  check_options(options, external_options, 2)
  local timeout = options.timeout or TIMEOUT
  local family = options.family or options.ip and core.address.ip(options.ip).family
    or options.socket and core.address.ip(options.socket.local_ip).family or 4
  local own <close>, message, code = open(options, family)
  local socket = options.socket or own
  if not socket then return nil, message, code end
  local result
  local failure = ask_all(socket, options.servers, family, task.now() + timeout, function(now)
    result = now
    result.local_ip, result.local_port = socket.local_ip, socket.local_port
    if options.on_answer then options.on_answer(result) end
    return result.confirmed
  end)
  if result then return result end
  return nil, failure.message, failure.code
end

return M
