-- complete: what the word at the end of the typed text may become. Values are looked into by raw access and through
-- __index tables; no function of theirs is called.
local core = require "p2pd.core"
local pretty = require "p2pd.repl.pretty"

local M = {}

local INDEX_DEPTH = 10 -- of __index chains
local LONGEST = 4096   -- bytes of a text: looking for where its last name begins takes their square

local function parent(value)
  local meta = debug.getmetatable(value)
  local index = type(meta) == "table" and rawget(meta, "__index")
  return type(index) == "table" and index or nil
end

local function field(value, key)
  for _ = 1, INDEX_DEPTH do
    if value == nil then return nil end
    if type(value) == "table" then
      local found = rawget(value, key)
      if found ~= nil then return found end
    end
    value = parent(value)
  end
end

local function callable(value)
  if type(value) == "function" then return true end
  local meta = debug.getmetatable(value)
  return type(meta) == "table" and rawget(meta, "__call") ~= nil
end

--- The value that a chain of names ("a.b.c") leads to.
---@param env table
---@param chain string
function M.resolve(env, chain)
  local value = env
  for name in chain:gmatch "[%a_][%w_]*" do value = field(value, name) end
  return value
end

-- found[0] says how many keys may still be looked at.
local function add(found, name, word)
  if type(name) == "string" and name:sub(1, #word) == word and pretty.is_name(name) and not found[name] then
    found[name] = true
    found[#found + 1] = name
  end
end

local function add_fields(found, value, word, methods)
  for _ = 1, INDEX_DEPTH do
    if type(value) == "table" then
      for key, inner in next, value do
        found[0] = found[0] - 1
        if found[0] < 0 then return end
        if not methods or callable(inner) then add(found, key, word) end
      end
    end
    value = parent(value)
    if value == nil then return end
  end
end

-- Names with an underscore in front come when they are asked for.
local function finished(found, word)
  if found[0] < 0 then return nil end
  local list = {}
  for _, name in ipairs(found) do
    if name:sub(1, 1) ~= "_" or word ~= "" then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

-- Modules whose name begins with `head`; what is completed is the part of the name that follows.
local function modules(head, word)
  local found, names = { [0] = math.huge }, {}
  for _, list in ipairs { package.loaded, package.preload } do
    for name in next, list do names[#names + 1] = name end
  end
  for _, path in ipairs(core.source.list()) do
    local stem = path:match "^lua/(p2pd.*)%.lua$"
    if stem then names[#names + 1] = stem:gsub("/init$", ""):gsub("/", ".") end
  end
  for _, name in ipairs(names) do
    if type(name) == "string" and name:sub(1, #head) == head then
      add(found, name:sub(#head + 1):match "^[%w_]*", word)
    end
  end
  return finished(found, word)
end

-- The text within an open quotation mark, and what stands before that.
local function open_string(text)
  local place = 1
  while true do
    local start, quote = text:match("()([\"'])", place)
    if not start then return nil end
    local stop = start
    repeat
      stop = text:find(quote, stop + 1, true)
    until not stop or #text:sub(start + 1, stop - 1):match "\\*$" % 2 == 0
    if not stop then return text:sub(start + 1), text:sub(1, start - 1) end
    place = stop + 1
  end
end

--- The candidates for `word`, the end of what was typed.
---@param session table env, lazy(value), command_names(), help_names()
---@param typed string up to the cursor
---@param word string
---@param most? integer how many keys may be looked at
---@return string[]? nil when there were more
function M.candidates(session, typed, word, most)
  if #typed > LONGEST then return {} end
  local head = typed:sub(1, #typed - #word)
  local found = { [0] = most or math.huge }
  if head:match "^%s*:$" then
    for _, name in ipairs(session.command_names()) do add(found, name, word) end
    return finished(found, word)
  end
  local topic = head:match "^%s*:help%s+(.*)$"
  if topic then
    for _, name in ipairs(session.help_names()) do
      if name:sub(1, #topic) == topic then add(found, name:sub(#topic + 1):match "^[%w_]*", word) end
    end
    return finished(found, word)
  end
  head = head:gsub("^%s*:%a+%s+", "")
  local text, before = open_string(head)
  if text then
    return before:match "require%s*%(?%s*$" and modules(text, word) or {}
  end
  if head:match "^%s*$" and word == "" then return {} end
  local chain, separator = head:match "([%a_][%w_%.]*)([.:])$"
  if chain and not head:match "%.%.$" then
    local value = M.resolve(session.env, chain)
    add_fields(found, value, word, separator == ":")
    for name in next, session.lazy(value) do add(found, name, word) end
  elseif head:match "[\"']%s*%)?%s*:$" then
    add_fields(found, "", word, true)
  elseif not head:match "[.:]$" or head:match "%.%.$" then
    add_fields(found, session.env, word)
    add_fields(found, _G, word)
    for name in next, pretty.keywords do
      if word ~= "" and name:sub(1, #word) == word then found[#found + 1] = name end
    end
  end
  return finished(found, word)
end

return M
