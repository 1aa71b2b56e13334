-- names: what a name in code leads to: types, functions and fields of the reference, chapters, programs.
local M = {}

local names = {}
names.__index = names

--- Names of a site. Pages are files; an anchor is the name that stands there.
function M.new()
  return setmetatable({ targets = {}, topics = {}, programs = {} }, names)
end

function names:add(name, file, anchor)
  self.targets[name] = self.targets[name] or ("%s#%s"):format(file, anchor)
end

--- All that a module of the reference has, by each name that the texts use.
function names:add_module(module, file)
  self.topics[module.file] = file
  for _, entry in ipairs(module.entries) do
    self:add(entry.label, file, entry.label)
    self:add(entry.name, file, entry.label)
    if entry.class then self:add(entry.class .. entry.name:match "[.:][%w_]+$", file, entry.label) end
    for _, item in ipairs(entry.kind == "class" and entry.fields or {}) do
      local field = item.name:match "^[%a_][%w_]*"
      if field then
        local whole = entry.name .. "." .. field
        self:add(whole, file, whole)
        if entry.variable then self:add(entry.variable .. "." .. field, file, whole) end
      end
    end
  end
end

function names:add_chapter(name, file)
  self.topics["lua/doc/" .. name .. ".md"] = file
  self.topics[":help " .. name] = file
end

function names:add_program(name, file)
  self.programs[name] = ("%s#%s"):format(file, M.slug(name))
end

--- The anchor of a heading that is no name.
---@param text string
---@return string
function M.slug(text)
  return (text:lower():gsub("[^%w%s_-]", ""):gsub("%s+", "-"))
end

-- Where a piece of code leads as a whole.
function names:whole(text)
  if self.topics[text] then return self.topics[text] end
  local words = text:match "^p2pd%-lua (%l[%l ]*%l)" or text:match "^p2pd%-lua (%l+)"
  while words do
    if self.programs[words] then return self.programs[words] end
    words = words:match "^(.+) "
  end
end

--- Code with links in it.
---@param text string
---@param mark fun(href: string?, text: string): string makes a link, or, without a target, plain text
---@return string
function names:linked(text, mark)
  local name = text:match "^:help (.+)$"
  local target = self:whole(text) or name and self.targets[name]
  if target then return mark(target, text) end
  local out, place = {}, 1
  for from, token, to in text:gmatch "()([%a_][%w_.:]*[%w_])()" do
    local there = token:find "[.:]" and self.targets[token]
    if there then
      out[#out + 1] = mark(nil, text:sub(place, from - 1))
      out[#out + 1] = mark(there, token)
      place = to
    end
  end
  out[#out + 1] = mark(nil, text:sub(place))
  return table.concat(out)
end

return M
