-- netcache: what was learnt of the networks that this machine has been in: the next node there knows it at once
-- (networks.json, p2pd.cache_file).
local cjson = require "cjson"
local cache_file = require "p2pd.cache_file"
local core = require "p2pd.core"

local M = {}

local FILE = "networks.json"
local MOST = 64               -- networks
local MAX_BYTES = 64 * 1024
local KEEP = 30 * 24 * 3600   -- seconds

local json = cjson.new()
json.decode_max_depth(4)

local function read_all()
  local ok, all = pcall(json.decode, cache_file.read(FILE, MAX_BYTES) or "")
  return ok and type(all) == "table" and all or {}
end

local function is_port(value)
  value = math.tointeger(value)
  return value ~= nil and value >= 1 and value <= 65535
end

local function is_server(server)
  return type(server) == "table" and type(server.host) == "string" and is_port(server.port)
    and type(server.ip) == "string" and core.address.ip(server.ip) ~= nil
end

-- Whatever the file holds, only an entry that could have been written here counts.
local function is_sound(entry)
  if type(entry) ~= "table" or type(entry.at) ~= "number" or type(entry.external) ~= "string" then return false end
  local ip = core.address.ip(entry.external)
  if not ip or ip.kind ~= "global" and ip.kind ~= "shared" then return false end
  for _, server in ipairs(type(entry.servers) == "table" and entry.servers or {}) do
    if not is_server(server) then return false end
  end
  return type(entry.nat) == "string" and type(entry.delta) == "string" and math.tointeger(entry.delta_value) ~= nil
    and is_port(entry.first) and is_port(entry.last) and type(entry.confidence) == "number"
    and type(entry.servers) == "table"
end

--- What is known of a network, by its key. `servers` are the STUN servers that speak over TCP.
---@param key string
---@return {external: string, nat: string, delta: string, delta_value: integer, first: integer, last: integer,
---         confidence: number, servers: {host: string, ip: string, port: integer}[], at: number}? known
function M.get(key)
  local entry = read_all()[key]
  if not is_sound(entry) or os.time() - entry.at >= KEEP then return nil end
  -- JSON has but one kind of number
  for _, field in ipairs { "delta_value", "first", "last" } do entry[field] = math.tointeger(entry[field]) end
  for _, server in ipairs(entry.servers) do server.port = math.tointeger(server.port) end
  return entry
end

local function without_oldest(all)
  local keys = {}
  for key, entry in pairs(all) do
    if is_sound(entry) then keys[#keys + 1] = key else all[key] = nil end
  end
  table.sort(keys, function(a, b) return all[a].at > all[b].at end)
  for place = MOST + 1, #keys do all[keys[place]] = nil end
end

--- Remembers it. Two who write at once: the last one counts.
---@param key string
---@param entry table the fields of `get`, but for `at`
function M.put(key, entry)
  local all = read_all()
  all[key] = {
    external = entry.external, nat = entry.nat, delta = entry.delta, delta_value = entry.delta_value,
    first = entry.first, last = entry.last, confidence = entry.confidence, servers = entry.servers, at = os.time(),
  }
  without_oldest(all)
  cache_file.write(FILE, json.encode(all))
end

return M
