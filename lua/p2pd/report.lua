-- report: what one attempt did. Each rung (a strategy that is not made of others) is in it exactly once, whether it
-- succeeded, failed, was cancelled, passed over or never reached.
local marks = require "p2pd.report_marks"
local task = require "p2pd.task"
local why = require "p2pd.why"

local M = {}

local ms = marks.ms

---@class p2pd.Rung
---@field name string
---@field position string its place in the pipeline, "1.2" is the second child of the whole
---@field ok boolean whether the attempt's pipe came from here
---@field started_ms? number after the attempt's start; nil when it was passed over
---@field ms? number how long it took
---@field code? string why it failed
---@field message? string the same as a sentence, "ECODE: …"
---@field skipped? string why it was passed over
---@field tries? integer how often it was tried, when more than once
---@field earlier? table[] the tries before the last one: started_ms, ms, code
---@field notes? table<string, any> what the strategy noted: what it predicted, what it saw
---@field dials? table[] each address that was dialed: to, scope, started_ms, ms, ok, code
---@field bursts? table[] each puncher: name, to, started_ms, ms, ok, numbers of what it saw, marks, unlisted
---@field messages? table[] what was said and heard: ms, what
---@field unlisted? integer earlier tries, bursts and messages for which there was no room
---@field traceback? string where it threw

---@class p2pd.Report
local report = {}
report.__index = report
report.__name = "p2pd.report"

local STEP = "  "
local LONGEST_TEXT = 400
local MOST_EARLIER, MOST_BURSTS, MOST_MESSAGES = 16, 48, 64 -- of a rung

--- A new report; its clock starts with the attempt.
---@param options? { on_event?: fun(event: table) } on_event is the same as report:events(on_event)
---@return p2pd.Report
function M.new(options)
  local self = setmetatable({ started = task.now(), secrets = {}, listeners = {} }, report)
  for key, value in pairs(options or {}) do
    if key ~= "on_event" then error(("unknown option '%s'"):format(tostring(key)), 2) end
    if type(value) ~= "function" then error("option 'on_event' is a function", 2) end
    self:events(value)
  end
  return self
end

-- Texts -----------------------------------------------------------------------------------------------------------

local function redact(self, text)
  for secret in pairs(self.secrets) do
    local from, to = text:find(secret, 1, true)
    while from do
      text = text:sub(1, from - 1) .. "(secret)" .. text:sub(to + 1)
      from, to = text:find(secret, from, true)
    end
  end
  return text
end

-- What peers and errors say goes to terminals: one line, no control characters, bounded, and without secrets.
local function clean(self, text)
  text = redact(self, text):gsub("[%c\x7f]+", " ")
  if not utf8.len(text) then text = text:gsub("[\x80-\xff]", "?") end
  if #text > LONGEST_TEXT then
    text = text:sub(1, utf8.offset(text, 0, LONGEST_TEXT + 1) - 1) .. "…"
  end
  return text
end

local function is_list(value)
  local count = 0
  for _ in pairs(value) do count = count + 1 end
  return count == #value
end

-- A copy that JSON can carry and that does not change when the strategy goes on.
local function clean_value(self, value, depth)
  if type(value) == "string" then return clean(self, value) end
  if type(value) == "boolean" then return value end
  if type(value) == "number" and value - value == 0 then return value end
  if type(value) ~= "table" then return clean(self, tostring(value)) end
  if depth == 0 then return "…" end
  local copy, list = {}, is_list(value)
  for k, v in pairs(value) do
    copy[list and k or clean(self, tostring(k))] = clean_value(self, v, depth - 1)
  end
  return copy
end

--- From now on the text does not appear in the report, whatever notes or messages contain it.
---@param secret string
function report:hide(secret)
  if #secret > 0 then self.secrets[secret] = true end
end

-- The tree --------------------------------------------------------------------------------------------------------

