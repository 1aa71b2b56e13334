-- bad_turn: a TURN server for TCP relays (RFC 8656, RFC 6062) on a loopback port, which does what a test tells it to.
--
--   local server <close> = bad_turn.start {
--     Allocate = function(call) call:fail(486) end,     -- what is not given is done as it should be
--   }
--   server.host, server.port, server.user, server.password
--
-- A function for a method gets the request as a `call`: its method, id, attributes by number, whether it is signed, and
-- the connection that it came by. It answers, or does not. Nothing is relayed: what a peer's connection carries, once
-- it is bound, goes to `bytes(connection, text)`.
local luv = require "luv"

local M = {}

-- SHA-1 (FIPS 180-4, 6.1) and HMAC (RFC 2104) -------------------------------------------------------------------------

local function rotate(x, n)
  return (x << n | x >> (32 - n)) & 0xffffffff
end

local function sha1(text)
  local h0, h1, h2, h3, h4 = 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0
  text = text .. "\x80" .. ("\0"):rep((55 - #text) % 64) .. (">I8"):pack(#text * 8)
  for at = 1, #text, 64 do
    local w = { (">I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4"):unpack(text, at) }
    for i = 17, 80 do w[i] = rotate(w[i - 3] ~ w[i - 8] ~ w[i - 14] ~ w[i - 16], 1) end
    local a, b, c, d, e = h0, h1, h2, h3, h4
    for i = 1, 80 do
      local f, k
      if i <= 20 then f, k = b & c | ~b & d, 0x5a827999
      elseif i <= 40 then f, k = b ~ c ~ d, 0x6ed9eba1
      elseif i <= 60 then f, k = b & c | b & d | c & d, 0x8f1bbcdc
      else f, k = b ~ c ~ d, 0xca62c1d6 end
      a, b, c, d, e = rotate(a, 5) + (f & 0xffffffff) + e + k + w[i] & 0xffffffff, a, rotate(b, 30), c, d
    end
    h0, h1, h2 = h0 + a & 0xffffffff, h1 + b & 0xffffffff, h2 + c & 0xffffffff
    h3, h4 = h3 + d & 0xffffffff, h4 + e & 0xffffffff
  end
  return (">I4I4I4I4I4"):pack(h0, h1, h2, h3, h4)
end

local function hmac(key, text)
  local function mask(with)
    return ((key .. ("\0"):rep(64 - #key)):gsub(".", function(c) return string.char(c:byte() ~ with) end))
  end
  return sha1(mask(0x5c) .. sha1(mask(0x36) .. text))
end

-- Messages ------------------------------------------------------------------------------------------------------------

M.METHODS = {
  Allocate = 3, Refresh = 4, CreatePermission = 8, Connect = 10, ConnectionBind = 11, ConnectionAttempt = 12,
}
local NAMES = {}
for name, number in pairs(M.METHODS) do NAMES[number] = name end

local COOKIE, USER, PASSWORD, REALM = "\x21\x12\xa4\x42", "lab", "lab", "lab"
local KEY = "\x5b\x89\x46\x48\xeb\x07\x58\x47\xfc\x8b\x5b\xe1\x53\xed\x48\x7d" -- MD5 of lab:lab:lab (RFC 8489, 9.2.2)

--- An attribute.
function M.attribute(number, value)
  return (">I2I2"):pack(number, #value) .. value .. ("\0"):rep(-#value % 4)
end

--- The value of an attribute that holds an address; hidden as XOR-… are.
function M.endpoint(ip, port, plain)
  local key, hidden = plain and 0 or 0x2112a442, {}
  for byte in ip:gmatch "%d+" do hidden[#hidden + 1] = string.char(tonumber(byte)) end
  if ip:find ":" then return (">BBI2"):pack(0, 2, port) .. ("\0"):rep(16) end -- no more of IPv6 than its length
  return (">BBI2I4"):pack(0, 1, port ~ key >> 16, (">I4"):unpack(table.concat(hidden)) ~ key)
end

--- A message of this class (0 request, 1 indication, 2 success, 3 error); signed when `key` is given.
function M.message(class, method, id, attributes, key)
  local type = method & 0xf | (method & 0x70) << 1 | (method & 0xf80) << 2 | (class & 1) << 4 | (class & 2) << 7
  local function header(length) return (">I2I2"):pack(type, length) .. COOKIE .. id end
  if not key then return header(#attributes) .. attributes end
  local signature = hmac(key, header(#attributes + 24) .. attributes)
  return header(#attributes + 24) .. attributes .. M.attribute(8, signature)
end

local function parse(text)
  local type, length = (">I2I2"):unpack(text)
  local call = { method = type & 0xf | type >> 1 & 0x70 | type >> 2 & 0xf80, id = text:sub(9, 20), attributes = {} }
  local at = 21
  while at < 20 + length do
    local number, size = (">I2I2"):unpack(text, at)
    call.attributes[number] = call.attributes[number] or text:sub(at + 4, at + 3 + size)
    at = at + 4 + size + -size % 4
  end
  call.name, call.signed = NAMES[call.method], call.attributes[8] ~= nil
  return call
end

-- Calls ---------------------------------------------------------------------------------------------------------------

local call = {}
call.__index = call

--- Answers, signed unless told otherwise.
function call:succeed(attributes, key)
  self.connection:send(M.message(2, self.method, self.id, attributes or "", key == nil and KEY or key))
end

function call:fail(number, attributes)
  local value = (">I2BB"):pack(0, number // 100, number % 100) .. "No"
  self.connection:send(M.message(3, self.method, self.id, M.attribute(9, value) .. (attributes or "")))
end

--- Asks for another nonce, or for a login at all.
function call:challenge(number, nonce)
  self:fail(number or 401, M.attribute(0x14, REALM) .. M.attribute(0x15, nonce or "a nonce"))
end

local honest = {}

function honest.Allocate(self)
  if not self.signed then return self:challenge() end
  local server = self.connection.server
  server.control = self.connection
  self:succeed(M.attribute(0x16, M.endpoint("127.0.0.1", server.port)) .. M.attribute(0x20, M.endpoint("127.0.0.1", 7))
    .. M.attribute(0xd, (">I4"):pack(600)))
end

M.Allocate = honest.Allocate

function honest.CreatePermission(self) self:succeed() end

function honest.Refresh(self) self:succeed(M.attribute(0xd, self.attributes[0xd])) end

function honest.Connect(self) self:succeed(M.attribute(0x2a, "conn")) end

function honest.ConnectionBind(self)
  self.connection.raw = true
  self:succeed()
end

-- The server ----------------------------------------------------------------------------------------------------------

local connection = {}
connection.__index = connection

function connection:send(text)
  if not self.stream:is_closing() then self.stream:write(text) end
end

function connection:close()
  if not self.stream:is_closing() then self.stream:close() end
end

local server = {}
server.__index = server

function server:heard(from, text)
  from.input = from.input .. text
  while not from.raw and #from.input >= 20 do
    local length = (">I2"):unpack(from.input, 3)
    if #from.input < 20 + length then return end
    local one = setmetatable(parse(from.input:sub(1, 20 + length)), call)
    from.input, one.connection = from.input:sub(21 + length), from
    self.calls[#self.calls + 1] = one
    local f = self.manner[one.name] or honest[one.name]
    if f then f(one, honest[one.name]) end
  end
  if from.raw and #from.input > 0 and self.manner.bytes then
    self.manner.bytes(from, from.input)
    from.input = ""
  end
end

--- Tells the one who has allocated that a peer has come.
function server:attempt(id, ip, port)
  self.control:send(M.message(1, M.METHODS.ConnectionAttempt, ("i"):rep(12),
    M.attribute(0x2a, id) .. M.attribute(0x12, M.endpoint(ip or "127.0.0.1", port or 80))))
end

--- How many requests of this method came.
function server:count(name)
  local count = 0
  for _, one in ipairs(self.calls) do count = count + (one.name == name and 1 or 0) end
  return count
end

function server:__close()
  for _, one in ipairs(self.connections) do one:close() end
  self.listener:close()
end

--- Starts it.
---@param manner? table<string, function>
function M.start(manner)
  local self = setmetatable({
    manner = manner or {}, connections = {}, calls = {}, host = "127.0.0.1", user = USER, password = PASSWORD,
  }, server)
  self.listener = luv.new_tcp()
  assert(self.listener:bind("127.0.0.1", 0))
  self.port = self.listener:getsockname().port
  self.listener:listen(128, function()
    local from = setmetatable({ stream = luv.new_tcp(), input = "", server = self }, connection)
    self.listener:accept(from.stream)
    self.connections[#self.connections + 1] = from
    if self.manner.connected then self.manner.connected(from, #self.connections) end
    if from.stream:is_closing() then return end
    from.stream:read_start(function(_, text)
      if text then return self:heard(from, text) end
      from.ended = true
      from:close()
    end)
  end)
  return self
end

return M
