-- ssdp: the search for UPnP gateways on the own network (UPnP Device Architecture 2.0, 1.3). Only datagrams, so it
-- needs no process of its own. An answer is worth no more than an address to ask, which has to be the sender's own.
local luv = require "luv"
local core = require "p2pd.core"
local location = require "p2pd.portmap.location"
local task = require "p2pd.task"

local M = {}

local PORT = 1900
local GROUPS = { ["4"] = "239.255.255.250", ["6"] = "ff02::c" }
local TTL = 2               -- UPnP Device Architecture 2.0, 1.3.2
local AGAIN = { 0, 0.25, 0.75 } -- seconds at which it is asked: datagrams get lost
local ANSWER_MAX = 2048     -- bytes
local FOUND_MAX = 4         -- locations

-- What is asked for; a gateway of version 2 answers to version 1 too.
local TARGETS = {
  "urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:service:WANIPConnection:1",
}

local near = { private = true, shared = true, ["link-local"] = true }

local function request(group, target)
  return table.concat({
    "M-SEARCH * HTTP/1.1", ("HOST: %s:%d"):format(group:find ":" and "[" .. group .. "]" or group, PORT),
    'MAN: "ssdp:discover"', "MX: 1", "ST: " .. target, "", "",
  }, "\r\n")
end

-- The location in an answer: of the router itself, or of a machine that answered for itself alone.
local function accept(self, data, from)
  if #data > ANSWER_MAX or not data:find "^HTTP/1%.%d 200" then return nil end
  local url = data:match "\r?\n[Ll][Oo][Cc][Aa][Tt][Ii][Oo][Nn]:[ \t]*(%g+)"
  local host = location.host(url)
  local ip = host and core.address.ip(host)
  from = core.address.ip((from:gsub("%%.*", "")))
  if not ip or not from then return nil end
  local gateway = self.gateway and core.address.ip((self.gateway:gsub("%%.*", "")))
  local answered_itself = ip.text == from.text
  local is_gateway = gateway and (ip.text == gateway.text or self.family == "6" and from.text == gateway.text)
  if is_gateway and (answered_itself or self.family == "6") then return url, true end
  if answered_itself and near[ip.kind] then return url, false end
end

local function send(self)
  if self.socket:is_closing() then return end
  for _, target in ipairs(TARGETS) do
    local text = request(GROUPS[self.family], target)
    self.socket:send(text, GROUPS[self.family], PORT, function() end)
    if self.gateway then self.socket:send(text, self.gateway, PORT, function() end) end
  end
end

local function receive(self)
  self.socket:recv_start(function(_, data, from)
    local url, is_gateway
    if data and from and #self.found < FOUND_MAX then url, is_gateway = accept(self, data, from.ip) end
    if not url or self.known[url] then return end
    self.known[url] = true
    self.found[#self.found + 1] = { location = url, is_gateway = is_gateway }
    self.changed:signal()
  end)
end

-- The name of the interface that has the address.
local function interface_of(address)
  for name, entries in pairs(luv.interface_addresses()) do
    for _, entry in ipairs(entries) do
      if entry.ip == address then return name end
    end
  end
  return ""
end

local search = {}
search.__index = search

function search.__close(self)
  self.socket:close()
  for _, timer in ipairs(self.timers) do timer:close() end
end

--- The next answer: its location, and whether the router itself gave it.
---@return table? found nil when the deadline has passed
function search:next(deadline)
  while self.taken >= #self.found do
    local left = deadline - task.now()
    if left <= 0 or not self.changed:wait(left) then return nil end
  end
  self.taken = self.taken + 1
  return self.found[self.taken]
end

--- Begins a search from this address: `local search <close> = ssdp.search("192.168.1.5", "192.168.1.1")`.
---@return table? search, string? message, string? code
function M.search(internal_ip, gateway)
  local self = setmetatable({
    family = internal_ip:find ":" and "6" or "4", gateway = gateway, socket = luv.new_udp(), timers = {},
    found = {}, known = {}, taken = 0, changed = task.condition(),
  }, search)
  local ok, message, code = self.socket:bind(internal_ip, 0)
  if not ok then
    search.__close(self)
    return nil, ("%s: searching from %s: %s"):format(code, internal_ip, message), code
  end
  self.socket:set_multicast_interface(self.family == "4" and internal_ip or "::%" .. interface_of(internal_ip))
  self.socket:set_multicast_ttl(TTL)
  receive(self)
  for place, seconds in ipairs(AGAIN) do
    self.timers[place] = luv.new_timer()
    self.timers[place]:start(math.floor(seconds * 1000), 0, function() send(self) end)
  end
  return self
end

return M
