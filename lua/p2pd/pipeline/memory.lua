-- memory: what became of the ways to a peer, for each pair of networks, so that the next attempt knows (p2pd.pipeline's
-- learn). It lies in ways.json (p2pd.cache_file).
local cjson = require "cjson"
local cache_file = require "p2pd.cache_file"

local M = {}

local FILE = "ways.json"
local MOST = 64               -- pairs of networks
local MOST_WAYS = 12          -- of a pair
local MOST_SEEN = 8           -- outcomes of a way
local MAX_BYTES = 128 * 1024
local MAX_TEXT = 512          -- bytes of a name
local MAX_MS, MAX_COUNT = 3600 * 1000, 2 ^ 31
local KEEP = 30 * 24 * 3600   -- seconds

local json = cjson.new()
json.decode_max_depth(6)

-- Whatever the file holds, only what could have been written here counts ----------------------------------------------

local function whole(value, least, most)
  value = math.tointeger(value)
  return value and value >= least and value <= most and value or nil
end

local function text(value)
  return type(value) == "string" and #value <= MAX_TEXT and not value:find "%c" and value or nil
end

-- Outcomes are pairs: in which attempt, and after how many milliseconds: below zero when it did not connect.
local function sound_seen(list)
  if type(list) ~= "table" or #list > MOST_SEEN then return nil end
  local seen = {}
  for i, each in ipairs(list) do
    if type(each) ~= "table" then return nil end
    local attempt, ms = whole(each[1], 1, MAX_COUNT), whole(each[2], -MAX_MS, MAX_MS)
    if not attempt or not ms then return nil end
    seen[i] = { attempt, ms }
  end
  return seen
end

local function sound_way(way)
  if type(way) ~= "table" then return nil end
  local own = {
    name = text(way.name), relayed = way.relayed == true or nil, tries = whole(way.tries, 0, MAX_COUNT),
    connected = whole(way.connected, 0, MAX_COUNT), failed = whole(way.failed, 0, MAX_COUNT),
    seen = sound_seen(way.seen),
  }
  return own.name and own.tries and own.connected and own.failed and own.seen and own or nil
end

local function sound(entry)
  if type(entry) ~= "table" or type(entry.ways) ~= "table" or #entry.ways > MOST_WAYS then return nil end
  local own = {
    own = text(entry.own), node = text(entry.node), peer = text(entry.peer), at = whole(entry.at, 0, 2 ^ 53),
    attempts = whole(entry.attempts, 1, MAX_COUNT), ways = {},
  }
  if not (own.own and own.node and own.peer and own.at and own.attempts) then return nil end
  if math.abs(os.time() - own.at) >= KEEP then return nil end
  for i, way in ipairs(entry.ways) do
    own.ways[i] = sound_way(way)
    if not own.ways[i] then return nil end
  end
  return own
end

-- Reading and writing -------------------------------------------------------------------------------------------------

local latest = {} -- what was read last, and of which file

-- Entries as they lie in the file: those that are used are looked at then.
local function read_all()
  local read, mark = cache_file.read(FILE, MAX_BYTES, latest.mark)
  if mark and mark == latest.mark then return latest.list end
  local ok, list = pcall(json.decode, read or "")
  local all = {}
  for _, entry in ipairs(ok and type(list) == "table" and list or {}) do
    if type(entry) == "table" and #all < MOST then all[#all + 1] = entry end
  end
  latest = { mark = mark, list = all }
  return all
end

--- All that is known: a list, the latest first.
---@return p2pd.pipeline.Pair[]
function M.all()
  local all = {}
  for _, entry in ipairs(read_all()) do all[#all + 1] = sound(entry) end
  return all
end

local function same(a, b)
  return a.own == b.own and a.node == b.node and a.peer == b.peer
end

--- What is known of a pair of networks: of `own`, `node` (the peer's node ID) and `peer` (its network).
---@param pair {own: string, node: string, peer: string}
---@return p2pd.pipeline.Pair?
function M.get(pair)
  for _, entry in ipairs(read_all()) do
    if same(entry, pair) then return sound(entry) end
  end
end

local function write(all)
  local bytes = json.encode(all)
  while #bytes > MAX_BYTES do
    table.remove(all)
    bytes = json.encode(all)
  end
  cache_file.write(FILE, bytes)
end

--- Changes what is known of a pair: `change` gets it, as new when nothing is known. Two processes that write at once:
--- the last one counts.
---@param pair {own: string, node: string, peer: string}
---@param change fun(entry: p2pd.pipeline.Pair)
function M.change(pair, change)
  local all, entry = {}, nil
  for _, each in ipairs(read_all()) do
    if same(each, pair) then entry = sound(each) else all[#all + 1] = each end
  end
  entry = entry or { own = pair.own, node = pair.node, peer = pair.peer, attempts = 0, ways = {} }
  change(entry)
  entry.at = os.time()
  for _, way in ipairs(entry.ways) do
    while #way.seen > MOST_SEEN do table.remove(way.seen, 1) end
  end
  while #entry.ways > MOST_WAYS do table.remove(entry.ways) end
  table.insert(all, 1, entry)
  all[MOST + 1] = nil
  write(all)
end

return M
