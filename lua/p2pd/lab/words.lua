-- words: a lab as people read it.
local M = {}

--- What there is in a lab, as lab:status() tells it.
---@param there table
---@return string
function M.status(there)
  local lines = { "lab " .. there.name }
  local function add(line, ...) lines[#lines + 1] = line:format(...) end
  for _, router in ipairs(there.routers) do
    add("  router %-10s %-26s %s, inside %s%s%s%s", router.name, router.options.nat,
      table.concat(router.external, " "), router.lan, router.carrier and ", behind " .. router.carrier or "",
      router.options.up and "" or ", cut", router.runs and "" or ", has ended")
  end
  for _, host in ipairs(there.hosts) do
    for _, link in ipairs(host.links) do
      add("  host   %-10s behind %-19s %s %s", host.name, link.router, link.ipv4, link.ipv6 or "")
    end
  end
  for _, server in ipairs(there.servers) do
    add("  server %-10s %s%s", server.name, server.ipv4, server.runs and "" or ", has ended")
  end
  lines[#lines + 1] = ""
  return table.concat(lines, "\n")
end

return M
