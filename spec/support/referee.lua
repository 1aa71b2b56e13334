-- referee: what theory says of each pair of NATs, written by hand, and whether `p2pd-lua lab matrix` keeps it. It knows
-- nothing of core/nat, p2pd.reach or the planner, so that it cannot share their errors.
--
--   p2pd-lua spec/support/referee.lua FILE.json...   the verdict, as sentences; exit status 0 when all bars are kept
--   p2pd-lua spec/support/referee.lua --luck         the pairs that take luck, for `lab matrix --pairs`: they are few,
--                                                    and say nothing of 95 % unless each is tried several times
local cjson = require "cjson"

local M = {}

-- The table -----------------------------------------------------------------------------------------------------------
--
-- Two ends, TCP, a broker between them, and STUN. Each end asks: at which address and port will the other's packets
-- leave its router, and will my router let them in once I have sent something there?
--
-- A mapping can be known when it does not depend on where packets go: of open and udp-firewall, which translate
-- nothing; of full-cone, restricted and port-restricted, whatever their delta, as the port that a STUN server saw is
-- the port that everybody sees; and of symmetric/equal and symmetric/preserving, where the external port is the local
-- one, or a fixed distance from it, for every destination: no packet tells them from port-restricted. It can be told
-- before when each new one comes at a fixed distance from the last (symmetric with independent or dependent). Of
-- symmetric/random it cannot: each destination gets a port that was drawn from 64,512.
--
--   D  direct. Both mappings are known or foretold, so each sends to where the other's packets will come from: both
--      routers then have sent to that very address and port, and let the answer in, whatever they filter by. Or the one
--      side draws at random, but the other lets in all (open, full-cone) or all from an address that it has sent to
--      (restricted): the ports that the first draws do not matter.
--   L  luck. One side draws its port at random, and the other lets in only an address and port that it has sent to
--      (udp-firewall, port-restricted, symmetric with equal or preserving), itself known: many sockets there against
--      many ports here, of which two meet by the birthday paradox; 256 against 1,024 do so in 98 of 100.
--   R  relay. One side draws at random, and so does the other, or it takes a new port for each that it tries
--      (foretold mappings): then a guess has to be right at both ends at once, 1 in 64,512 for each. And blocked,
--      from where nothing goes but to a few ports of servers, whoever the other is.
--
-- The columns are in the order of the rows: who connects does not matter.
local TABLE = {
  --                                o u f r p e k i d x b
  { "open",                        "D D D D D D D D D D R" },
  { "udp-firewall",                "D D D D D D D D D L R" },
  { "full-cone",                   "D D D D D D D D D D R" },
  { "restricted",                  "D D D D D D D D D D R" },
  { "port-restricted",             "D D D D D D D D D L R" },
  { "symmetric/equal",             "D D D D D D D D D L R" },
  { "symmetric/preserving",        "D D D D D D D D D L R" },
  { "symmetric/independent",       "D D D D D D D D D R R" },
  { "symmetric/dependent",         "D D D D D D D D D R R" },
  { "symmetric/random",            "D L D D L L L R R R R" },
  { "blocked",                     "R R R R R R R R R R R" },
}

local MEANING = { D = "direct", L = "luck", R = "relay" }

local row_of = {}
for number, row in ipairs(TABLE) do row_of[row[1]] = number end

-- A delta counts for symmetric alone; its value and the range of ports never do.
local function row(kind)
  local name = kind:gsub("@.*$", ""):gsub(":.*$", "")
  return row_of[name] or row_of[name:gsub("/.*$", "")] or error("the referee knows no NAT " .. kind, 3)
end

--- What theory allows: "direct" (direct, reverse or punch, without luck), "luck" or "relay".
---@param from string "symmetric/independent:7"
---@param to string
---@return "direct"|"luck"|"relay"
function M.expected(from, to)
  local letters = TABLE[row(from)][2]:gsub("%s", "")
  local place = row(to)
  return MEANING[letters:sub(place, place)]
end

-- The verdict ---------------------------------------------------------------------------------------------------------

local ALL = 27 * 27
local BARS = { quiet = { direct = 1, luck = 0.95 }, noisy = { direct = 0.98 }, first = 0.97 }
local SHOWN = 12 -- pairs that are named

local function share(part, whole)
  return whole == 0 and "none was tried" or ("%d of %d (%.1f %%)"):format(part, whole, 100 * part / whole)
end

