-- router_world: three network namespaces, a host, a router and an internet, with the router's process in the middle.
--
--   host 192.168.1.10, 2c0f:30:3:1::10 ── 192.168.1.1 router 30.2.1.2 ── 30.2.1.1 internet: 30.1.0.1, 2c0f:30:1::1
--
-- It is what p2pd.lab.topology plans and p2pd.lab.plumbing says, without the keeper, so that a spec can take it apart.
-- Needs root. To be used inside of tasks or outside of them.
local cjson = require "cjson"
local luv = require "luv"
local plumbing = require "p2pd.lab.plumbing"
local program = require "spec.support.program"
local topology = require "p2pd.lab.topology"

local M = {}

local SERVERS = { "30.1.0.1", "30.1.0.2", "2c0f:30:1::1" }
local NOBODY = "30.9.9.9" -- routed to the router, which knows no way to it: so a packet to it dies of its hops

--- Runs a program, as its arguments; throws when it fails, gives its output.
function M.run(...)
  local it = program.run { ... }
  if it.status ~= 0 then error(("%s: %s%s"):format(table.concat({ ... }, " "), it.out, it.err), 2) end
  return it.out
end

--- Why this cannot be used here, or nil.
function M.missing()
  if luv.getuid() ~= 0 then return "namespaces are made by root" end
  if program.run({ "/bin/sh", "-c", "ip -V && ping -V" }).status ~= 0 then return "ip or ping is missing" end
end

-- Asks a process that answers each line with one of JSON.
local function ask(child, question)
  local seen = #child.out
  child:write(cjson.encode(question) .. "\n")
  local answered = program.await(function()
    return child.status or child.out:find("\n", seen + 1, true)
  end, 70)
  local line = child.out:match("^([^\n]*)\n", seen + 1)
  if not answered or not line then error(("no answer: %s%s"):format(child.out, child.err), 3) end
  return cjson.decode(line)
end

local end_ = {}

--- A call of apart.lua's: `host:recv(socket, 0.5)`.
end_.__index = function(self, name)
  return function(_, ...)
    local results = ask(self.child, { name, ... })
    for i, value in ipairs(results) do
      if value == cjson.null then value = nil end
      results[i] = value
    end
    assert(results[1], results[2])
    return table.unpack(results, 2, 5)
  end
end

local world = {}
world.__index = world

local function within(namespace, ...)
  return { "ip", "netns", "exec", namespace, ... }
end

--- Makes the namespaces and starts all processes.
function M.start()
  local self = setmetatable({ names = {}, children = {}, folders = {}, sigpipe = luv.new_signal() }, world)
  self.sigpipe:start("sigpipe", function() end) -- a child that has ended is told of by `ask`
  self.sigpipe:unref()
  local ok, message = pcall(self.build, self)
  if not ok then
    self:stop()
    error(message, 0)
  end
  return self
end

-- Starts the script that holds a namespace, in a folder of its files; `...` goes before the shell.
function world:hold(name, script, files, ...)
  local folder = program.folder()
  self.folders[#self.folders + 1] = folder
  for file, text in pairs(files) do folder:write(file, text) end
  local argv = within(self.names[name], ...)
  table.move({ "/bin/sh", "-c", script, program.path }, 1, 4, #argv + 1, argv)
  argv.cwd = tostring(folder)
  local child = self:start(argv)
  child:expect "ready\n"
  return child
end

function world:build()
  local plan = assert(topology.plan {
    routers = { router = { nat = "port-restricted/equal", addresses = 2 } }, hosts = { host = "router" },
  })
  self.plan = plan
  for _, name in ipairs { "host", "router", "internet" } do
    self.names[name] = ("p2pd-%d-%s"):format(luv.os_getpid(), name)
    M.run("ip", "netns", "add", self.names[name])
  end
  for name, value in pairs(plumbing.internet_sysctls()) do
    self:sh("internet", ("echo %s >/proc/sys/net/%s"):format(value, name))
  end
  self.router = self:hold("router", plumbing.router(plan, plan.router.router))
  local script, files = plumbing.host(plan.host.host, {})
  -- It gives itself a name, and a /proc; what it starts ends with it.
  self.holder = self:hold("host", script, files, "unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child")
  self:ip("internet", plumbing.servers(SERVERS))
  self:ip("internet", plumbing.links(plan, { ["router router"] = self.router.pid, ["host host"] = self.holder.pid }))
  self:ip("internet", ("route add %s dev r1\n"):format(NOBODY))
  self.router:write "go\n"
  self.holder:write "go\n"
  self.holder:expect "up\n"
  for _, name in ipairs { "host", "internet" } do
    local child = self:start(within(self.names[name], "lua5.4", "spec/support/apart.lua"))
    self[name] = setmetatable({ child = child }, end_)
  end
end

function world:start(argv)
  local child = program.start(argv)
  self.children[#self.children + 1] = child
  return child
end

--- Runs a batch of ip's in a namespace.
function world:ip(name, batch)
  local argv = within(self.names[name], "ip", "-batch", "-")
  argv.input = batch
  local it = program.run(argv)
  if it.status ~= 0 then error(("ip in %s: %s%s\n%s"):format(name, it.out, it.err, batch), 2) end
end

--- Runs a script of sh in a namespace.
function world:sh(name, script)
  return M.run(table.unpack(within(self.names[name], "sh", "-e", "-c", script)))
end

--- Runs ping on the host; gives its output and the times in ms, sorted.
function world:ping(...)
  local out = program.run(within(self.names.host, "ping", ...)).out
  local times = {}
  for time in out:gmatch "time=([%d.]+) ms" do times[#times + 1] = tonumber(time) end
  table.sort(times)
  return out, times
end

--- Asks the router's process.
function world:ask(question)
  return ask(self.router, question)
end

--- Makes the router what the options say, without mappings.
function world:configure(options)
  local plan, router = self.plan, self.plan.router.router
  local answer = self:ask {
    ["do"] = "configure", options = options, flush = true, inside = topology.inside(plan, router),
    external = { table.unpack(router.wan.external, 1, options.addresses or 1) },
  }
  if not answer.ok then error(answer.message, 2) end
  return answer
end

function world:stats()
  return self:ask({ ["do"] = "stats" }).stats
end

--- Ends all processes and removes the namespaces.
function world:stop()
  for _, child in ipairs(self.children) do child:finish_input() end
  if self.holder then self.holder:kill "sigterm" end
  for _, child in ipairs(self.children) do
    pcall(child.wait, child, 5) -- so that sanitizers have their say
    child:close()
  end
  for _, name in pairs(self.names) do program.run { "ip", "netns", "del", name } end
  for _, folder in ipairs(self.folders) do getmetatable(folder).__close(folder) end
  self.sigpipe:close()
  luv.run "nowait"
end

return M
