-- markup: text that is shown in XML or HTML, wherever it comes from. Pure.
local M = {}

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

--- The text for an element or an attribute in quotes; what XML cannot hold is left out of it.
---@param text any
---@return string
function M.escape(text)
  text = tostring(text)
  if not utf8.len(text) then text = text:gsub("[\x80-\xff]", "?") end
  text = text:gsub("\xEF\xBF[\xBE\xBF]", "?"):gsub("[%z\1-\8\11-\31\127]", " ")
  return (text:gsub("[&<>\"']", entities))
end

return M
