-- A gateway that misbehaves: lua5.4 bad_igd.lua OWN_IP [natpmp=WAY] [upnp=WAY] [igd=WAY]; nothing of p2pd-lua is in it.
--
--   natpmp  short long operation version stranger garbage flood refuse down full late elsewhere port private
--   upnp    (the search and the description) garbage slow huge endless nothing deep long named elsewhere abroad closed
--   igd     (what its service answers) garbage slow huge permanent equal liar private huge_ip busy refuse
--
-- Without a way, a protocol is not spoken, but `igd` implies that the description is a good one. Prints "ready", and
-- for each mapping that is made or removed a line: "add PORT LEASE NAME", "remove PORT". Ends with its input.
local luv = require "luv"

local OTHER = "192.168.1.99" -- nobody has it
local own, ways = arg[1], {}
for place = 2, #arg do
  local protocol, way = arg[place]:match "^(%w+)=(.*)$"
  ways[protocol] = way
end

local function say(...)
  print(...)
  io.stdout:flush()
end

local function after(seconds, f)
  luv.new_timer():start(math.floor(seconds * 1000), 0, f)
end

-- NAT-PMP (RFC 6886, 3.2 and 3.3) ---------------------------------------------------------------------------------

local natpmp = luv.new_udp()

local function answer_of(request, result)
  local operation = request:byte(2)
  if operation == 0 then return string.pack(">BBI2I4", 0, 128, result or 0, 1) .. "\30\2\1\2" end -- 30.2.1.2
  return string.pack(">BBI2I4", 0, 128 + operation, result or 0, 1) .. request:sub(5, 12)
end

local function reply(from, text, socket)
  (socket or natpmp):send(text, from.ip, from.port, function() end)
end

local natpmp_ways = {
  short = function(request, from) reply(from, answer_of(request):sub(1, 3)) end,
  cut = function(request, from) reply(from, answer_of(request):sub(1, -2)) end,
  long = function(request, from) reply(from, answer_of(request) .. ("x"):rep(1200)) end,
  operation = function(request, from) reply(from, "\0\x8f" .. answer_of(request):sub(3)) end,
  version = function(_, from) reply(from, "\2\x80\0\1\0\0\0\1") end, -- PCP alone
  garbage = function(_, from) reply(from, ("\xff"):rep(16)) end,
  refuse = function(request, from) reply(from, answer_of(request, request:byte(2) == 0 and 0 or 2)) end,
  down = function(request, from) reply(from, answer_of(request, 3)) end,
  full = function(request, from) reply(from, answer_of(request, request:byte(2) == 0 and 0 or 4)) end,
  late = function(request, from) after(6, function() reply(from, answer_of(request)) end) end,
  private = function(request, from)
    local answer = answer_of(request)
    reply(from, request:byte(2) == 0 and answer:sub(1, 8) .. "\10\0\0\7" or answer)
  end,
  port = function(request, from) -- of a mapping that was not asked for
    local answer = answer_of(request)
    reply(from, request:byte(2) == 0 and answer or answer:sub(1, 8) .. "\1\1" .. answer:sub(11))
  end,
  elsewhere = function(request, from)
    local socket = luv.new_udp()
    socket:bind(own, 0)
    reply(from, answer_of(request), socket)
  end,
}

function natpmp_ways.flood(_, from)
  local turns = luv.new_idle()
  local left = 20000
  turns:start(function()
    for _ = 1, 100 do reply(from, "garbage") end
    left = left - 100
    if left <= 0 then turns:stop() end
  end)
end

if ways.natpmp then
  assert(natpmp:bind(own, 5351))
  natpmp:recv_start(function(_, request, from)
    if request and #request >= 2 then natpmp_ways[ways.natpmp](request, from) end
  end)
end

-- UPnP: the search ------------------------------------------------------------------------------------------------

local HTTP_PORT = 5000

local function search_answer()
  local host = (ways.upnp == "elsewhere" and OTHER or own) .. ":" .. HTTP_PORT
  if ways.upnp == "named" then host = "router.example:" .. HTTP_PORT end
  if ways.upnp == "closed" then host = own .. ":5001" end
  return table.concat({
    "HTTP/1.1 200 OK", "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1", "USN: uuid:1::x",
    "LOCATION: http://" .. host .. "/desc.xml", "", "",
  }, "\r\n")
end

if ways.upnp or ways.igd then
  local search = luv.new_udp()
  assert(search:bind("0.0.0.0", 1900))
  assert(search:set_membership("239.255.255.250", own, "join"))
  search:recv_start(function(_, data, from)
    if data and data:find "^M%-SEARCH" then
      search:send(ways.upnp == "noise" and ("\0"):rep(1400) or search_answer(), from.ip, from.port, function() end)
    end
  end)
end

-- UPnP: HTTP ------------------------------------------------------------------------------------------------------

local WAN = "urn:schemas-upnp-org:service:WANIPConnection:1"

local function description(control, inside)
  return ([[<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><friendlyName>bad %s</friendlyName>%s
<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1</serviceType>
<controlURL>/cif</controlURL><SCPDURL>/cif.xml</SCPDURL></service>
<service><serviceType>%s</serviceType><controlURL>%s</controlURL><SCPDURL>/wan.xml</SCPDURL></service>
</serviceList></device></root>]]):format(ways.upnp or ways.igd, inside or "", WAN, control or "/wan")
end

