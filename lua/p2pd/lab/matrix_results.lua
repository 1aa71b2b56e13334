-- matrix_results: what has come of the pairs, in memory and in a file. The file is replaced as a whole by rename(2), so
-- that it is there as JSON whenever one looks, whatever ends this program.
local cjson = require "cjson"
local luv = require "luv"
local matrix_pairs = require "p2pd.lab.matrix_pairs"

local M = {}

local VERSION = 1
local READABLE = 420            -- 0644
local MAX_BYTES = 1024 ^ 3 | 0
local SOONEST, PRICE = 2, 20    -- seconds between two writings; and how much longer than a writing they are apart

---@class p2pd.lab.MatrixConditions
---@field uninvited string what an uninvited SYN gets: "drop", "reset" or "unreachable"
---@field loss number of each host's link, each direction: 0 to 1
---@field noise number flows of others a second, at each router
---@field delay_ms number of each host's link, each direction
---@field turn boolean whether the settings name the lab's TURN server
---@field timeout number seconds of an attempt
---@field pipeline? string the file of one
---@field strategies? string[] of the pipeline these alone

---@class p2pd.lab.MatrixRun
---@field from string the NAT of the side that connects
---@field to string that of the other
---@field round integer from 1 on, where each pair is tried several times
---@field ok boolean
---@field strategy? string
---@field ms? number that node:connect took
---@field echo_ms? number until a line had come back then
---@field tries? integer how often the strategy that connected was tried
---@field remote? string
---@field message? string
---@field code? string
---@field broken? boolean the lab or a program in it failed: nothing is known of the pair
---@field report? table as report:table() gives it
---@field text? string as report:text() gives it
---@field examined? {from: table?, to: table?} what the nodes took their NATs for
---@field unexamined? boolean an end connected before its NAT was examined
---@field seeds? {from: integer, to: integer} of the routers' chance
---@field timeline? string what the routers did with the hosts' TCP, where no pipe came of it
---@field seconds number that all of it took

local results = {}
results.__index = results

--- None yet.
---@param conditions p2pd.lab.MatrixConditions
function M.new(conditions)
  return setmetatable({
    conditions = conditions, runs = {}, encoded = {}, place = {}, cells = {}, rounds = 0, began = os.time(),
  }, results)
end

-- cjson knows only floats, and makes userdata of null.
local function plain(value)
  if value == cjson.null then return nil end
  if type(value) == "number" then return math.tointeger(value) or value end
  if type(value) ~= "table" then return value end
  for key, inner in pairs(value) do value[key] = plain(inner) end
  return value
end

--- A table from a JSON text; nil when it is none.
---@param text string
---@return table?
function M.decode(text)
  local ok, value = pcall(cjson.decode, text)
  if ok and type(value) == "table" then return plain(value) end
end

local run_fields = {
  strategy = "string", message = "string", code = "string", remote = "string", text = "string", timeline = "string",
  ms = "number", echo_ms = "number", tries = "number", examined = "table", report = "table",
}

-- What is shown of a run has to be of the type that it is said to be: anybody may have written the file.
local function is_run(run)
  if type(run) ~= "table" then return false end
  for field, kind in pairs(run_fields) do
    if run[field] ~= nil and type(run[field]) ~= kind then return false end
  end
  for _, side in pairs(run.examined or {}) do
    if type(side) ~= "table" then return false end
    for _, word in pairs(side) do
      if type(word) ~= "string" and type(word) ~= "number" then return false end
    end
  end
  return type(run.from) == "string" and type(run.to) == "string" and math.type(run.round) == "integer"
    and type(run.ok) == "boolean" and (not run.ok or run.ms ~= nil)
end

local function same(one, other)
  if type(one) ~= "table" or type(other) ~= "table" then return one == other end
  for key, value in pairs(one) do
    if not same(value, other[key]) then return false end
  end
  for key in pairs(other) do
    if one[key] == nil then return false end
  end
  return true
end

