-- hints: what may come next behind the text that is typed. Values are looked at as completion does: no function of
-- theirs is called. Of what is huge nothing is told.
local complete = require "p2pd.repl.complete"
local help = require "p2pd.repl.help"
local pretty = require "p2pd.repl.pretty"

local M = {}

local MOST_KEYS = 5000 -- looked at for the rest of a name
local LEAST = 2        -- letters of a global name, or of a line of the history

-- Where the text ends: in "code", in "quotes", or in a "comment" or long text. In code also the place of each bracket
-- that is open, with how many commas have come in it.
local function scan(text)
  local open, place = {}, 1
  while place <= #text do
    local c, stop = text:sub(place, place), place
    if c == '"' or c == "'" then
      repeat
        stop = text:find(c, stop + 1, true)
      until not stop or #text:sub(place + 1, stop - 1):match "\\*$" % 2 == 0
      if not stop then return "quotes" end
    elseif text:find("^%[=*%[", place) then
      stop = select(2, text:find("]" .. text:match("^%[(=*)%[", place) .. "]", place, true))
      if not stop then return "comment" end
    elseif text:find("^%-%-", place) then
      local level = text:match("^%-%-%[(=*)%[", place)
      stop = level and select(2, text:find("]" .. level .. "]", place, true))
      if not stop then return "comment" end
    elseif c:find "[%(%[{]" then
      open[#open + 1] = { place = place, commas = 0 }
    elseif c:find "[%)%]}]" then
      open[#open] = nil
    elseif c == "," and open[#open] then
      open[#open].commas = open[#open].commas + 1
    end
    place = stop + 1
  end
  return "code", open
end

-- The name by which lua/meta knows what that value is: its type's, or its module's.
local function owner_of(value)
  local meta = debug.getmetatable(value)
  local name = type(meta) == "table" and rawget(meta, "__name")
  if type(name) == "string" then return name end
  if type(value) ~= "table" then return nil end
  for module, loaded in next, package.loaded do
    if rawequal(loaded, value) and type(module) == "string" then return module end
  end
end

-- The names that a function of Lua's gives its parameters; nil for others.
local function own_parameters(f)
  if type(f) ~= "function" then return nil end
  local about = debug.getinfo(f, "Su")
  if about.what == "C" then return nil end
  local names = {}
  for i = 1, about.nparams do names[i] = debug.getlocal(f, i) end
  if about.isvararg then names[#names + 1] = "..." end
  return names, names[1] == "self"
end

-- The parameters of what is called by the text before a bracket, without those that a colon gives.
local function parameters(session, callee)
  local chain, separator, name = callee:match "([%a_][%w_%.]*)([.:])([%a_][%w_]*)%s*$"
  if not chain then name = callee:match "([%a_][%w_]*)%s*$" end
  local before = callee:sub(1, #callee - #callee:match "[%w_%.:]*%s*$")
  if not name or not chain and not pretty.is_name(name) or before:find "[.:]$" or before:find "function%s+$" then
    return nil
  end
  local names, is_method, value
  if chain then
    local receiver = complete.resolve(session.env, chain)
    value = complete.resolve(session.env, chain .. "." .. name)
    local owner = owner_of(receiver)
    if owner then names, is_method = help.parameters(owner, name) end
    if not names and value == nil then names, is_method = help.parameters(chain, name) end
  else
    value = complete.resolve(session.env, name)
  end
  if not names then
    names, is_method = own_parameters(value)
    if names and is_method then table.remove(names, 1) end
  end
  if not names then return nil end
  names = table.move(names, 1, #names, 1, {})
  if separator == ":" and not is_method then table.remove(names, 1) end
  if separator ~= ":" and is_method then table.insert(names, 1, "self") end
  return names
end

local function of_call(session, text, open)
  local call, last = open[#open], text:match "([(,])%s*$"
  if not call or not last or text:sub(call.place, call.place) ~= "(" then return nil end
  local names = parameters(session, text:sub(1, call.place - 1))
  if not names or call.commas > 0 and call.commas >= #names and names[#names] ~= "..." then return nil end
  local rest = table.concat(names, ", ", math.min(call.commas + 1, math.max(1, #names)))
  return (text:sub(-1) == "," and " " or "") .. rest .. ")"
end

local function of_name(session, typed)
  local word = typed:match "[%a_][%w_]*$"
  local head = word and typed:sub(1, -#word - 1)
  if not word or head:find "[%w\x80-\xff]$" or #word < LEAST and not head:find "[.:]$" then return nil end
  local found = complete.candidates(session, typed, word, MOST_KEYS)
  local only = found and #found == 1 and found[1]
  return only and #only > #word and only:sub(#word + 1) or nil
end

--- The hint for a text: the parameters that a call still takes, or the rest of the only name that begins so, or the
--- rest of the newest line that does.
---@param session table env, lazy(value), command_names(), help_names()
---@param typed string
---@return string? hint, boolean? takeable whether it can become a part of the line
function M.of(session, typed)
  local text = typed:gsub("^%s*:%a+%s+", "")
  local where, open = scan(text)
  local call = where == "code" and of_call(session, text, open)
  if call then return call, false end
  local name = where ~= "comment" and of_name(session, typed)
  if name then return name, true end
end

--- The rest of the newest line that begins so.
---@param typed string
---@param recall fun(typed: string): string?
---@return string? hint, boolean? takeable
function M.of_history(typed, recall)
  local _, letters = typed:gsub("[%w\xc2-\xf4]", "")
  local line = letters >= LEAST and recall(typed)
  local rest = line and line:sub(#typed + 1):match "^[^\n]+"
  if rest then return rest, true end
end

return M
