-- reference: the API, module by module, as Markdown: what the annotations in lua/meta say.
local annotations = require "p2pd.repl.annotations"
local tools = require "spec.docs.tools"

local M = {}

local code, prose = tools.code, tools.prose

local function add(out, ...)
  for _, line in ipairs { ... } do out[#out + 1] = line end
end

-- Lines of text, of which those that are indented are code.
local function add_lines(out, lines)
  local text = {}
  local function finish()
    if #text > 0 then add(out, prose(table.concat(text, "\n")), "") end
    text = {}
  end
  for place, line in ipairs(lines) do
    if line:find "^%s%s" then
      finish()
      add(out, "  " .. line)
      if not (lines[place + 1] or ""):find "^%s%s" then add(out, "") end
    else
      text[#text + 1] = line
    end
  end
  finish()
end

local function item_line(name, item)
  local parts = {}
  if name ~= "" then parts[1] = ("**%s**"):format(code(name)) end
  if item.type ~= "" then parts[#parts + 1] = ("*%s*"):format(code(item.type)) end
  return table.concat(parts, " ") .. (item.text ~= "" and " – " .. prose(item.text) or "")
end

local function add_items(out, items, class)
  for _, item in ipairs(items) do
    local name = item.name
    if name == "#" then name = "#" .. class.variable end
    add(out, "- " .. item_line(name, item))
  end
  if #items > 0 then add(out, "") end
end

-- What says why it failed is on one line where nothing else is to be said of it: that is so nearly everywhere.
local function add_returns(out, returns)
  local place = 1
  while returns[place] do
    local item, following = returns[place], returns[place + 1]
    local line = "- " .. item_line(item.name, item)
    if following and item.text == "" and following.text == "" and following.name == "code" then
      line = ("%s, %s"):format(line, item_line(following.name, following))
      place = place + 1
    end
    add(out, line)
    place = place + 1
  end
  if #returns > 0 then add(out, "") end
end

-- The parameters as a caller sees them: those that can be left out have a question mark.
local function signature(entry)
  local names = {}
  for place, item in ipairs(entry.params) do names[place] = item.name end
  return ("%s(%s)"):format(entry.label, table.concat(names, ", "))
end

local function add_function(out, entry, level)
  add(out, ("#"):rep(level) .. " " .. code(signature(entry)), "")
  add_lines(out, entry.about)
  add_items(out, entry.params)
  if #entry.returns > 0 then
    add(out, "Returns", "")
    add_returns(out, entry.returns)
  end
end

local function add_class(out, entry)
  if entry.base ~= "" then
    add(out, entry.kind == "class" and ("All of %s, and:"):format(code(entry.base)) or code(entry.base), "")
  end
  add_lines(out, entry.about)
  add_items(out, entry.fields, entry)
end

-- The class that a module is about, as p2pd.strategy is about p2pd.Strategy; or the module itself.
local function is_main(module, entry)
  return entry.kind == "class" and entry.name:lower() == module.name
end

-- A few words for lists: what the library's field for it says, or the first sentence of its class.
local function summary_of(module, fields)
  if fields[module.name] then return fields[module.name] end
  for _, entry in ipairs(module.entries) do
    if is_main(module, entry) and #entry.about > 0 then
      return table.concat(entry.about, " "):match "^(.-)%.%f[%s%z]"
    end
  end
  error(module.name .. ": no class of that name says what it is")
end

--- What lua/meta describes: for each file its module's name, its entries, a short summary, and what is said of how to
--- get at it. An entry's `label` is how it is called, as "p2pd.punch.plan" or "pipe:send".
---@param folder string
---@return table[] modules
function M.modules(folder)
  local modules, fields = {}, {}
  for place, name in ipairs(tools.names(folder, ".lua")) do
    local path = ("%s/%s.lua"):format(folder, name)
    local ok, entries, module, comment = pcall(annotations.parse, tools.read(path))
    if not ok then error(path .. ": " .. entries, 0) end
    modules[place] = { name = module, file = path, entries = entries, comment = comment }
    for _, entry in ipairs(entries) do
      -- Functions of a library's part are called by the part's name, those of things by a name that a thing may have.
      local of_part = entry.class and entry.class == entry.class:lower() and not entry.name:find ":"
      entry.label = of_part and entry.class .. entry.name:match "%.[%w_]+$" or entry.name
      for _, item in ipairs(entry.name == "p2pd" and entry.fields or {}) do fields[item.type] = item.text end
    end
  end
  table.sort(modules, function(a, b) return a.name < b.name end)
  for _, module in ipairs(modules) do module.summary = summary_of(module, fields) end
  return modules
end

local function add_section(out, module, entry)
  local is_module = entry.name == module.name
  if not is_module then add(out, "## " .. code(entry.name), "") end
  add_class(out, entry)
  if is_module and #module.comment > 0 then add_lines(out, module.comment) end
  for _, other in ipairs(module.entries) do
    if other.class == entry.name then add_function(out, other, is_module and 2 or 3) end
  end
end

--- A module's page: what it is about, whatever else has functions, and then types.
---@param module table
---@return string
function M.page(module)
  local out, sections, types = { "# " .. code(module.name), "" }, {}, {}
  for _, entry in ipairs(module.entries) do
    assert(entry.kind ~= "function" or entry.class, entry.name .. " is in no class")
    if is_main(module, entry) then
      local place = 1
      while sections[place] and is_main(module, sections[place]) and entry.name ~= module.name do place = place + 1 end
      table.insert(sections, place, entry)
    elseif entry.kind ~= "function" then
      table.insert(entry.variable and sections or types, entry)
    end
  end
  for _, entry in ipairs(sections) do add_section(out, module, entry) end
  if #types > 0 then add(out, "## Types", "") end
  for _, entry in ipairs(types) do
    add(out, "### " .. code(entry.name), "")
    add_class(out, entry)
  end
  return table.concat(out, "\n")
end

return M
