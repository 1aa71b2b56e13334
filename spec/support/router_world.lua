-- router_world: three network namespaces, a host, a router and an internet, with the router's process in the middle.
--
--   host 192.168.1.10, 2c0f:30:3:1::10 ── 192.168.1.1 router 30.2.1.2 ── 30.2.1.1 internet: 30.1.0.1, 2c0f:30:1::1
--
-- Needs root. To be used inside of tasks or outside of them.
local cjson = require "cjson"
local luv = require "luv"
local program = require "spec.support.program"

local M = {}

local everywhere = [[
  echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
  echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
  echo 0 >/proc/sys/net/ipv6/conf/default/dad_transmits
  echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
  echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter
  echo 1 >/proc/sys/net/ipv4/ip_forward
  echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
  echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
]]

local host = [[
ip -batch - <<END
link set lo up
addr add 192.168.1.10/24 dev eth0
addr add 2c0f:30:3:1::10/64 dev eth0 nodad
link set eth0 up
route add default via 192.168.1.1
route add ::/0 via 2c0f:30:3:1::1
END
]]

local internet = [[
ip -batch - <<END
link set lo up
addr add 30.2.1.1/24 dev r1
addr add 2c0f:30:2:1::1/64 dev r1 nodad
link set r1 up
addr add 30.1.0.1/32 dev lo
addr add 30.1.0.2/32 dev lo
addr add 2c0f:30:1::1/128 dev lo
route add 30.9.9.9/32 dev r1
route add 30.3.1.0/24 via 30.2.1.2
route add 2c0f:30:3:1::/64 via 2c0f:30:2:1::2
END
]]

-- Between nat0 and nat1 is the router's process (core/router.h). :03 and :04 are nobody's addresses.
local router = [[
ip -batch - <<END
link set lo up
link add nat0 address 02:00:00:00:00:01 type veth peer name nat1 address 02:00:00:00:00:02
link set nat0 addrgenmode none
link set nat1 addrgenmode none
END
echo 1 >/proc/sys/net/ipv4/conf/nat0/accept_local
echo 1 >/proc/sys/net/ipv6/conf/nat1/disable_ipv6
echo 0 >/proc/sys/net/ipv4/neigh/wan0/proxy_delay
ip -batch - <<END
link set nat0 up
link set nat1 up
addr add 192.168.1.1/24 dev lan0
addr add 2c0f:30:3:1::1/64 dev lan0 nodad
link set lan0 up
addr add 30.2.1.2/24 dev wan0
addr add 30.2.1.3/24 dev wan0
addr add 2c0f:30:2:1::2/64 dev wan0 nodad
link set wan0 up
route add default via 30.2.1.1
route add ::/0 via 2c0f:30:2:1::1
neigh add 169.254.0.3 lladdr 02:00:00:00:00:03 nud permanent dev nat0
neigh add 169.254.0.4 lladdr 02:00:00:00:00:04 nud permanent dev nat0
neigh add fe80::3 lladdr 02:00:00:00:00:03 nud permanent dev nat0
route add default via 169.254.0.3 dev nat0 onlink table 100
route add default via 169.254.0.4 dev nat0 onlink table 101
route add ::/0 via fe80::3 dev nat0 table 100
rule add pref 10 iif lan0 to 192.168.1.1 lookup local
rule add pref 20 fwmark 1 iif lan0 lookup 101
rule add pref 20 fwmark 1 iif wan0 lookup 101
rule add pref 30 iif lan0 lookup 100
rule add pref 30 iif wan0 lookup 100
rule add pref 40 lookup local
rule del pref 0
neigh add proxy 30.2.1.2 dev wan0
neigh add proxy 30.2.1.3 dev wan0
END
ip -6 -batch - <<END
rule add pref 30 iif lan0 lookup 100
rule add pref 30 iif wan0 lookup 100
END
]]

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
  local self = setmetatable({ names = {}, children = {}, sigpipe = luv.new_signal() }, world)
  self.sigpipe:start("sigpipe", function() end) -- a child that has ended is told of by `ask`
  self.sigpipe:unref()
  local ok, message = pcall(self.build, self)
  if not ok then
    self:stop()
    error(message, 0)
  end
  return self
end

function world:build()
  for _, name in ipairs { "host", "router", "internet" } do
    self.names[name] = ("p2pd-%d-%s"):format(luv.os_getpid(), name)
    M.run("ip", "netns", "add", self.names[name])
    self:sh(name, everywhere)
  end
  local names = self.names
  -- The ends need numbers that differ, or IPv6 begins late: the kernel takes them for devices without another end.
  M.run("ip", "link", "add", "eth0", "netns", names.host, "index", "101", "type", "veth", "peer", "name", "lan0",
    "netns", names.router, "index", "102")
  M.run("ip", "link", "add", "wan0", "netns", names.router, "index", "103", "type", "veth", "peer", "name", "r1",
    "netns", names.internet, "index", "104")
  self:sh("router", router)
  self:sh("host", host)
  self:sh("internet", internet)
  self.router = self:child("router", program.path, "-e", 'require("p2pd.lab.router")()')
  self.host = setmetatable({ child = self:child("host", "lua5.4", "spec/support/apart.lua") }, end_)
  self.internet = setmetatable({ child = self:child("internet", "lua5.4", "spec/support/apart.lua") }, end_)
end

function world:child(name, ...)
  local child = program.start(within(self.names[name], ...))
  self.children[#self.children + 1] = child
  return child
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
  local answer = self:ask {
    ["do"] = "configure", options = options, external = { "30.2.1.2", options.addresses and "30.2.1.3" },
    inside = { "192.168.1.0/24", "2c0f:30:3:1::/64" }, flush = true,
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
  for _, child in ipairs(self.children) do
    pcall(child.wait, child, 5) -- so that sanitizers have their say
    child:close()
  end
  for _, name in pairs(self.names) do program.run { "ip", "netns", "del", name } end
  self.sigpipe:close()
  luv.run "nowait"
end

return M
