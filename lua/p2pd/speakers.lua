-- speakers: which of the settings' STUN servers speak, and whether over TCP, by their addresses of each family.
local core = require "p2pd.core"

local M = {}

local NAME_TIMEOUT = 2 -- seconds, for the name of a server
local MOST = 4         -- that are ever asked at one time
local ENOUGH = 2       -- that have answered: no others are looked up for a connection

local YES, UNKNOWN, NO = 1, 0, -1 -- whether a server speaks over TCP

local speakers = {}
speakers.__index = speakers

local function key_of(server) return server.ip .. " " .. server.port end

---@param servers { host: string, port: integer }[] the settings'
function M.new(servers)
  return setmetatable({ servers = servers, [4] = {}, [6] = {} }, speakers)
end

--- Notes that one answered: over TCP (true), not over TCP (false), or by UDP (nil).
---@param server { host: string, ip: string, port: integer }
---@param over_tcp? boolean
function speakers:heard(server, over_tcp)
  local list, key = self[core.address.ip(server.ip).family], key_of(server)
  local known = list[key]
  if not known then
    known = { host = server.host, ip = server.ip, port = server.port, tcp = UNKNOWN }
    list[key], list[#list + 1] = known, known
  end
  if over_tcp ~= nil then known.tcp = over_tcp and YES or NO end
end

--- Takes those from another time for speakers over TCP, as far as they are in the settings.
---@param list { host: string, ip: string, port: integer }[]
function speakers:recall(list)
  for _, known in ipairs(list) do
    for _, server in ipairs(self.servers) do
      if server.host == known.host and server.port == known.port then self:heard(known, true) end
    end
  end
end

local function look_up(self, family, count, add)
  for _, server in ipairs(self.servers) do
    if count == 0 then return end
    for _, ip in ipairs(core.dns.resolve(server.host, NAME_TIMEOUT) or {}) do
      if core.address.ip(ip).family == family then
        if add { host = server.host, ip = ip, port = server.port } then count = count - 1 end
        break
      end
    end
  end
end

--- The servers by their addresses of a family, four at most: first those that speak over TCP, then those that have
--- answered by UDP, others of the settings (always, or when few have answered), and last those that refuse TCP.
---@param family integer
---@param always? boolean
---@return { host: string, ip: string, port: integer, tcp: integer }[]
function speakers:addresses(family, always)
  local list, has = {}, {}
  local function add(server)
    local key = key_of(server)
    local is_new = not has[key] and #list < MOST
    if is_new then list[#list + 1], has[key] = server, true end
    return is_new
  end
  local function add_known(tcp)
    for _, server in ipairs(self[family]) do
      if server.tcp == tcp then add(server) end
    end
  end
  add_known(YES)
  add_known(UNKNOWN)
  if always or #list < ENOUGH then
    for _, server in ipairs(self[family]) do has[key_of(server)] = true end
    look_up(self, family, MOST - #list, add)
    has = {}
    for _, server in ipairs(list) do has[key_of(server)] = true end
  end
  add_known(NO)
  return list
end

--- Of these servers those that the observations of a NAT's test over TCP have an answer of.
---@param servers { host: string, ip: string, port: integer }[]
---@param seen p2pd.NatSeen[]
---@return { host: string, ip: string, port: integer }[]
function speakers:note(servers, seen)
  local answered, speaking = {}, {}
  for _, entry in ipairs(seen) do
    if entry.external_ip then answered[entry.server_ip .. " " .. entry.server_port] = true end
  end
  for _, server in ipairs(servers) do
    if answered[key_of(server)] then
      self:heard(server, true)
      speaking[#speaking + 1] = { host = server.host, ip = server.ip, port = server.port }
    end
  end
  return speaking
end

return M
