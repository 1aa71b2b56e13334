-- probe: whether a server answers, asked in its own protocol, again and again until it does.
local luv = require "luv"
local task = require "p2pd.task"

local M = {}

local PAUSE = 0.005 -- seconds between two questions

-- The request, and what makes an answer of what comes back.
local protocols = {
  mqtt = { -- MQTT 3.1.1, sections 3.1 and 3.2: CONNECT with no client id and a clean session; CONNACK
    transport = "tcp",
    request = "\x10\x0c\0\4MQTT\4\2\0\x3c\0\0",
    accepts = function(data) return data == "\x20\2\0\0" end,
  },
  stun = { -- RFC 8489, section 5: a Binding request, and its success response
    transport = "udp",
    request = "\0\1\0\0\x21\x12\xa4\x42is it there?",
    accepts = function(data) return data:find("^\1\1..\x21\x12\xa4\x42is it there%?") ~= nil end,
  },
  ntp = { -- RFC 5905, section 7.3: mode 3 asks, mode 4 answers; leap 3 and stratum 0 are clocks that know no time
    transport = "udp",
    request = "\x23" .. ("\0"):rep(47),
    accepts = function(data)
      if #data < 48 then return false end
      local first, stratum = data:byte(1, 2)
      return first & 7 == 4 and first >> 6 ~= 3 and stratum >= 1 and stratum <= 15
    end,
  },
  ["nat-pmp"] = { -- RFC 6886, section 3.2: the public address; op code 128, also where the result is that there is none
    transport = "udp",
    request = "\0\0",
    accepts = function(data) return #data >= 8 and data:sub(1, 2) == "\0\x80" end,
  },
}

local function closing(handle)
  return setmetatable({}, { __close = function() handle:close() end })
end

local ask = {}

function ask.udp(protocol, ip, port, deadline)
  local socket, changed, answered = luv.new_udp(), task.condition(), false
  local _ <close> = closing(socket)
  socket:recv_start(function(_, data)
    answered = answered or data ~= nil and protocol.accepts(data)
    changed:signal()
  end)
  while not answered and task.now() < deadline do
    socket:send(protocol.request, ip, port, function() end)
    changed:wait(PAUSE)
  end
  return answered
end

-- One connection: whether it brought the answer.
local function ask_once(protocol, ip, port, deadline)
  local socket, changed, received, ended = luv.new_tcp(), task.condition(), "", false
  local _ <close> = closing(socket)
  socket:connect(ip, port, function(failure)
    ended = failure ~= nil
    changed:signal()
    if ended then return end
    socket:write(protocol.request)
    socket:read_start(function(_, data)
      received, ended = received .. (data or ""), data == nil
      changed:signal()
    end)
  end)
  while not ended and not protocol.accepts(received) and task.now() < deadline do
    changed:wait(math.max(0, deadline - task.now()))
  end
  return protocol.accepts(received)
end

function ask.tcp(protocol, ip, port, deadline)
  while not ask_once(protocol, ip, port, deadline) do
    if task.now() >= deadline then return false end
    task.sleep(PAUSE)
  end
  return true
end

--- Waits until a server answers. A task's.
---@param protocol "mqtt"|"stun"|"ntp"|"nat-pmp"
---@param ip string
---@param port integer
---@param timeout number seconds
---@return true? answers, string? message, string? code
function M.ask(protocol, ip, port, timeout)
  local how = protocols[protocol] or error(("unknown protocol '%s'"):format(protocol), 2)
  if ask[how.transport](how, ip, port, task.now() + timeout) then return true end
  return nil, ("ETIMEDOUT: nothing speaks %s at %s port %d"):format(protocol, ip, port), "ETIMEDOUT"
end

return M
