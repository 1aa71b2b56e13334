-- The servers of a lab without the lab: p2pd-lua lab_servers.lua FOLDER, where their addresses are and where
-- `ip netns exec router` leads to a router. Prints when each answers, in seconds since they were started side by side;
-- then "ready". Ends with its standard input.
local process = require "p2pd.process"
local servers = require "p2pd.lab.servers"
local stdio = require "p2pd.stdio"
local task = require "p2pd.task"

local folder = ...
local ROUTER = { "ip", "netns", "exec", "router" }
local PATIENCE = 5

local function write(name, text)
  local file = assert(io.open(folder .. "/" .. name, "w"))
  file:write(text)
  file:close()
end

local function within(enter, argv)
  return table.move(argv, 1, #argv, #enter + 1, table.move(enter, 1, #enter, 1, {}))
end

local function start(server)
  local enter = server.where == "internet" and {} or ROUTER
  for name, text in pairs(server.files) do write(name, text) end
  if server.setup then
    write(server.name .. ".nft", server.setup)
    local nft <close> = assert(process.start(within(enter, { "nft", "-f", folder .. "/" .. server.name .. ".nft" })))
    for line in nft:lines() do print(line) end
  end
  local words = within(enter, server.argv)
  words.cwd = folder
  return assert(process.start(words))
end

local plan = assert(servers.plan {
  folder = folder,
  routers = {
    { name = "router", lan = "192.168.1.0/24", address = "192.168.1.1", portmap = true },
    { name = "without", lan = "192.168.2.0/24", address = "192.168.2.1" },
  },
})
write("settings.lua", servers.settings { clock_error = -2.5 })
local started <close> = setmetatable({}, { __close = function(self)
  for _, child in ipairs(self) do child:close() end
end })
local waiting <close> = task.group()
local began = task.now()
for place, server in ipairs(plan) do started[place] = start(server) end
for _, server in ipairs(plan) do
  waiting:spawn(function()
    assert(server.ready(PATIENCE, server.where ~= "internet" and ROUTER or nil))
    print(("%s %.3f"):format(server.name, task.now() - began))
  end)
end
for _, each in ipairs(waiting) do each:wait() end
print "ready"
io.stdout:flush()
local input <close> = stdio.reader(0)
while input:read() do end -- luacheck: ignore 542
