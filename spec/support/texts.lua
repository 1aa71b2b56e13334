-- texts: what is in a text, and what is not; a failure shows all of it.
local M = {}

function M.has(text, part)
  if not tostring(text):find(part, 1, true) then error(("'%s' is not in:\n%s"):format(part, text), 2) end
end

function M.has_not(text, part)
  if tostring(text):find(part, 1, true) then error(("'%s' is in:\n%s"):format(part, text), 2) end
end

return M
