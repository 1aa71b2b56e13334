-- A broker that behaves badly, as a process of its own: lua5.4 hostile_broker.lua MODE [messages a second]
-- MODE: silent (accepts, says nothing), drop (ends each connection after 100 ms), flood (junk to whoever subscribes),
-- garbage (answers with what is no MQTT). Prints its port, and ends with its standard input.
local uv = require "luv"

local mode, rate = arg[1], tonumber(arg[2] or 10000)
local TICK_MS = 10
local POINT = "\x03\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0" ..
  "\xf4\xa1\x39\x45\xd8\x98\xc2\x96" -- of P-256, so that junk costs whoever opens it as much as it can

local function publish(topic, payload)
  local body = string.pack(">s2", topic) .. payload
  local length, head = #body, { "\x30" }
  repeat
    head[#head + 1] = string.char((length & 0x7f) | (length > 0x7f and 0x80 or 0))
    length = length >> 7
  until length == 0
  return table.concat(head) .. body
end

local function flood(client, topic)
  local junk = publish(topic, "\1" .. POINT .. string.rep("junk", 60)):rep(math.ceil(rate * TICK_MS / 1000))
  local timer = uv.new_timer()
  timer:start(TICK_MS, TICK_MS, function()
    if client:is_closing() then
      if not timer:is_closing() then timer:close() end
    elseif client:get_write_queue_size() < 4 << 20 then
      client:write(junk)
    end
  end)
end

-- CONNECT and SUBSCRIBE in one segment, or each by itself; other packets do not matter.
local function converse(client, bytes)
  while #bytes >= 2 do
    local kind, length = bytes:byte(1) >> 4, bytes:byte(2)
    local body = bytes:sub(3, 2 + length)
    bytes = bytes:sub(3 + length)
    if mode == "garbage" then
      client:write("SSH-2.0-not_a_broker\r\n")
    elseif kind == 1 then
      client:write("\x20\2\0\0")
    elseif kind == 8 then
      client:write("\x90\3" .. body:sub(1, 2) .. "\0")
      if mode == "flood" then flood(client, string.unpack(">s2", body, 3)) end
    elseif kind == 12 then
      client:write("\xd0\0")
    end
  end
end

local server = uv.new_tcp()
server:bind("127.0.0.1", 0)
server:listen(64, function()
  local client = uv.new_tcp()
  server:accept(client)
  local function close()
    if not client:is_closing() then client:close() end
  end
  if mode == "drop" then
    local timer = uv.new_timer()
    timer:start(100, 0, function()
      timer:close()
      close()
    end)
  end
  client:read_start(function(failure, bytes)
    if failure or not bytes then close() elseif mode ~= "silent" then converse(client, bytes) end
  end)
end)
print(server:getsockname().port)
io.stdout:flush()

local input = uv.new_pipe()
input:open(0)
input:read_start(function(_, bytes)
  if not bytes then os.exit(0) end
end)
uv.run()
