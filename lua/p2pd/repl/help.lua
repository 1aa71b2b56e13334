-- help: what :help prints. Functions and types come from the annotations in lua/meta, topics are the files of lua/doc.
local core = require "p2pd.core"
local near = require "p2pd.repl.near"

local M = {}

-- An entry: { name = "node:connect", class = "p2pd.Node" or nil, kind = "function", "class" or "alias",
-- signature = text, about = lines, params, returns, fields = {{name, type, text}…} }.

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

local function read_tag(block, tag, rest)
  if tag == "param" then
    local name, described = rest:match "^(%S+)%s*(.*)$"
    local type_text, about = split_type(described or "")
    table.insert(block.params, { name or rest, type_text, about })
  elseif tag == "return" then
    for part in (rest .. ","):gmatch "%s*(.-)," do
      -- several results on one line have a comma between them; one with a comma in its type stays whole
      if part:find "[%(%[{<]" then
        table.insert(block.returns, { "", split_type(rest) })
        break
      end
      local type_text, about = split_type(part)
      table.insert(block.returns, { "", type_text, about })
    end
  elseif tag == "field" then
    local name, described = rest:match "^(%[.-%])%s+(.*)$"
    if not name then name, described = rest:match "^(%S+)%s*(.*)$" end
    local type_text, about = split_type(described or "")
    table.insert(block.fields, { name or rest, type_text, about })
  elseif tag == "class" or tag == "alias" then
    block.kind = tag
    block.name, block.base = rest:match "^([%w_%.]+)%s*(.*)$"
  end
end

local function parse(text, entries)
  local block, classes = new_block(), {}
  local function finish()
    if block.kind then
      block.signature = block.signature or block.name
      entries[#entries + 1] = block
    end
    block = new_block()
  end
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    local comment = line:match "^%-%-%-(.*)$"
    local tag, rest = (comment or ""):match "^%s*@([%a_]+)%s*(.*)$"
    local choice = (comment or ""):match "^%s*|%s*(.*)$"
    local name, arguments = line:match "^function%s+([%w_%.:]+)%s*(%b())"
    if tag then
      if (tag == "class" or tag == "alias") and block.kind then finish() end
      read_tag(block, tag, rest)
    elseif choice then
      local value, about = split_type(choice)
      table.insert(block.fields, { value, "", about })
    elseif comment then
      table.insert(block.about, (comment:gsub("^ ", "")))
    elseif name then
      block.kind, block.name, block.signature = "function", name, name .. arguments
      block.class = classes[name:match "^[%w_]+"]
      finish()
    else
      local variable = line:match "^local%s+([%w_]+)%s*="
      if variable and block.kind == "class" then classes[variable] = block.name end
      finish()
    end
  end
  finish()
end

local entries

local function all()
  if not entries then
    entries = {}
    for _, path in ipairs(core.source.list()) do
      if path:match "^lua/meta/.*%.lua$" then parse(core.source.text(path), entries) end
    end
  end
  return entries
end

local function topics()
  local list = {}
  for _, path in ipairs(core.source.list()) do list[#list + 1] = path:match "^lua/doc/([%w_-]+)%.md$" end
  table.sort(list)
  return list
end
M.topics = topics

-- The same entry answers to "node:connect", "p2pd.Node:connect", "node.connect" and "connect".
local function names_of(entry)
  local last = entry.name:match "[%w_]+$"
  local names = { [entry.name] = true, [entry.name:gsub(":", ".")] = true, [last] = true }
  if entry.class then
    local whole = entry.class .. entry.name:match "[.:][%w_]+$"
    names[whole], names[whole:gsub(":", ".")] = true, true
  end
  return names
end

--- All that :help knows, for completion.
function M.names()
  local list = topics()
  for _, entry in ipairs(all()) do list[#list + 1] = entry.name end
  return list
end

--- The names of fields that the annotations know, such as the parts of p2pd that load when they are asked for.
---@param class string
---@return table<string, true>
function M.fields(class)
  local found = {}
  for _, entry in ipairs(all()) do
    if entry.kind == "class" and entry.name == class then
      for _, item in ipairs(entry.fields) do found[item[1]:gsub("%?$", "")] = true end
    elseif entry.class == class then
      found[entry.name:match "[%w_]+$"] = true
    end
  end
  return found
end

local function first_sentence(entry)
  local text = table.concat(entry.about, " ")
  return text:match "^(.-%.)%f[%s%z]" or text
end

-- Fills lines of that width anew; what is indented, or between empty lines, stays apart.
local function fill(about, width)
  local lines, column = {}, 0
  for _, text in ipairs(about) do
    if text:match "^%s" or text == "" then
      lines[#lines + 1] = text
      column = 0
    else
      for word in text:gmatch "%S+" do
        local length = utf8.len(word) or #word
        if column > 0 and column + 1 + length <= width then
          lines[#lines] = lines[#lines] .. " " .. word
          column = column + 1 + length
        else
          lines[#lines + 1] = word
          column = length
        end
      end
    end
  end
  return lines
end

local function add_items(lines, title, items, paint)
  if #items == 0 then return end
  lines[#lines + 1] = ""
  lines[#lines + 1] = paint("faint", title)
  local width = 0
  for _, item in ipairs(items) do width = math.max(width, #item[1]) end
  for _, item in ipairs(items) do
    local left = item[1] == "" and item[2] or ("%-" .. width .. "s  %s"):format(item[1], item[2])
    lines[#lines + 1] = ("  %s  %s"):format(left, paint("faint", item[3])):gsub("%s+$", "")
  end
end

local function describe(entry, paint, width)
  local head = entry.kind == "function" and entry.signature or entry.kind .. " " .. entry.name .. (entry.base or "")
  local lines = { paint("strong", head) }
  if entry.class then lines[1] = lines[1] .. paint("faint", "  of " .. entry.class) end
  for _, line in ipairs(fill(entry.about, width)) do lines[#lines + 1] = line end
  add_items(lines, "arguments", entry.params, paint)
  add_items(lines, "returns", entry.returns, paint)
  add_items(lines, entry.kind == "alias" and "one of" or "fields", entry.fields, paint)
  if entry.kind == "class" then
    local methods = {}
    for _, other in ipairs(all()) do
      if other.class == entry.name then methods[#methods + 1] = { other.signature, "", first_sentence(other) } end
    end
    add_items(lines, "functions", methods, paint)
  end
  return table.concat(lines, "\n")
end

--- What is known of a name or topic; nil and a sentence when it is unknown.
---@param name string
---@param paint fun(kind: string, text: string): string
---@param width integer columns
---@return string? text, string? message
function M.about(name, paint, width)
  local topic = core.source.text(("lua/doc/%s.md"):format(name))
  if topic then return (topic:gsub("%s+$", "")) end
  local found, whole = {}, nil
  for _, entry in ipairs(all()) do
    local names = names_of(entry)
    if entry.name == name then whole = entry end
    if names[name] then found[#found + 1] = entry end
  end
  if whole and (#found == 1 or name:find "[.:]") then found = { whole } end
  if #found == 1 then return describe(found[1], paint, width) end
  if #found > 1 then
    local lines = {}
    for i, entry in ipairs(found) do
      lines[i] = ("  %s  %s"):format(entry.name, paint("faint", first_sentence(entry)))
    end
    return ("%s is one of\n%s"):format(name, table.concat(lines, "\n"))
  end
  local guess = near.among(name, M.names())
  return nil, ("nothing is known of '%s'%s"):format(name, guess and "; did you mean " .. guess .. "?" or "")
end

return M
