-- help: what :help prints. Functions and types come from the annotations in lua/meta, topics are the files of lua/doc.
local annotations = require "p2pd.repl.annotations"
local core = require "p2pd.core"
local near = require "p2pd.repl.near"

local M = {}

local entries

local function all()
  if not entries then
    entries = {}
    for _, path in ipairs(core.source.list()) do
      if path:match "^lua/meta/.*%.lua$" then
        for _, entry in ipairs((annotations.parse(core.source.text(path)))) do entries[#entries + 1] = entry end
      end
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
      for _, item in ipairs(entry.fields) do
        local name = item.name:match "^[%a_][%w_]*"
        if name then found[name] = true end
      end
    elseif entry.class == class then
      found[entry.name:match "[%w_]+$"] = true
    end
  end
  return found
end

local parameters -- of functions, by "p2pd.node.connect" (the class in small letters) and by "node.connect"

--- The parameters of a function, "options?" where one may be left out, by the name of its class or of a variable that
--- holds such a value in lua/meta.
---@param owner string
---@param name string
---@return string[]? names, boolean? is_method
function M.parameters(owner, name)
  if not parameters then
    parameters = {}
    for _, entry in ipairs(all()) do
      if entry.kind == "function" then
        local names = { is_method = entry.name:find(":", 1, true) ~= nil }
        for i, param in ipairs(entry.params) do names[i] = param.name end
        parameters[entry.name:gsub(":", ".")] = names
        if entry.class then parameters[entry.class:lower() .. "." .. entry.name:match "[%w_]+$"] = names end
      end
    end
  end
  local names = parameters[owner .. "." .. name] or parameters[owner:lower() .. "." .. name]
  return names, names and names.is_method
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
  for _, item in ipairs(items) do width = math.max(width, #item.name) end
  for _, item in ipairs(items) do
    local left = item.name == "" and item.type or ("%-" .. width .. "s  %s"):format(item.name, item.type)
    lines[#lines + 1] = ("  %s  %s"):format(left, paint("faint", item.text)):gsub("%s+$", "")
  end
end

local function describe(entry, paint, width)
  local head = entry.signature or entry.kind .. " " .. entry.name
  if not entry.signature and entry.base ~= "" then
    head = head .. (entry.kind == "class" and ": " or " ") .. entry.base
  end
  local lines = { paint("strong", head) }
  if entry.class then lines[1] = lines[1] .. paint("faint", "  of " .. entry.class) end
  for _, line in ipairs(fill(entry.about, width)) do lines[#lines + 1] = line end
  add_items(lines, "arguments", entry.params, paint)
  add_items(lines, "returns", entry.returns, paint)
  add_items(lines, entry.kind == "alias" and "one of" or "fields", entry.fields, paint)
  if entry.kind == "class" then
    local methods = {}
    for _, other in ipairs(all()) do
      if other.class == entry.name then
        methods[#methods + 1] = { name = other.signature, type = "", text = first_sentence(other) }
      end
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
