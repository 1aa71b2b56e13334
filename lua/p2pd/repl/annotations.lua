-- annotations: reads what lua/meta says of everything public (LuaCATS), for :help and the reference of `make docs`.
local M = {}

-- Splits "(fun(): ...)[] at least one" into the type and what is said of it: a type's spaces lie within brackets, or
-- beside "|", "," and ":".
local function split_type(text)
  local depth, place = 0, 1
  while place <= #text do
    local c = text:sub(place, place)
    if c:match "[%(%[{<]" then
      depth = depth + 1
    elseif c:match "[%)%]}>]" then
      depth = depth - 1
    elseif c == '"' then
      place = text:find('"', place + 1, true) or #text
    elseif c == " " and depth <= 0 then
      local before, after = text:sub(1, place - 1):match "[|,:]$", text:sub(place):match "^%s*[|]"
      if not before and not after then return text:sub(1, place - 1), text:sub(place + 1) end
    end
    place = place + 1
  end
  return text, ""
end

local function new_block()
  return { about = {}, params = {}, returns = {}, fields = {} }
end

local function add(list, name, type_text, text)
  local item = { name = name, type = type_text, text = text }
  list[#list + 1] = item
  return item
end

-- What each annotation adds to its block; an item that is returned is what further lines go on with.
local tags = {}

function tags.class(block, rest)
  block.kind = "class"
  block.name, block.base = rest:match "^([%w_.]+)%s*:?%s*(.-)$"
end

function tags.alias(block, rest)
  block.kind = "alias"
  block.name, block.base = rest:match "^([%w_.]+)%s*(.-)$"
end

local function named(list, rest)
  local name, described = rest:match "^(%[.-%])%s+(.*)$"
  if not name then name, described = rest:match "^(%S+)%s*(.*)$" end
  return add(list, name, split_type(described))
end

function tags.field(block, rest)
  return named(block.fields, rest)
end

function tags.param(block, rest)
  return named(block.params, rest)
end

tags["return"] = function(block, rest)
  local type_text, words = split_type(rest)
  local name, text = words:match "^([%a_][%w_]*)%s*(.*)$"
  if words:find "^%.%.%." then name, text = words:match "^(%.%.%.)%s*(.*)$" end
  return add(block.returns, name or "", type_text, text or words)
end

function tags.operator(block, rest)
  local type_text = assert(rest:match "^len: (.+)$", "an operator that is not known here: " .. rest)
  add(block.fields, "#", type_text, "")
end

local function read_comment(block, comment, item)
  local tag, rest = comment:match "^%s*@([%a_]+)%s*(.*)$"
  if tag then
    return assert(tags[tag], "an annotation that is not known here: @" .. tag)(block, rest)
  end
  local choice = comment:match "^%s*|%s*(.*)$"
  if choice then return add(block.fields, split_type(choice), "", select(2, split_type(choice))) end
  local text = comment:gsub("^ ", "")
  if item then
    item.text = item.text .. " " .. text:match "^%s*(.*)$"
  else
    table.insert(block.about, text)
  end
  return item
end

--- What a file of lua/meta describes, in its order. An entry:
---
---     kind       "class", "alias" or "function"
---     name       "p2pd.Node", "node:connect"
---     signature  of functions: "node:connect(to, options)"
---     class      of functions: that of the table in which they are
---     variable   of classes: that table, where there is one
---     base       of classes the one that they extend, of aliases the type; "" when there is none
---     about      lines of text
---     params, returns, fields   items { name =, type =, text = }; the values of an alias are fields
---
--- Throws for an annotation that it does not know.
---@param text string
---@return table[] entries
---@return string module as `---@meta` names it
---@return string[] comment the lines below that: how to get at it
function M.parse(text)
  local entries, classes, comment_lines = {}, {}, {}
  local block, item = new_block(), nil
  local function finish()
    if block.kind then entries[#entries + 1] = block end
    block, item = new_block(), nil
  end
  local module, body = text:match "^%-%-%-@meta ([%w_.]+)\n(.*)$"
  assert(module, "it does not begin with ---@meta NAME")
  for line in (body .. "\n"):gmatch "([^\n]*)\n" do
    local comment = line:match "^%-%-%-(.*)$"
    local name, arguments = line:match "^function%s+([%w_%.:]+)%s*(%b())"
    if comment then
      if block.kind and (comment:find "^@class" or comment:find "^@alias") then finish() end
      item = read_comment(block, comment, item)
    elseif name then
      block.kind, block.name, block.signature = "function", name, name .. arguments
      block.class = classes[name:match "^[%w_]+"]
      finish()
    else
      local variable = line:match "^local%s+([%w_]+)%s*="
      if variable and block.kind == "class" then classes[variable], block.variable = block.name, variable end
      finish()
      if #entries == 0 then comment_lines[#comment_lines + 1] = line:match "^%-%- ?(.*)$" end
    end
  end
  finish()
  return entries, module, comment_lines
end

return M