local function add_node(self, parent, strategy)
  local siblings = parent and parent.children
  local node = {
    strategy = strategy, name = strategy.name, parent = parent, entered = 0, tries = 0, running = 0,
    group = strategy.children ~= nil, children = {},
    position = not parent and "1" or parent.position .. "." .. (#siblings + 1),
  }
  if siblings then siblings[#siblings + 1] = node end
  for _, child in ipairs(strategy.children or {}) do add_node(self, node, child) end
  return node
end

--- Lays out the whole pipeline, so that what is never reached is in the report too.
function report:plan(strategy)
  self.started = task.now()
  self.root = add_node(self, nil, strategy)
end

-- Adds to a list of what a node did, as long as there is room.
local function room_in(node, list, most, entry)
  if #list >= most then
    node.unlisted = (node.unlisted or 0) + 1
    return
  end
  list[#list + 1] = entry
end

-- What a run came to before another one takes its place.
local function keep_earlier(node)
  local before = node.result
  if not before or not before.started_ms or before == node.kept then return end
  node.kept, node.earlier = before, node.earlier or {}
  room_in(node, node.earlier, MOST_EARLIER, { started_ms = before.started_ms, ms = before.ms, code = before.code })
end

--- The node for a strategy that is about to run under `parent`: of its children that are this strategy the one that ran
--- least often; one that was not declared as a child is added. It may run more than once at a time.
function report:enter(parent, strategy)
  local found
  if not parent then
    if not self.root then self:plan(strategy) end
    found = self.root
  else
    for _, node in ipairs(parent.children) do
      local idler = found and (node.running < found.running
        or node.running == found.running and node.entered < found.entered)
      if node.strategy == strategy and (not found or idler) then found = node end
    end
  end
  found = found or add_node(self, parent, strategy)
  keep_earlier(found)
  if found.running == 0 then found.started = task.now() end
  found.running = found.running + 1
  found.entered = found.entered + 1
  return found
end

local function each_rung(node, f)
  if not node then return end
  if not node.group then f(node) end
  for _, child in ipairs(node.children) do each_rung(child, f) end
end

local function burst_table(self, burst)
  local told = marks.burst(burst.look() or {}, self.started)
  told.name, told.to, told.ok = burst.name, burst.to, burst.ok
  told.started_ms = ms(burst.started - self.started)
  told.ms = burst.ended and ms(burst.ended - burst.started)
  return told
end

local function bursts_of(self, node)
  if not node.bursts then return nil end
  local list = {}
  for i, burst in ipairs(node.bursts) do list[i] = burst.told or burst_table(self, burst) end
  return list
end

local function public(self, node, result)
  result = result or node.running > 0 and { started_ms = ms(node.started - self.started) } or node.result or {}
  return {
    name = node.name, position = node.position, ok = result.ok or false, started_ms = result.started_ms,
    ms = result.ms, code = result.code, message = result.message, skipped = result.skipped,
    tries = node.tries > 1 and node.tries or nil, earlier = node.earlier, notes = node.notes, dials = node.dials,
    bursts = bursts_of(self, node), messages = node.messages, unlisted = node.unlisted,
    traceback = result.traceback,
  }
end

local function emit(self, node)
  if #self.listeners == 0 then return end
  local event = public(self, node, node.result)
  event.event, event.traceback = "rung", nil
  for _, listener in ipairs(self.listeners) do
    local ok, err = pcall(listener, event)
    -- It must not end the attempt, nor vanish: as a task that nobody waits for, it is printed.
    if not ok and not task.is_cancelled(err) then task.spawn(error, err, 0) end
  end
end

local function pass_over(self, node, reason)
  each_rung(node, function(rung)
    if rung.running > 0 or rung.result and (not rung.result.skipped or rung.result.skipped == reason) then return end
    rung.result = { skipped = reason }
    emit(self, rung)
  end)
end

--- What became of a node that `enter` gave, and that ran since `began`. `result`: ok; or skipped; or code, message,
--- traceback, mistake. Of several runs the one that connected counts.
function report:leave(node, result, began)
  local now = task.now()
  node.running = node.running - 1
  if node.result and node.result.ok and not result.ok then return end
  if result.skipped then
    local reason = clean(self, result.skipped)
    node.skipped = reason
    pass_over(self, node, reason)
    return
  end
  if node.group then
    if not result.mistake then return end
    -- A mistake in what is made of rungs is the reason for those that it did not come to.
    node.skipped, self.mistaken = ("%s failed: %s"):format(node.name, clean(self, result.mistake)), true
    pass_over(self, node, node.skipped)
    return
  end
  keep_earlier(node)
  node.tries = node.tries + 1
  node.result = {
    ok = result.ok or false, code = result.code, message = result.message and clean(self, result.message),
    traceback = result.traceback and redact(self, result.traceback),
    started_ms = ms(began - self.started), ms = ms(now - began),
  }
  emit(self, node)
end

local function why_not_reached(self, node)
  local above = node.parent
  while above do
    if above.skipped then return above.skipped end
    above = above.parent
  end
  if self.winner then return self.winner .. " connected first" end
  return "the attempt ended before its turn"
end

--- The end of the attempt: `winner` is the node whose pipe was kept; when there is none, code and message say why.
function report:finish(winner, code, message)
  if self.ended then return end
  self.ended = task.now()
  self.winner = winner and winner.name
  if not winner then self.code, self.message = code, clean(self, message) end
  each_rung(self.root, function(node)
    if node.result and node.result.ok and node ~= winner then
      local text = ("ELOST: its pipe was closed again, %s"):format(self.winner and self.winner .. "'s was kept"
        or "the attempt was over")
      node.result.ok, node.result.code, node.result.message = false, "ELOST", text
    elseif not node.result then
      pass_over(self, node, why_not_reached(self, node))
    end
  end)
end

--- One sentence for all rungs that were tried or passed over, and its code: the one given, or that on which those that
--- failed agree, or EUNREACHABLE.
---@param given? string
---@return string message, string code
function report:failure(given)
  local parts, code, tried = {}, given, false
  each_rung(self.root, function(node)
    local result = node.result
    if not result or result.ok then return end
    tried = tried or not result.skipped
    parts[#parts + 1] = ("%s: %s"):format(node.name, result.skipped or result.message:gsub("^E%w+: ", ""))
    if not given and not result.skipped then
      code = (code == nil or code == result.code) and result.code or "EUNREACHABLE"
    end
  end)
  code = code or self.mistaken and "ESCRIPT" or "EUNREACHABLE"
  local sentence = tried and "no way to the peer was found" or "no strategy applies"
  return ("%s: %s (%s)"):format(code, sentence, table.concat(parts, "; ")), code
end

-- What strategies leave -------------------------------------------------------------------------------------------

function report:note(node, key, value)
  node.notes = node.notes or {}
  node.notes[clean(self, key)] = clean_value(self, value, 4)
end

--- Notes an address that is being dialed; the function that is returned takes the outcome.
function report:dial(node, to, scope)
  node.dials = node.dials or {}
  local started = task.now()
  local entry = { to = to, scope = scope, started_ms = ms(started - self.started), ok = false, code = "ECANCELED" }
  node.dials[#node.dials + 1] = entry
  return function(ok, code)
    entry.ms, entry.ok, entry.code = ms(task.now() - started), ok, not ok and code or nil
  end
end

--- Notes that packets are about to go out to an address, as a burst or several. `look` gives what was seen of them, as
--- a puncher's `seen` does; the function that is returned takes whether a pipe came of it, and looks for the last time.
---@param node table
---@param to string
---@param name? string what the strategy calls it
---@param look fun(): table?
---@return fun(ok: boolean)
function report:burst(node, to, name, look)
  local burst = { to = to, name = name and clean(self, name), started = task.now(), ok = false, look = look }
  node.bursts = node.bursts or {}
  room_in(node, node.bursts, MOST_BURSTS, burst)
  return function(ok)
    if burst.told then return end
    burst.ok, burst.ended = ok, task.now()
    burst.told = burst_table(self, burst)
    burst.look = nil
  end
end

--- Notes that something was said to the peer (a "request", "send", "answer"), or heard of it ("reply", "receive").
function report:signal(node, what)
  node.messages = node.messages or {}
  room_in(node, node.messages, MOST_MESSAGES, { ms = ms(task.now() - self.started), what = what })
end

-- For the outside -------------------------------------------------------------------------------------------------

--- Calls the function with each rung when it has ended, been passed over or cancelled, as a table with event = "rung";
--- a rung that is tried again gives another event, with its `tries`. It must not wait.
---@param listener fun(event: table)
function report:events(listener)
  if type(listener) ~= "function" then error("a function is expected, not a " .. type(listener), 2) end
  self.listeners[#self.listeners + 1] = listener
end

--- The report as a table, fit for JSON.
---@return { ok: boolean, ms: number, strategy?: string, why?: string, code?: string, message?: string,
---          rungs: p2pd.Rung[] }
function report:table()
  local rungs = {}
  each_rung(self.root, function(node) rungs[#rungs + 1] = public(self, node) end)
  local told = {
    ok = self.winner ~= nil, ms = ms((self.ended or task.now()) - self.started), strategy = self.winner,
    code = self.code, message = self.message, rungs = rungs,
  }
  told.why = why.sentence(told)
  return told
end

local function value_text(value)
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for i, v in ipairs(value) do parts[i] = value_text(v) end
  if #parts == 0 then
    for k, v in pairs(value) do parts[#parts + 1] = ("%s=%s"):format(k, value_text(v)) end
    table.sort(parts)
  end
  return table.concat(parts, ", ")
end

local function outcome(node)
  local result = node.result
  if not result then return node.running > 0 and "is at work" or "waits for its turn" end
  if result.skipped then return "passed over: " .. result.skipped end
  local tries = node.tries > 1 and (" (try %d)"):format(node.tries) or ""
  if result.ok then return ("connected after %s ms%s"):format(result.ms, tries) end
  return ("failed after %s ms%s  %s"):format(result.ms, tries, result.message)
end

local function dial_outcome(dial)
  if dial.ok then return ("answered after %s ms"):format(dial.ms) end
  return dial.ms and ("%s after %s ms"):format(dial.code, dial.ms) or "given up"
end

local function write_node(lines, node, depth, width)
  local indent = STEP:rep(depth)
  if node.group then
    lines[#lines + 1] = indent .. node.name
  else
    local at = node.result and node.result.started_ms
    local label = indent .. node.name
    label = label .. (" "):rep(width - #label)
    lines[#lines + 1] = ("%s  %8s  %s"):format(label, at and ("%s ms"):format(at) or "", outcome(node))
    for _, dial in ipairs(node.dials or {}) do
      lines[#lines + 1] = ("%s  %8s  %s%s: %s"):format((" "):rep(width), ("%s ms"):format(dial.started_ms), dial.to,
        dial.scope and (" (%s)"):format(dial.scope) or "", dial_outcome(dial))
    end
    local keys = {}
    for key in pairs(node.notes or {}) do keys[#keys + 1] = key end
    table.sort(keys)
    for _, key in ipairs(keys) do
      lines[#lines + 1] = ("%s  %8s  %s: %s"):format((" "):rep(width), "", key, value_text(node.notes[key]))
    end
  end
  for _, child in ipairs(node.children) do write_node(lines, child, depth + 1, width) end
end

--- The report for a person: the pipeline as a tree, what each rung did and when it started.
---@return string
function report:text()
  local took = ("%s ms"):format(ms((self.ended or task.now()) - self.started))
  local sentence = self.winner and self:table().why
  local lines = {
    self.winner and ("connected by %s in %s%s"):format(self.winner, took, sentence and ": " .. sentence or "")
    or self.ended and ("not connected, %s: %s"):format(took, self.message)
    or ("under way for %s"):format(took),
  }
  local function widest(node, depth)
    local width = #STEP * depth + #node.name
    for _, child in ipairs(node.children) do width = math.max(width, widest(child, depth + 1)) end
    return width
  end
  if self.root then write_node(lines, self.root, 1, widest(self.root, 1)) end
  return table.concat(lines, "\n")
end

function report:__tostring()
  if self.winner then return ("report (connected by %s)"):format(self.winner) end
  return ("report (%s)"):format(self.ended and self.code or "under way")
end

return M
