-- Plain sockets, to see from outside what a router does: lua5.4 plain.lua COMMAND ...; nothing of p2pd-lua is in it.
--
--   reflect PORT                   TCP and UDP: tells whoever comes by which address and port; until its input ends
--   ask tcp|udp IP PORT            what a reflector says
--   dial LOCAL IP PORT SECONDS [AT]  connects from LOCAL, a port or address:port: prints "open", or what was wrong;
--                                  with AT when that is the time by luv.hrtime(), which all processes have in common
--   series FIRST STEP COUNT IP PORT  connects from these ports, one after another: prints each, and what the reflector
--                                  saw; all stay open until the last is
--   hold LOCAL IP PORT             connects from LOCAL to a reflector and prints what that saw; then listens there, and
--                                  prints from where others came; until its input ends
--
-- What a reflector does not answer ends the program after some seconds, with what it has printed by then.
local luv = require "luv"

local PATIENCE_S = 5

local function say(...)
  print(...)
  io.stdout:flush()
end

local function after(seconds, f)
  luv.new_timer():start(math.floor(seconds * 1000), 0, f)
end

local function finish() os.exit(0) end

local function bound_to(place)
  local ip, port = tostring(place):match "^(.*):(%d+)$"
  local socket = luv.new_tcp()
  assert(socket:bind(ip or "0.0.0.0", tonumber(port or place)))
  return socket
end

local function until_input_ends()
  local input = luv.new_pipe()
  input:open(0)
  input:read_start(function(_, data)
    if not data then finish() end
  end)
end

local commands = {}

function commands.reflect(port)
  local server, datagrams = luv.new_tcp(), luv.new_udp()
  assert(server:bind("0.0.0.0", port))
  assert(datagrams:bind("0.0.0.0", port))
  assert(server:listen(128, function()
    local client = luv.new_tcp()
    server:accept(client)
    local peer = client:getpeername()
    if peer then client:write(("%s %d\n"):format(peer.ip, peer.port)) end
    client:read_start(function(_, data)
      if not data and not client:is_closing() then client:close() end
    end)
  end))
  datagrams:recv_start(function(_, data, from)
    if data then datagrams:send(("%s %d\n"):format(from.ip, from.port), from.ip, from.port, function() end) end
  end)
  until_input_ends()
  say "ready"
end

-- Connects, and hands on what the reflector saw.
local function seen(socket, ip, port, f)
  socket:connect(ip, port, function(failure)
    if failure then
      say(failure)
      finish()
    end
    socket:read_start(function(_, data)
      if data then f((data:gsub("\n", ""))) end
    end)
  end)
end

function commands.ask(transport, ip, port)
  after(PATIENCE_S, finish)
  local function answer(text)
    say(text)
    finish()
  end
  if transport == "tcp" then return seen(luv.new_tcp(), ip, port, answer) end
  local socket = luv.new_udp()
  socket:recv_start(function(_, data)
    if data then answer((data:gsub("\n", ""))) end
  end)
  socket:send("?", ip, port, function() end)
end

function commands.dial(from, ip, port, seconds, at)
  local socket = bound_to(from)
  while at and luv.hrtime() < at do luv.sleep(1) end
  socket:connect(ip, port, function(failure)
    say(failure or "open")
    finish()
  end)
  after(seconds, function()
    say "ETIMEDOUT"
    finish()
  end)
end

function commands.series(first, step, count, ip, port)
  after(PATIENCE_S, finish)
  local function connect(number)
    if number == count then finish() end
    local from = first + step * number
    seen(bound_to(from), ip, port, function(text)
      say(from, text)
      connect(number + 1)
    end)
  end
  connect(0)
end

function commands.hold(from, ip, port)
  until_input_ends()
  seen(bound_to(from), ip, port, function(text)
    local listener = bound_to(from)
    listener:listen(8, function()
      local client = luv.new_tcp()
      listener:accept(client)
      local peer = client:getpeername()
      say(("from %s %d"):format(peer.ip, peer.port))
    end)
    say(text)
  end)
end

local arguments = {}
for place = 2, #arg do arguments[#arguments + 1] = tonumber(arg[place]) or arg[place] end
commands[arg[1]](table.unpack(arguments))
luv.run()