local function show(value)
  if value == nil then return "none" end
  return type(value) == "table" and table.concat(value, ",") or tostring(value)
end

-- Which condition is another one, as a sentence.
local function difference(path, there, here)
  local keys = {}
  for _, conditions in ipairs { there, here } do
    for key in pairs(conditions) do keys[key] = true end
  end
  local sorted = {}
  for key in pairs(keys) do sorted[#sorted + 1] = key end
  table.sort(sorted)
  for _, key in ipairs(sorted) do
    if not same(there[key], here[key]) then
      return ("EINVAL: what is in %s was made with other conditions (%s: %s, not %s), so it cannot be gone on with")
        :format(path, key, show(there[key]), show(here[key]))
    end
  end
end

local function read(path)
  local file, message, code = luv.fs_open(path, "r", 0)
  if not file then return nil, message, code end
  local text
  text, message, code = luv.fs_read(file, MAX_BYTES)
  luv.fs_close(file)
  return text, message, code
end

--- What is in a file; with `conditions`, nothing when there is no such file. Fails with EINVAL where it is no file of a
--- matrix, or one of other conditions than these.
---@param path string
---@param conditions? p2pd.lab.MatrixConditions
---@return table? results, string? message, string? code
function M.load(path, conditions)
  local self = M.new(conditions)
  local text, message, code = read(path)
  if not text and code == "ENOENT" and conditions then return self end
  if not text then return nil, ("%s: cannot read %s"):format(message, path), code end
  local found = M.decode(text)
  if not found or found.version ~= VERSION or type(found.conditions) ~= "table"
    or type(found.runs) ~= "table" then
    return nil, ("EINVAL: %s is no file of `lab matrix`"):format(path), "EINVAL"
  end
  self.conditions = conditions or found.conditions
  local other = difference(path, found.conditions, self.conditions)
  if other then return nil, other, "EINVAL" end
  self.began = math.tointeger(found.began) or self.began
  for _, run in ipairs(found.runs) do
    if is_run(run) then self:add(run) end
  end
  return self
end

--- Adds a run, or puts it in place of an earlier one.
---@param run p2pd.lab.MatrixRun
function results:add(run)
  local key = matrix_pairs.key(run)
  local place = self.place[key] or #self.runs + 1
  self.runs[place], self.encoded[place], self.place[key] = run, cjson.encode(run), place
  self.rounds = math.max(self.rounds, run.round)
  self.cells[matrix_pairs.key { from = run.from, to = run.to }] = nil
end

--- What came of a run; nil where it was not made.
---@param run {from: string, to: string, round: integer}
---@return p2pd.lab.MatrixRun?
function results:get(run)
  return self.runs[self.place[matrix_pairs.key(run)]]
end

--- Whether something is known of it.
function results:has(run)
  local made = self:get(run)
  return made ~= nil and not made.broken
end

--- The runs of a pair.
---@return p2pd.lab.MatrixRun[]
function results:of(pair)
  local list = {}
  for round = 1, self.rounds do
    list[#list + 1] = self:get { from = pair.from, to = pair.to, round = round }
  end
  return list
end

--- The middle one of numbers; nil without any.
---@param numbers number[]
---@return number?
function M.median(numbers)
  local sorted = table.move(numbers, 1, #numbers, 1, {})
  table.sort(sorted)
  local count = #sorted
  if count == 0 then return nil end
  return (sorted[(count + 1) // 2] + sorted[count // 2 + 1]) / 2
end

-- The one that is there most often, the first of several.
local function commonest(words)
  local count, best = {}, nil
  for _, word in ipairs(words) do
    count[word] = (count[word] or 0) + 1
    if not best or count[word] > count[best] then best = word end
  end
  return best
end

--- What to show of a pair: nil when it was not tried yet. `state` is the strategy that connected, the most frequent of
--- several, or "failed" where one run at least did.
---@return {state: string, ms: number?, runs: integer, failed: integer}?
function results:cell(pair)
  local key = matrix_pairs.key { from = pair.from, to = pair.to }
  if self.cells[key] then return self.cells[key] end
  local runs, times, strategies, failed = self:of(pair), {}, {}, 0
  if #runs == 0 then return nil end
  for _, run in ipairs(runs) do
    if run.ok then
      times[#times + 1], strategies[#strategies + 1] = run.ms, run.strategy or "?"
    else
      failed = failed + 1
    end
  end
  local state = failed > 0 and "failed" or commonest(strategies)
  self.cells[key] = { state = state, ms = M.median(times), runs = #runs, failed = failed }
  return self.cells[key]
end

--- How many of these runs went how, and how long they took: a list of { strategy, count, median } by count, then how
--- many failed.
---@param runs p2pd.lab.MatrixRun[]
---@return {strategy: string, count: integer, ms: number}[] by, integer failed
function M.count(runs)
  local times, by, failed = {}, {}, 0
  for _, run in ipairs(runs) do
    local strategy = run.ok and (run.strategy or "?")
    if not strategy then
      failed = failed + 1
    else
      if not times[strategy] then
        times[strategy] = {}
        by[#by + 1] = { strategy = strategy }
      end
      table.insert(times[strategy], run.ms)
    end
  end
  for _, each in ipairs(by) do each.count, each.ms = #times[each.strategy], M.median(times[each.strategy]) end
  table.sort(by, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    return a.strategy < b.strategy
  end)
  return by, failed
end

-- The file ------------------------------------------------------------------------------------------------------------

local function write_all(file, text)
  while #text > 0 do
    local written, message, code = luv.fs_write(file, text)
    if not written then return nil, message, code end
    text = text:sub(written + 1)
  end
  return true
end

--- Replaces a file.
---@return boolean? ok, string? message, string? code
function M.write(path, text)
  local new = ("%s.new-%d"):format(path, luv.os_getpid())
  local file, message, code = luv.fs_open(new, "w", READABLE)
  local ok
  if file then
    ok, message, code = write_all(file, text)
    luv.fs_close(file)
    if ok then ok, message, code = luv.fs_rename(new, path) end
    if not ok then luv.fs_unlink(new) end
  end
  if ok then return true end
  return nil, ("%s: cannot write %s"):format(message:gsub(": " .. new:gsub("%p", "%%%0") .. ".*$", ""), path), code
end

--- As JSON.
---@return string
function results:json()
  local fields = {
    version = VERSION, conditions = self.conditions, began = self.began, kinds = matrix_pairs.kinds_in(self.runs),
  }
  return ('%s,"runs":[\n%s\n]}\n'):format(cjson.encode(fields):gsub('"kinds":{}', '"kinds":[]'):sub(1, -2),
    table.concat(self.encoded, ",\n"))
end

--- What writes files now and then: `changed()` when it is time again, `save()` at once; `around(f, leave)` before f and
--- after it, however that ends, with leave() called first. `makers` are functions that give a file's text, by its path.
---@param makers table<string, fun(): string>
function M.keeper(makers)
  local self = { next_at = 0 }
  function self.save()
    local began = luv.hrtime()
    local ok, message, code = true, nil, nil
    for path, make in pairs(makers) do
      local written, why, what = M.write(path, make())
      if not written then ok, message, code = nil, why, what end
    end
    local took = (luv.hrtime() - began) / 1e9
    self.next_at = luv.hrtime() / 1e9 + math.max(SOONEST, PRICE * took)
    return ok, message, code
  end
  function self.changed()
    if luv.hrtime() / 1e9 < self.next_at then return true end
    return self.save()
  end
  function self.around(f, leave)
    local ok, message, code = self.save()
    if not ok then return nil, message, code end
    local kept
    do
      local _ <close> = setmetatable({}, { __close = function()
        leave()
        kept = table.pack(self.save())
      end })
      ok, message, code = f()
    end
    if not ok then return nil, message, code end
    return table.unpack(kept, 1, 3)
  end
  return self
end

return M
