-- apart: plain sockets in another network namespace. `ip netns exec NAME lua5.4 spec/support/apart.lua` takes a call a
-- line on standard input, as JSON, `["recv", 1, 0.5]`, and answers with its results, `["hello", "30.1.0.1", 7000]`.
-- Sockets are numbers. Nothing of what is tested is used here.
local cjson = require "cjson"
local luv = require "luv"
local lines = dofile "spec/support/lines.lua"

local SOCKET_BUFFER = 1024 * 1024
local CHUNK = ("x"):rep(65536)

local sockets, calls = {}, {}

local function keep(socket)
  sockets[#sockets + 1] = socket
  return #sockets
end

-- Calls are coroutines, so that the loop goes on while they wait.
local waiting -- { thread, condition, deadline in ms }: one call at a time

local function await(condition, seconds)
  if not condition() then
    waiting = { coroutine.running(), condition, luv.now() + seconds * 1000 }
    coroutine.yield()
  end
  return condition()
end

local function look()
  local call = waiting
  if call and (call[2]() or luv.now() >= call[3]) then
    waiting = nil
    assert(coroutine.resume(call[1]))
  end
end

local function name_of(socket)
  local name = socket:getsockname()
  return name.ip, name.port
end

--- udp(ip, port) -> socket
function calls.udp(ip, port)
  local socket = { udp = luv.new_udp(), queue = {} }
  assert(socket.udp:bind(ip, port))
  socket.udp:recv_buffer_size(SOCKET_BUFFER)
  socket.udp:recv_start(function(_, data, from)
    if data then socket.queue[#socket.queue + 1] = { data, from.ip, from.port } end
  end)
  return keep(socket)
end

--- send(socket, data, ip, port): `port` may be a list { first, last }: one datagram to each
function calls.send(number, data, ip, port)
  local first, last = port, port
  if type(port) == "table" then first, last = port[1], port[2] end
  for to = first, last do sockets[number].udp:try_send(data, ip, to // 1 | 0) end
end

--- recv(socket, seconds) -> data, ip, port; or nothing
function calls.recv(number, seconds)
  local queue = sockets[number].queue
  if await(function() return queue[1] end, seconds) then return table.unpack(table.remove(queue, 1)) end
end

--- flood(socket, count, ip, port): datagrams with the numbers 1 to count
function calls.flood(number, count, ip, port)
  for i = 1, count do sockets[number].udp:try_send(("%d"):format(i), ip, port // 1 | 0) end
end

--- count(socket, seconds) -> datagrams that came since the last time; ends when none has come for so long
function calls.count(number, seconds)
  local queue = sockets[number].queue
  local before
  repeat
    before = #queue
    await(function() return #queue > before end, seconds)
  until #queue == before
  sockets[number].queue = {}
  sockets[number].udp:recv_stop()
  sockets[number].udp:recv_start(function(_, data, from)
    local now = sockets[number].queue
    if data then now[#now + 1] = { data, from.ip, from.port } end
  end)
  return before
end

--- listen(ip, port) -> socket
function calls.listen(ip, port)
  local socket = { tcp = luv.new_tcp(), arrived = {} }
  assert(socket.tcp:bind(ip, port))
  assert(socket.tcp:listen(128, function()
    local connection = luv.new_tcp()
    socket.tcp:accept(connection)
    table.insert(socket.arrived, connection)
  end))
  return keep(socket)
end

--- accept(socket, seconds) -> socket, peer's ip, port; or nothing
function calls.accept(number, seconds)
  local arrived = sockets[number].arrived
  if not await(function() return arrived[1] end, seconds) then return end
  local connection = table.remove(arrived, 1)
  local peer = connection:getpeername()
  return keep { tcp = connection }, peer.ip, peer.port
end

--- connect(ip, port, local port or 0, seconds) -> socket, its own ip, port; or nil and the code of the failure
function calls.connect(ip, port, own_port, seconds)
  local tcp, failure = luv.new_tcp(), nil
  if own_port ~= 0 then assert(tcp:bind(ip:find ":" and "::" or "0.0.0.0", own_port)) end
  tcp:connect(ip, port, function(why) failure = why or false end)
  await(function() return failure ~= nil end, seconds)
  if failure == false then return keep { tcp = tcp }, name_of(tcp) end
  tcp:close()
  return nil, failure and failure:match "^%u+" or "ETIMEDOUT"
end

--- write(socket, bytes): so many, and then the end of the stream; does not wait for that
function calls.write(number, bytes)
  local tcp, left = sockets[number].tcp, bytes // 1 | 0
  local function go_on(failure)
    if failure or left <= 0 then
      tcp:shutdown()
    else
      local part = CHUNK:sub(1, left)
      left = left - #part
      tcp:write(part, go_on)
    end
  end
  go_on()
end

--- drain(socket) -> bytes until the end of the stream; or nil and the code of the failure
function calls.drain(number)
  local bytes, ended, failure = 0, false, nil
  sockets[number].tcp:read_start(function(why, data)
    bytes = bytes + (data and #data or 0)
    failure, ended = why, not data
  end)
  await(function() return ended end, 60)
  if failure or not ended then return nil, failure or "ETIMEDOUT" end
  return bytes
end

function calls.close(number)
  local socket = sockets[number];
  (socket.tcp or socket.udp):close()
  sockets[number] = false
end

local function answer(line)
  local call = cjson.decode(line)
  local results = table.pack(pcall(calls[call[1]], table.unpack(call, 2)))
  for i = 1, results.n do
    if results[i] == nil then results[i] = cjson.null end
  end
  io.stdout:write(cjson.encode { table.unpack(results, 1, results.n) }, "\n")
  io.stdout:flush()
end

local input = luv.new_pipe(false)
local take = lines(function(line) assert(coroutine.resume(coroutine.create(answer), line)) end)
input:open(0)
input:read_start(function(_, data)
  if not data then os.exit(0) end
  take(data)
end)
luv.new_check():start(look)      -- after each event,
luv.new_timer():start(1, 1, look) -- and when a time is over
luv.run()
