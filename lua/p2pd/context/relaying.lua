-- relaying: what a ctx has for meeting at a TURN server (RFC 8656, RFC 6062).
local checks = require "p2pd.context.checks"
local scope_module = require "p2pd.scope"

local methods = {}

local RELAY_TIMEOUT, ARRIVE_TIMEOUT, SECURE_TIMEOUT = 5, 10, 5 -- seconds

local relay = {}
relay.__index = relay
relay.__name = "p2pd.relay"

--- Lets connections from these addresses through, too.
---@param ... string
---@return boolean? ok, string? message, string? code
function relay:permit(...)
  return self.allocation:permit(...)
end

-- The relay's life is then that of the pipe.
local function secure(self, socket, message, code)
  if not socket then return nil, message, code end
  local pipe
  pipe, message, code = self.scope.root.means.adopt {
    socket = socket, timeout = SECURE_TIMEOUT, keep = self.allocation,
  }
  self.kept = self.kept or pipe ~= nil
  return self.scope:take(pipe, message, code)
end

--- Waits until the peer has come to the relay, and has proven its key; who proves none is passed over.
---@param timeout? number seconds
---@return any? pipe, string? message, string? code
function relay:pipe(timeout)
  checks.seconds(timeout, 2)
  local deadline = self.scope.ctx:now() + (checks.within(self.scope, timeout or ARRIVE_TIMEOUT))
  local failure, failed
  while true do
    local left = deadline - self.scope.ctx:now()
    if left <= 0 then return nil, failure or "ETIMEDOUT: the peer did not come to the relay", failed or "ETIMEDOUT" end
    local socket, message, code = self.allocation:wait(left)
    if not socket then return nil, failure or message, failed or code end
    local pipe
    pipe, failure, failed = secure(self, socket)
    if pipe then return pipe end
  end
end

--- Goes from our relay to another address, as that of the peer's relay.
---@param ip string
---@param port integer
---@param timeout? number seconds
---@return any? pipe, string? message, string? code
function relay:dial(ip, port, timeout)
  checks.seconds(timeout, 2)
  return secure(self, self.allocation:connect(ip, port, checks.within(self.scope, timeout or ARRIVE_TIMEOUT)))
end

--- Whether the server has ended it, or cannot be reached any more.
---@return boolean
function relay:is_lost()
  return self.allocation:failed() ~= nil
end

--- Gives the relay back, unless a pipe goes through it: then it lives as long as the pipe.
function relay:close()
  if not self.kept then self.allocation:close() end
end

relay.__close = relay.close

function relay:__tostring()
  return ("relay (%s)"):format(self.server or "?")
end

--- An address at one of the TURN servers of this node's settings: the first that gives one. Fails with ENOTSUP when the
--- settings name none.
---@param options? { permit?: string[], family?: 4|6, timeout?: number } who may come
---@return p2pd.Relay? relay, string? message, string? code
function methods:relay(options)
  local scope = checks.working_scope(self, 2)
  options = options or {}
  checks.options(options, { permit = "table", family = "number", timeout = "number" }, 2)
  if scope.closed then return scope_module.refuse_closed() end
  local means = scope.root.means.relay
  if not means then return nil, "ENOTSUP: this node has no relay", "ENOTSUP" end
  local allocation, message, code = means {
    permit = options.permit, family = options.family,
    timeout = checks.within(scope, options.timeout or RELAY_TIMEOUT),
  }
  if not allocation then return nil, message, code end
  return scope:take(setmetatable({
    allocation = allocation, scope = scope, ip = allocation.ip, port = allocation.port, server = allocation.server,
  }, relay))
end

return methods
