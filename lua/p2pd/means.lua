-- means: how a node does what strategies ask for (p2pd.Means in lua/p2pd/context.lua): their one way to the world.
local core = require "p2pd.core"
local pipes = require "p2pd.pipe"

local M = {}

-- A burst of SYNs for the peer, within its bounds.
local function open_puncher(self, options)
  local lease, message, code = self.strangers:burst(options.remote_ip, options.syns)
  if not lease then return nil, message, code end
  local puncher
  puncher, message, code = core.punch.open {
    remote_ip = options.remote_ip, local_ip = options.local_ip, limits = { syns = lease.syns },
  }
  if not puncher then
    lease:close(0)
    return nil, message, code
  end
  return {
    listen = function(_, ...) return puncher:listen(...) end,
    fire = function(_, ...) return puncher:fire(...) end,
    wait = function(_, ...) return puncher:wait(...) end,
    seen = function() return puncher:seen() end,
    close = function(_, proven)
      lease:close(puncher:seen().sent, proven)
      puncher:close()
    end,
  }
end

local function open_relay(self, options)
  if #self.turn == 0 then
    return nil, "ENOTSUP: no relay is configured; name a TURN server in the settings (turn = {{ host = …, user = …, "
      .. "password = … }})", "ENOTSUP"
  end
  options.servers = self.turn
  return require("p2pd.turn").race(options)
end

--- What strategies can do for one attempt with a peer.
---@param self table node
---@param peer table parsed address
---@param role "connect"|"respond"
---@return p2pd.Means
function M.new(self, peer, role)
  local own_means = {}
  local tls_role = role == "connect" and "client" or "server"
  function own_means.dial(options)
    local function dial()
      return pipes.dial {
        identity = self.identity, expect = peer.node_id, role = options.role, token = options.token,
        ip = options.ip, port = options.port, local_ip = options.local_ip, timeout = options.timeout,
        relayed = options.relayed,
      }
    end
    if options.role == "server" then
      -- A relay's address is that of many: what one peer asks for in vain is not to count against the others.
      local whose = options.relayed and ("%s %s"):format(peer.node_id, options.ip) or options.ip
      return self.strangers:dial(whose, dial)
    end
    return dial()
  end
  function own_means.adopt(options)
    local pipe, message, code = pipes.adopt {
      identity = self.identity, expect = peer.node_id, role = tls_role, socket = options.socket,
      timeout = options.timeout, relayed = options.keep ~= nil,
    }
    if pipe and options.keep then pipes.keep(pipe, options.keep) end
    return pipe, message, code
  end
  function own_means.expect(token)
    return self.listener:expect(token, peer.node_id)
  end
  function own_means.send(fields)
    fields.from = self:address()
    return self.signaling:send(peer, fields)
  end
  function own_means.request(fields, timeout)
    fields.from = self:address()
    return self.signaling:request(peer, fields, timeout)
  end
  function own_means.reply(message, fields)
    fields.from = self:address()
    return self.signaling:reply(peer, message, fields)
  end
  function own_means.converse(name) return self.signaling:converse(peer.node_id, name) end
  function own_means.clock() return (self.signal:time()) end
  function own_means.prefixes() return self.network.prefixes end
  function own_means.loopback_only() return self.network.loopback_only end
  function own_means.facts(...) return self.network:facts(...) end
  function own_means.hold(...) return self.network:hold(...) end
  function own_means.sample(...) return self.network:sample(...) end
  function own_means.puncher(options) return open_puncher(self, options) end
  function own_means.relay(options) return open_relay(self, options) end
  return own_means
end

return M
