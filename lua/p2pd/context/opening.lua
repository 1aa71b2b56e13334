-- opening: what a ctx does to reach the peer by its addresses: which there are, dialing one, being dialed.
local candidates = require "p2pd.candidates"
local checks = require "p2pd.context.checks"
local scope_module = require "p2pd.scope"
local uv = require "luv"

local DIAL_TIMEOUT = 10 -- seconds, when nothing else bounds it
local TOKEN_SIZE = 16   -- bytes (core/pipe.h)

local methods = {}

--- The addresses of the peer that are worth trying from here, the best first; see p2pd.candidates.
---@return { ip: string, port: integer, scope: string, near?: string }[] list, string? reason why there is none
function methods:candidates()
  local scope = checks.scope_of(self, 2)
  local means = scope.root.means
  local list, refused = candidates.list {
    peer = self.peer, own = self.own, role = self.role,
    prefixes = means.prefixes(), loopback_only = means.loopback_only(),
  }
  if #list > 0 then return list end
  if not refused[1] then return list, "the peer's address has no interface" end
  return list, ("%s: %s"):format(refused[1].ip, refused[1].reason)
end

local dial_options = {
  ip = "string", port = "number", scope = "string", timeout = "number", token = "string", local_ip = "string",
  relayed = "boolean",
}

local never_dialed = { unspecified = true, multicast = true, broadcast = true }

local FIRST_RELAYED_PORT = 1024 -- servers use 49152 and up (RFC 8656, section 7.2), or what they are told

-- A side that was asked by a message dials nothing but the sender's own addresses, whatever its script says; or an
-- address that a relay may have given the sender.
local function refusal_to_dial(scope, ip, port, relayed)
  local kind = candidates.kind(ip)
  if not kind then return "EINVAL", "it is not an IP address" end
  if never_dialed[kind] then return "EACCES", ("a %s address is never dialed"):format(kind) end
  if scope.ctx.role ~= "respond" then return nil end
  if relayed then
    local means = scope.root.means
    local reason = candidates.no_meeting(ip, means.prefixes(), means.loopback_only())
    if not reason and port < FIRST_RELAYED_PORT then reason = "no relay has a port below 1024" end
    return reason and "EACCES", reason
  end
  for _, candidate in ipairs((scope.ctx:candidates())) do
    if candidate.ip == ip then return nil end
  end
  return "EACCES", "it is not among the peer's addresses that may be dialed for it"
end

--- Connects to an address and proves both keys. Whoever wants the connection is the TLS client; the side that was
--- asked is the server and shows the token that the other one expects.
---@param options { ip: string, port: integer, scope?: string, timeout?: number, token?: string, local_ip?: string,
---                 relayed?: boolean }
---@return any? pipe, string? message, string? code
function methods:dial(options)
  local scope = checks.working_scope(self, 2)
  checks.options(options, dial_options, 2)
  local ip, port, token = options.ip, options.port, options.token
  if not ip then error("option 'ip' is missing", 2) end
  if math.type(port) ~= "integer" or port < 1 or port > 65535 then
    error("option 'port' is a whole number from 1 to 65535", 2)
  end
  checks.seconds(options.timeout, 2)
  if token and (#token ~= 2 * TOKEN_SIZE or token:find("%X")) then
    error("option 'token' is 32 hexadecimal digits", 2)
  end
  if token and self.role == "connect" then error("a token is for the side that was asked", 2) end
  if scope.closed then return scope_module.refuse_closed() end
  local to = (ip:find(":", 1, true) and "[%s]:%d" or "%s:%d"):format(ip, port)
  local code, sentence = refusal_to_dial(scope, ip, port, options.relayed)
  if code then return nil, ("%s: cannot dial %s: %s"):format(code, to, sentence), code end
  local timeout = math.min(options.timeout or DIAL_TIMEOUT, self:remaining())
  if timeout <= 0 then return nil, ("ETIMEDOUT: no time is left to dial %s"):format(to), "ETIMEDOUT" end
  if token then
    scope.root.report:hide(token)
    token = checks.from_hex(token)
  end
  local ended = scope.root.report:dial(scope.node, to, options.scope)
  local pipe, message
  pipe, message, code = scope.root.means.dial {
    ip = ip, port = port, timeout = timeout, local_ip = options.local_ip, token = token, relayed = options.relayed,
    role = self.role == "connect" and "client" or "server",
  }
  ended(pipe ~= nil, code)
  return scope:take(pipe, message, code)
end

---@class p2pd.Arrival
---@field token string what the peer must show, 32 hexadecimal digits
local arrival = {}
arrival.__index = arrival
arrival.__name = "p2pd.arrival"

--- Waits for the next connection that shows the token and proves the peer's key.
---@param timeout? number seconds
---@return any? pipe, string? message, string? code
function arrival:wait(timeout)
  checks.seconds(timeout, 2)
  local scope, expected = self.scope, self.expected
  if not expected then return nil, "ECLOSED: it is no longer expected", "ECLOSED" end
  return scope:take(expected:wait(checks.within(scope, timeout)))
end

--- Stops expecting it; pipes that came of it stay.
function arrival:close()
  local expected = self.expected
  self.expected = nil
  if expected then
    self.scope:release(self)
    expected:close()
  end
end

arrival.__close = arrival.close

function arrival:__tostring()
  return self.expected and "arrival (expected)" or "arrival (closed)"
end

--- Makes the node expect a connection from the peer that shows a fresh token; tell it to the peer.
---@return p2pd.Arrival? arrival, string? message, string? code
function methods:expect()
  local scope = checks.working_scope(self, 2)
  if self.role ~= "connect" then error("only the side that wants the connection expects an arrival", 2) end
  if scope.closed then return scope_module.refuse_closed() end
  local token = uv.random(TOKEN_SIZE)
  local hex = checks.to_hex(token)
  scope.root.report:hide(hex)
  local expected, message, code = scope.root.means.expect(token)
  if not expected then return nil, message, code end
  return scope:take(setmetatable({ token = hex, expected = expected, scope = scope }, arrival))
end

return methods
