-- ports: a loopback port for a server of a test. It lies below those that the kernel gives to sockets without one: such
-- a socket of a spec beside this one could take it before the server does.
local luv = require "luv"

local M = {}

local FIRST, LAST = 20000, 29999
local HOST = "127.0.0.1"

local last -- the port given last

local function takes_tcp(port)
  local socket = luv.new_tcp()
  local free = socket:bind(HOST, port) and socket:listen(1, function() end)
  socket:close()
  return free
end

local function takes_udp(port)
  local socket = luv.new_udp()
  local free = socket:bind(HOST, port)
  socket:close()
  return free
end

--- One that nothing uses, neither by TCP nor by UDP; not one that was given before.
---@return integer port
function M.free()
  local span = LAST - FIRST + 1
  local start = last or FIRST + (luv.os_getpid() * 7919 + luv.hrtime() // 1000 | 0) % span -- luv gives floats
  for step = 1, span do
    local port = FIRST + (start - FIRST + step) % span
    local free = takes_tcp(port) and takes_udp(port)
    luv.run "nowait" -- the handles end
    if free then
      last = port
      return port
    end
  end
  error "no loopback port is free"
end

return M
