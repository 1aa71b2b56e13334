-- xml: whether a text is well-formed XML, as far as our pictures and pages go: no DTD, CDATA, processing instructions.
local M = {}

local ENTITIES = { amp = "&", lt = "<", gt = ">", quot = '"' }

local function text_of(raw)
  assert(not raw:find "[<>]", "a bare angle bracket: " .. raw)
  return (raw:gsub("&([^;&]*);?", function(name)
    local number = math.tointeger(tonumber(name:match "^#(%d+)$"))
    return number and utf8.char(number) or assert(ENTITIES[name], "no entity: &" .. name)
  end))
end

local function attributes_of(raw)
  local found, place = {}, 1
  while raw:find("%S", place) do
    local name, value, after = raw:match('^%s+([%a:][%w:-]*)="([^"]*)"()', place)
    assert(name and not found[name], "attributes: " .. raw)
    found[name], place = text_of(value), after
  end
  return found
end

--- All that a reader sees of it, in its order.
---@param text string that `elements` takes
---@return string
function M.text(text)
  return text_of((text:gsub("<[^<>]*>", "")))
end

--- Its elements in a row, each with name, attributes, depth, text (of its own, entities resolved); throws at the first
--- thing that is wrong.
---@param text string
---@return table[]
function M.elements(text)
  assert(utf8.len(text), "no UTF-8")
  assert(not text:find "[%z\1-\8\11\12\14-\31]" and not text:find "\xEF\xBF[\xBE\xBF]", "a character that XML has not")
  local all, open, place = {}, {}, 1
  while true do
    local from, to, slash, name, raw, empty = text:find("<(/?)(%a[%w:]*)([^<>]-)(/?)>", place)
    local between = text_of(text:sub(place, from and from - 1))
    if open[1] then open[#open].text = open[#open].text .. between end
    assert(open[1] or not between:find "%S", "text outside of the root")
    if not from then break end
    if slash == "/" then
      local last = assert(table.remove(open), "</" .. name .. "> ends nothing")
      assert(last.name == name and raw == "", ("</%s> ends <%s>"):format(name, last.name))
    else
      assert(open[1] or #all == 0, "a second root")
      local element = { name = name, attributes = attributes_of(raw), depth = #open, text = "" }
      all[#all + 1] = element
      if empty == "" then open[#open + 1] = element end
    end
    place = to + 1
  end
  assert(#open == 0, "an element is not ended")
  assert(#all > 0, "nothing is there")
  return all
end

return M