local function http(body, status)
  return ("HTTP/1.1 %s\r\nContent-Type: text/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s")
    :format(status or "200 OK", #body, body)
end

local function finish(client, text)
  client:write(text, function() if not client:is_closing() then client:close() end end)
end

-- One byte after another.
local function drip(client, text)
  local place, timer = 0, luv.new_timer()
  timer:start(0, 300, function()
    place = place + 1
    if client:is_closing() or place > #text then return timer:close() end
    client:write(text:sub(place, place))
  end)
end

-- The same piece for ever, or so often.
local function pour(client, piece, times)
  local function next_one()
    if client:is_closing() then return end
    times = times and times - 1
    client:write(piece, function(failure)
      if failure or times == 0 then
        if not client:is_closing() then client:close() end
      else
        next_one()
      end
    end)
  end
  next_one()
end

local MEGABYTE = ("<deviceType>x</deviceType>\n"):rep((1 << 20) // 27)

local function pour_huge(client)
  client:write("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n<?xml version=\"1.0\"?><root>")
  pour(client, MEGABYTE, 10)
end

local description_ways = {
  garbage = function(client) finish(client, http(("\0\xff<<<<&&&\"'>"):rep(500))) end,
  slow = function(client) drip(client, http(description())) end,
  huge = pour_huge,
  endless = function(client)
    client:write "HTTP/1.1 200 OK\r\n\r\n"
    pour(client, MEGABYTE)
  end,
  headers = function(client)
    client:write "HTTP/1.1 200 OK\r\n"
    pour(client, ("X-Header: x\r\n"):rep(10000))
  end,
  nothing = function() end, -- no byte, ever
  deep = function(client) finish(client, http(description(nil, ("<a>"):rep(60000)))) end,
  long = function(client) finish(client, http(description(("/x"):rep(5000)))) end,
  abroad = function(client) finish(client, http(description("http://" .. OTHER .. ":5000/wan"))) end,
  missing = function(client) finish(client, http("no", "404 Not Found")) end,
}

local function soap(action, fields)
  local text = {}
  for name, value in pairs(fields or {}) do text[#text + 1] = ("<%s>%s</%s>"):format(name, value, name) end
  return http(([[<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
<u:%sResponse xmlns:u="%s">%s</u:%sResponse></s:Body></s:Envelope>]]):format(action, WAN, table.concat(text), action))
end

local function fault(number)
  return http(([[<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>
<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode></UPnPError></detail></s:Fault>
</s:Body></s:Envelope>]]):format(number), "500 Internal Server Error")
end

local mapped = {}

local external_ips = { private = "10.0.0.7", huge_ip = ("9"):rep(5000) }

local actions = {
  GetStatusInfo = function() return { NewConnectionStatus = "Connected", NewUptime = 1 } end,
  GetExternalIPAddress = function() return { NewExternalIPAddress = external_ips[ways.igd] or "30.2.1.2" } end,
  GetGenericPortMappingEntry = function() return nil, 713 end,
}

function actions.AddPortMapping(get)
  local port, lease = get "NewExternalPort", get "NewLeaseDuration"
  if ways.igd == "permanent" and lease ~= "0" then return nil, 725 end
  if ways.igd == "equal" and port ~= get "NewInternalPort" then return nil, 724 end
  if ways.igd == "busy" then return nil, 718 end
  if ways.igd == "refuse" then return nil, 606 end
  mapped[port] = { get "NewInternalClient", get "NewInternalPort", get "NewPortMappingDescription", lease }
  say("add", port, lease, mapped[port][3])
  return {}
end

function actions.DeletePortMapping(get)
  if not mapped[get "NewExternalPort"] then return nil, 714 end
  mapped[get "NewExternalPort"] = nil
  say("remove", get "NewExternalPort")
  return {}
end

function actions.GetSpecificPortMappingEntry(get)
  local entry = mapped[get "NewExternalPort"]
  if not entry then return nil, 714 end
  return {
    NewInternalClient = ways.igd == "liar" and OTHER or entry[1], NewInternalPort = entry[2], NewEnabled = 1,
    NewPortMappingDescription = entry[3], NewLeaseDuration = entry[4],
  }
end

local service_ways = {
  garbage = function(client) finish(client, http(("\0\xff<<<<&&&\"'>"):rep(500))) end,
  slow = function(client) drip(client, soap("GetStatusInfo", actions.GetStatusInfo())) end,
  huge = pour_huge,
}

local function serve(client, request)
  if request:find "^GET" then
    local way = description_ways[ways.upnp]
    return way and way(client) or not way and finish(client, http(description()))
  end
  if service_ways[ways.igd] then return service_ways[ways.igd](client) end
  local action = request:match '#(%w+)"'
  local function get(name) return request:match("<" .. name .. ">([^<]*)<") end
  local fields, number = nil, 401
  if actions[action] then fields, number = actions[action](get) end
  finish(client, fields and soap(action, fields) or fault(number))
end

if ways.upnp or ways.igd then
  local server = luv.new_tcp()
  assert(server:bind(own, HTTP_PORT))
  assert(server:listen(16, function()
    local client, request = luv.new_tcp(), ""
    server:accept(client)
    client:read_start(function(_, data)
      if not data then
        if not client:is_closing() then client:close() end
        return
      end
      request = request .. data
      local head, body = request:match "^(.-\r\n)\r\n(.*)$"
      if head and #body >= tonumber(head:match "[Cc]ontent%-[Ll]ength: *(%d+)" or 0) then
        serve(client, request)
        request = ""
      end
    end)
  end))
end

local input = luv.new_pipe()
input:open(0)
input:read_start(function(_, data)
  if not data then os.exit(0) end
end)
local broken = luv.new_signal()
broken:start("sigpipe", function() end)
say "ready"
luv.run()
