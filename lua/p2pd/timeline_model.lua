-- timeline_model: an attempt over time, from what its report tells: rungs, dials and bursts as bars, packets and
-- messages as marks on them; and what all drawings of it need. Pure.
local pretty = require "p2pd.repl.pretty"

local M = {}

local MOST_LANES, MOST_MARKS = 48, 256 -- of a rung; of a lane
local LONGEST = 160                    -- characters of a label, and of what is said of a lane
local SECONDS = 10000                  -- ms from which on a scale has seconds

---@class p2pd.TimelineBar
---@field from number milliseconds after the attempt's start
---@field to number
---@field state "connected"|"failed"|"ended"|"open" ended: for another reason than its own; open: it goes on

---@class p2pd.TimelineMark
---@field ms number
---@field kind string of M.kinds
---@field words string

---@class p2pd.TimelineLane
---@field label string
---@field inner boolean a part of the rung above it
---@field bars p2pd.TimelineBar[]
---@field marks p2pd.TimelineMark[]
---@field words string what came of it
---@field skipped? boolean

---@class p2pd.Timeline
---@field title string
---@field why? string
---@field ok boolean
---@field span number milliseconds that the whole takes
---@field lanes p2pd.TimelineLane[]
---@field kinds string[] those of its marks

-- What marks there are: those further up hide others in the same place.
M.kinds = { "connected", "accepted", "refused", "icmp", "failed", "other", "sent", "heard", "said" }

--- What each kind of mark is called.
M.words = {
  connected = "connected", accepted = "accepted", refused = "refused", icmp = "ICMP", failed = "not sent",
  other = "closed again", sent = "SYN", heard = "heard", said = "said",
}

local said = { request = "said", send = "said", answer = "said", reply = "heard", receive = "heard" }

-- What a table from elsewhere holds -----------------------------------------------------------------------------------

local function list(value)
  return type(value) == "table" and value or {}
end