local function median(list)
  table.sort(list)
  return (list[(#list + 1) // 2] + list[#list // 2 + 1]) / 2
end

-- A sentence about a share that has a bar.
local function against(verdict, what, part, whole, bar)
  local kept = not bar or whole == 0 or part / whole >= bar
  verdict[#verdict + 1] = ("%s: %s%s."):format(what, share(part, whole), bar and whole > 0
    and ("; the bar is %g %%: %s"):format(100 * bar, kept and "kept" or "NOT KEPT") or "")
  verdict.kept = verdict.kept and kept
end

local function name_of(run)
  local outcome = run.ok and ("%s in %.0f ms"):format(run.strategy, run.ms) or run.message or run.code or "?"
  return ("  %s > %s: %s"):format(run.from, run.to, outcome)
end

local function add_names(verdict, list)
  for place = 1, math.min(SHOWN, #list) do verdict[#verdict + 1] = name_of(list[place]) end
  if #list > SHOWN then verdict[#verdict + 1] = ("  and %d others"):format(#list - SHOWN) end
end

local function tally(runs)
  local sum = {
    tried = { direct = 0, luck = 0, relay = 0 }, met = { direct = 0, luck = 0, relay = 0 },
    missed = { direct = {}, luck = {} }, failed = {}, times = {}, punches = 0, first = 0, pairs = 0,
  }
  local seen = {}
  for _, run in ipairs(runs) do
    local theory, key = M.expected(run.from, run.to), run.from .. " " .. run.to
    sum.pairs, seen[key] = sum.pairs + (seen[key] and 0 or 1), true
    sum.tried[theory] = sum.tried[theory] + 1
    local direct = run.ok and run.strategy ~= "relay"
    if theory == "relay" and run.ok or direct then
      sum.met[theory] = sum.met[theory] + 1
    elseif theory ~= "relay" and run.ok then
      table.insert(sum.missed[theory], run)
    end
    if run.ok then
      sum.times[run.strategy] = sum.times[run.strategy] or {}
      table.insert(sum.times[run.strategy], run.ms)
    else
      table.insert(sum.failed, run)
    end
    if run.ok and run.strategy == "punch" then
      sum.punches = sum.punches + 1
      if (run.tries or 1) == 1 then sum.first = sum.first + 1 end
    end
  end
  return sum
end

local function add_times(verdict, times)
  local names, parts = {}, {}
  for strategy in pairs(times) do names[#names + 1] = strategy end
  table.sort(names)
  for i, strategy in ipairs(names) do
    parts[i] = ("%s %.0f ms (of %d, the longest %.0f ms)"):format(strategy, median(times[strategy]), #times[strategy],
      math.max(table.unpack(times[strategy])))
  end
  verdict[#verdict + 1] = ("Median times: %s."):format(#parts > 0 and table.concat(parts, ", ") or "none")
end

--- The verdict on the results of one `lab matrix`.
---@param found {conditions: table, runs: table[]} its file, decoded
---@param whole? boolean it has to have all pairs
---@return string[] sentences with `kept`: whether all bars are
function M.verdict(found, whole)
  local conditions, sum = found.conditions, tally(found.runs)
  local quiet = conditions.loss == 0 and conditions.noise == 0
  local bars = quiet and BARS.quiet or BARS.noisy
  local verdict = { kept = true }
  verdict[1] = ("Uninvited SYNs get: %s; loss %g %%; %g flows of others a second; links of %g ms."):format(
    conditions.uninvited, conditions.loss * 100, conditions.noise, conditions.delay_ms)
  if whole then
    verdict.kept = sum.pairs == ALL
    verdict[2] = ("%d of %d pairs were tried%s."):format(sum.pairs, ALL, verdict.kept and "" or ": NOT ALL")
  end
  against(verdict, "Direct where theory allows it without luck", sum.met.direct, sum.tried.direct, bars.direct)
  add_names(verdict, sum.missed.direct)
  against(verdict, "Direct with luck", sum.met.luck, sum.tried.luck, bars.luck)
  add_names(verdict, bars.luck and sum.missed.luck or {})
  against(verdict, "Connected where only a relay can", sum.met.relay, sum.tried.relay, 1)
  against(verdict, "Connected at all", #found.runs - #sum.failed, #found.runs, 1)
  add_names(verdict, sum.failed)
  against(verdict, "Punches at the first try", sum.first, sum.punches, BARS.first)
  add_times(verdict, sum.times)
  return verdict
end

local function read(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text = file:read "a"
  file:close()
  local ok, found = pcall(cjson.decode, text)
  if ok and type(found) == "table" and found.runs then return found end
  return nil, path .. ": it is no file of `lab matrix`"
end

-- All pairs that take luck, as `lab matrix` reads them.
local function lucky()
  local kinds, list = require("p2pd.lab.matrix_pairs").KINDS, {}
  for _, from in ipairs(kinds) do
    for _, to in ipairs(kinds) do
      if M.expected(from, to) == "luck" then list[#list + 1] = from .. ":" .. to end
    end
  end
  return table.concat(list, ",")
end

local function main(paths)
  if paths[1] == "--luck" then
    print(lucky())
    return 0
  end
  local kept = #paths > 0
  for _, path in ipairs(paths) do
    local found, message = read(path)
    local verdict = found and M.verdict(found, true) or { message, kept = false }
    print(("%s\n%s\n"):format(path, table.concat(verdict, "\n")))
    kept = kept and verdict.kept
  end
  print(kept and "All bars are kept." or "NOT all bars are kept.")
  return kept and 0 or 1
end

if ... == "spec.support.referee" then return M end
os.exit(main { ... }, true)
