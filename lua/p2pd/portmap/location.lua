-- location: the URLs that routers give. They are made of an IP address, never of a name, and short.
local M = {}

local LENGTH_MAX = 256

--- The IP address of a URL, without brackets; nil when it is not such a URL.
---@return string?
function M.host(url)
  if type(url) ~= "string" or #url > LENGTH_MAX or url:find "[^%g]" then return nil end
  local host, rest = url:match "^http://(%d+%.%d+%.%d+%.%d+)([:/].*)$"
  if not host then host, rest = url:match "^http://%[([%x:.]+)%]([:/].*)$" end
  if not host or not (rest:find "^/" or rest:find "^:%d%d?%d?%d?%d?/") then return nil end
  return host
end

return M