-- One line of text that no terminal takes for anything else.
local function text(value)
  if type(value) ~= "string" and type(value) ~= "number" then return nil end
  value = tostring(value)
  local stop = LONGEST + 1
  if utf8.len(value) then stop = utf8.offset(value, stop) or #value + 1 end
  return pretty.safe(stop > #value and value or value:sub(1, stop - 1) .. "…")
end

local function time(value)
  value = type(value) == "number" and value or 0
  return value > 0 and value < math.huge and value or 0
end

local function span_text(ms)
  ms = math.floor(ms * 10 + 0.5)
  return ("%s ms"):format(ms % 10 == 0 and ms // 10 or ms / 10)
end

local function sentence(message)
  return message and (message:gsub("^E[A-Z0-9]+: ", ""))
end

-- Lanes ---------------------------------------------------------------------------------------------------------------

local given_up = { ECANCELED = true, ELOST = true }

local function state_of(part)
  if part.ok == true then return "connected" end
  return given_up[part.code] and "ended" or "failed"
end

-- The bar of what began, and took `ms` or goes on until `last`.
local function bar(part, state, last)
  local from = time(part.started_ms)
  local is_over = type(part.ms) == "number"
  return { from = from, to = is_over and from + time(part.ms) or math.max(from, last), state = state }
end

local function dial_lane(dial, last)
  local is_over = type(dial.ms) == "number"
  local scope = text(dial.scope)
  return {
    label = text(dial.to) or "?", inner = true, marks = {},
    bars = { bar(dial, is_over and state_of(dial) or "ended", last) },
    words = (dial.ok == true and "answered" or is_over and text(dial.code) or "given up")
      .. (scope and (" (%s)"):format(scope) or ""),
  }
end

local function port(value)
  return math.tointeger(value) and ("%d"):format(value) or "?"
end

-- What a burst came to, by its numbers.
local function burst_words(burst)
  local parts = {}
  for _, part in ipairs {
    { "sent", "SYNs" }, { "refused", "refused" }, { "unreachable", "unreachable" }, { "connected", "connected" },
    { "accepted", "accepted" },
  } do
    local count = math.tointeger(burst[part[1]])
    local word = count == 1 and part[1] == "sent" and "SYN" or part[2]
    if count and (count > 0 or part[1] == "sent") then parts[#parts + 1] = ("%d %s"):format(count, word) end
  end
  return table.concat(parts, ", ")
end

local function burst_lane(burst, last)
  local marks = {}
  for i, event in ipairs(list(burst.marks)) do
    if i > MOST_MARKS then break end
    event = list(event)
    local kind = M.words[event.what] and event.what or "other"
    local code = text(event.code)
    marks[i] = {
      ms = time(event.ms), kind = kind,
      words = ("%s, %s > %s%s"):format(M.words[kind], port(event.local_port), port(event.remote_port),
        code and (" (%s)"):format(code) or ""),
    }
  end
  local is_over = type(burst.ms) == "number"
  return {
    label = text(burst.name) or text(burst.to) or "?", inner = true, marks = marks, words = burst_words(burst),
    bars = { bar(burst, burst.ok == true and "connected" or is_over and "ended" or "open", last) },
  }
end

local function rung_words(rung)
  if text(rung.skipped) then return "passed over: " .. text(rung.skipped) end
  if type(rung.started_ms) ~= "number" then return "was not reached" end
  if type(rung.ms) ~= "number" then return "is at work" end
  local tries = math.tointeger(rung.tries)
  local after = span_text(time(rung.ms)) .. (tries and (", try %d"):format(tries) or "")
  if rung.ok == true then return "connected after " .. after end
  local message = sentence(text(rung.message)) or "?"
  if given_up[rung.code] then return "given up: " .. message end
  return ("%s after %s: %s"):format(text(rung.code) or "failed", after, message)
end

local function rung_lane(rung, label, last)
  local lane = { label = label, inner = false, bars = {}, marks = {}, words = rung_words(rung) }
  lane.skipped = type(rung.started_ms) ~= "number"
  for i, earlier in ipairs(list(rung.earlier)) do
    if i > MOST_MARKS then break end
    earlier = list(earlier)
    lane.bars[i] = bar(earlier, state_of(earlier), last)
  end
  if not lane.skipped then
    local is_over = type(rung.ms) == "number"
    lane.bars[#lane.bars + 1] = bar(rung, is_over and state_of(rung) or "open", last)
  end
  for i, message in ipairs(list(rung.messages)) do
    if i > MOST_MARKS then break end
    local what = list(message).what
    lane.marks[i] = { ms = time(list(message).ms), kind = said[what] or "other", words = text(what) or "?" }
  end
  return lane
end

-- The lanes of what a rung did, as many as there is room for. Where no end of it was seen, it was that of the rung.
local function add_inner(lanes, rung, last)
  local inner = {}
  if type(rung.ms) == "number" then last = time(rung.started_ms) + time(rung.ms) end
  for _, dial in ipairs(list(rung.dials)) do inner[#inner + 1] = dial_lane(list(dial), last) end
  for _, burst in ipairs(list(rung.bursts)) do inner[#inner + 1] = burst_lane(list(burst), last) end
  table.move(inner, 1, math.min(#inner, MOST_LANES), #lanes + 1, lanes)
  local left = math.max(0, #inner - MOST_LANES) + (math.tointeger(rung.unlisted) or 0)
  if left > 0 then
    lanes[#lanes + 1] = { label = "…", inner = true, bars = {}, marks = {}, words = ("%d more"):format(left),
      skipped = true }
  end
end

-- Names that several rungs have go with their places in the pipeline.
local function labels_of(rungs)
  local count, labels = {}, {}
  for i, rung in ipairs(rungs) do
    labels[i] = text(rung.name) or "?"
    count[labels[i]] = (count[labels[i]] or 0) + 1
  end
  for i, rung in ipairs(rungs) do
    if count[labels[i]] > 1 then labels[i] = ("%s (%s)"):format(labels[i], text(rung.position) or i) end
  end
  return labels
end

local function span_of(lanes, least)
  local span = math.max(least, 0.1)
  for _, lane in ipairs(lanes) do
    for _, part in ipairs(lane.bars) do span = math.max(span, part.to) end
    for _, mark in ipairs(lane.marks) do span = math.max(span, mark.ms) end
  end
  return span
end

local function kinds_of(lanes)
  local found, kinds = {}, {}
  for _, lane in ipairs(lanes) do
    for _, mark in ipairs(lane.marks) do found[mark.kind] = true end
  end
  for _, kind in ipairs(M.kinds) do
    if found[kind] then kinds[#kinds + 1] = kind end
  end
  return kinds
end

local function title_of(told, last)
  if told.ok == true then return ("connected by %s in %s"):format(text(told.strategy) or "?", span_text(last)) end
  if text(told.message) then return ("not connected, %s: %s"):format(span_text(last), text(told.message)) end
  return "under way for " .. span_text(last)
end

--- The timeline of what a report's `table` gives.
---@param told table
---@return p2pd.Timeline
function M.of(told)
  local last, lanes, rungs = time(told.ms), {}, {}
  for i, rung in ipairs(list(told.rungs)) do rungs[i] = list(rung) end
  local labels = labels_of(rungs)
  for i, rung in ipairs(rungs) do
    lanes[#lanes + 1] = rung_lane(rung, labels[i], last)
    add_inner(lanes, rung, last)
  end
  return {
    title = title_of(told, last), why = text(told.why), ok = told.ok == true, span = span_of(lanes, last),
    lanes = lanes, kinds = kinds_of(lanes),
  }
end

-- For drawing ---------------------------------------------------------------------------------------------------------

--- The numbers of a scale over so many milliseconds, at most about so many, 1, 2 or 5 times a power of ten apart; and
--- their unit.
---@param span number
---@param most integer
---@return { ms: number, number: string }[] numbers, string unit
function M.scale(span, most)
  local least = span / math.max(1, most)
  local power, step = 10.0 ^ math.floor(math.log(least, 10)), nil
  for _, factor in ipairs { 10, 5, 2, 1 } do
    if factor * power >= least * (1 - 1e-9) then step = factor * power end
  end
  local numbers, in_seconds = {}, span >= SECONDS
  for i = 0, math.floor(span / step + 1e-9) do
    numbers[i + 1] = { ms = i * step, number = ("%.10g"):format(i * step / (in_seconds and 1000 or 1)) }
  end
  return numbers, in_seconds and "s" or "ms"
end

local function is_wide(code) -- characters of East Asia, mostly
  return code >= 0x1100
    and not (code >= 0x1e00 and code <= 0x2e7f) -- more of Latin and Greek, punctuation, arrows, shapes
end

--- Columns that a text takes in a terminal, about.
---@param words string
---@return integer
function M.columns(words)
  local count = 0
  for _, code in utf8.codes(words) do count = count + (is_wide(code) and 2 or 1) end
  return count
end

--- The text in at most so many columns.
---@param words string
---@param most integer
---@return string
function M.cut(words, most)
  if M.columns(words) <= most then return words end
  local columns = 1 -- of the mark that something is left out
  for place, code in utf8.codes(words) do
    columns = columns + (is_wide(code) and 2 or 1)
    if columns > most then return words:sub(1, place - 1) .. "…" end
  end
end

return M
