-- netcache: what was learnt of the networks that this machine has been in: the next node there knows it at once.
-- It lies in ~/.cache/p2pd-lua/networks.json, or below $XDG_CACHE_HOME. What cannot be read counts as nothing.
local cjson = require "cjson"
local luv = require "luv"
local core = require "p2pd.core"

local M = {}

local MOST = 64               -- networks
local MAX_BYTES = 64 * 1024
local KEEP = 30 * 24 * 3600   -- seconds
local PRIVATE, PRIVATE_FILE = 448, 384 -- 0700, 0600

local json = cjson.new()
json.decode_max_depth(4)

local function folder()
  local base = os.getenv "XDG_CACHE_HOME"
  if not base or base:sub(1, 1) ~= "/" then base = (os.getenv "HOME" or "/") .. "/.cache" end
  return base .. "/p2pd-lua", base
end

local function read_all()
  local file = luv.fs_open(folder() .. "/networks.json", "r", 0)
  if not file then return {} end
  local stat = luv.fs_fstat(file)
  local mine = stat and stat.type == "file" and stat.uid == luv.getuid() and stat.size <= MAX_BYTES
  local text = mine and luv.fs_read(file, MAX_BYTES, 0)
  luv.fs_close(file)
  local ok, all = pcall(json.decode, text or "")
  return ok and type(all) == "table" and all or {}
end

-- Whatever the file holds, only an entry that could have been written here counts.
local function is_sound(entry)
  if type(entry) ~= "table" or type(entry.at) ~= "number" or type(entry.external) ~= "string" then return false end
  local ip = core.address.ip(entry.external)
  return ip ~= nil and (ip.kind == "global" or ip.kind == "shared")
    and type(entry.nat) == "string" and type(entry.delta) == "string" and math.tointeger(entry.delta_value) ~= nil
end

--- What is known of a network, by its key.
---@param key string
---@return {external: string, nat: string, delta: string, delta_value: integer, at: number}? known
function M.get(key)
  local entry = read_all()[key]
  if not is_sound(entry) or os.time() - entry.at >= KEEP then return nil end
  entry.delta_value = math.tointeger(entry.delta_value) -- JSON has but one kind of number
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
---@param entry {external: string, nat: string, delta: string, delta_value: integer}
function M.put(key, entry)
  local all = read_all()
  all[key] = {
    external = entry.external, nat = entry.nat, delta = entry.delta, delta_value = entry.delta_value, at = os.time(),
  }
  without_oldest(all)
  local place, base = folder()
  luv.fs_mkdir(base, PRIVATE)
  luv.fs_mkdir(place, PRIVATE)
  local path = ("%s/networks.json.%d"):format(place, luv.os_getpid())
  local file = luv.fs_open(path, "w", PRIVATE_FILE)
  if not file then return end
  local written = luv.fs_write(file, json.encode(all))
  luv.fs_close(file)
  if not written or not luv.fs_rename(path, place .. "/networks.json") then luv.fs_unlink(path) end
end

return M
