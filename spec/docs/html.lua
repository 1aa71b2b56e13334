-- html: what becomes of the converter's HTML: anchors, links, and colours of Lua.
local names = require "spec.docs.names"

local M = {}

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
local CHARACTERS = { amp = "&", lt = "<", gt = ">", quot = '"' }

function M.escape(text)
  return (text:gsub('[&<>"]', ENTITIES))
end

--- The text of a piece of HTML.
function M.text(html)
  return (html:gsub("<[^<>]*>", ""):gsub("&(#?)(%w+);", function(number, name)
    return number == "#" and utf8.char(tonumber(name)) or CHARACTERS[name]
  end))
end

local function mark(href, text)
  text = M.escape(text)
  return href and text ~= "" and ('<a href="%s">%s</a>'):format(href, text) or text
end

-- Lua ---------------------------------------------------------------------------------------------------------------

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true until
  while]]):gmatch "%a+" do
  KEYWORDS[word] = true
end

-- The first of these that is found where the text goes on.
local LEXEMES = {
  { "comment", "^%-%-[^\n]*" }, { "string", '^"[^"\n]*"' }, { "string", "^%[(=*)%[.-%]%1%]" },
  { "word", "^[%a_][%w_]*" }, { "other", "^%s+" }, { "other", "^." },
}

local function coloured(text)
  local out, place = {}, 1
  while place <= #text do
    for _, lexeme in ipairs(LEXEMES) do
      local from, to = text:find(lexeme[2], place)
      if from then
        local piece = text:sub(from, to)
        local kind = lexeme[1] == "word" and (KEYWORDS[piece] and "keyword" or "other") or lexeme[1]
        piece = M.escape(piece)
        out[#out + 1] = kind == "other" and piece or ('<span class="%s">%s</span>'):format(kind, piece)
        place = to + 1
        break
      end
    end
  end
  return table.concat(out)
end

-- Pages -------------------------------------------------------------------------------------------------------------

-- A heading's anchor: the name that it shows, or its words.
local function anchor_of(inner)
  local text = M.text(inner)
  local name = inner:find "^<code>" and text:match "^[^%s(]+%f[%z(]"
  return name or names.slug(text)
end

local elements = {}

for level = 1, 6 do
  elements["h" .. level] = function(self, _, inner)
    local anchor = anchor_of(inner)
    assert(not self.anchors[anchor], "two headings of one page have the anchor " .. anchor)
    self.anchors[anchor] = true
    self.heading = anchor
    self.headings[#self.headings + 1] = { level = level, anchor = anchor, text = M.text(inner):match "^[^(]+" }
    return ('<h%d id="%s">%s<a class="anchor" href="#%s" aria-label="link to this place">#</a></h%d>'):format(level,
      M.escape(anchor), inner, M.escape(anchor), level)
  end
end

function elements.pre(_, _, inner)
  local language, code = inner:match '^<code class="language%-(%a+)">(.-)</code>$'
  code = code or inner:match "^<code>(.-)</code>$"
  return ("<pre><code>%s</code></pre>"):format(language == "lua" and coloured(M.text(code)) or M.escape(M.text(code)))
end

function elements.code(self, _, inner)
  return ("<code>%s</code>"):format(self.names:linked(M.text(inner):gsub("%s+", " "), mark))
end

function elements.a(self, attributes, inner)
  local target, anchor = attributes:match 'href="([^"#]*)(#?[^"]*)"'
  local chapter = target:match "^([%w_-]+)%.md$"
  local file = chapter and self.names.topics["lua/doc/" .. chapter .. ".md"]
  assert(target == "" or file, "a link that leads nowhere in these pages: " .. target)
  return ('<a href="%s%s">%s</a>'):format(file or "", anchor, inner)
end

elements["table"] = function(self, _, inner)
  return ('<div class="wide"><table>%s</table></div>'):format(self:convert(inner))
end

-- Gives a list's item the anchor that a field or an option has.
local function item_anchor(self, html)
  local name = M.text(html:match "^%s*<strong><code>(.-)</code>" or "")
  local field, option = name:match "^[%a_][%w_]*", name:match "^%-%-[%w-]+"
  local anchor = self.classes[self.heading] and field and self.heading .. "." .. field
    or option and self.heading .. option
  if not anchor or self.anchors[anchor] then return "<li>" end
  self.anchors[anchor] = true
  return ('<li id="%s">'):format(M.escape(anchor))
end

local page = {}
page.__index = page

function page:convert(html)
  local out, place = {}, 1
  while true do
    local from, to, name, attributes = html:find("<(%a%w*)([^<>]*)>", place)
    out[#out + 1] = html:sub(place, (from or 0) - 1)
    if not from then break end
    place = to + 1
    if name == "li" then
      out[#out + 1] = item_anchor(self, html:sub(place))
    elseif elements[name] then
      local stop, after = html:find("</" .. name .. ">", place, true)
      out[#out + 1] = elements[name](self, attributes, html:sub(place, stop - 1))
      place = after + 1
    else
      out[#out + 1] = html:sub(from, to)
    end
  end
  return table.concat(out)
end

--- The body of a page, and its headings: { level =, anchor =, text = }.
---@param html string what the converter gave
---@param known table what spec.docs.names knows
---@param classes table<string, true> the anchors below which items are fields
---@return string body, table[] headings
function M.page(html, known, classes)
  local self = setmetatable({ names = known, classes = classes, anchors = {}, headings = {} }, page)
  return self:convert(html), self.headings
end

return M
