-- plumbing: what `ip`, `sh` and `mount` are told, so that a plan's namespaces become what the plan says. Pure texts.
--
-- In a router's namespace the veth pair nat0–nat1 leads to the router program, which reads and writes nat1 by a packet
-- socket. What comes in at wan0 or lan0 is routed into nat0 before the kernel looks at its own addresses, and what the
-- program writes comes out of nat0 and is routed to where it is addressed. Two addresses of nobody's tell the program
-- what to do with a frame: translate it, or (mark 1: the kernel has translated it for miniupnpd) only delay it.
local M = {}

local MAC = { nat0 = "02:00:00:00:00:01", nat1 = "02:00:00:00:00:02" }
local TRANSLATE = { mac = "02:00:00:00:00:03", ipv4 = "169.254.0.3", ipv6 = "fe80::3", table = 100 }
local DELAY = { mac = "02:00:00:00:00:04", ipv4 = "169.254.0.4", table = 101 }
local MARK = 1 -- of what the kernel has translated
local UPLINK_TABLE = 200 -- and the next ones: the routes of a host's uplinks

local text = {}
text.__index = text

local function new_text()
  return setmetatable({}, text)
end

function text:add(line, ...)
  self[#self + 1] = line:format(...)
end

function text:__tostring()
  return table.concat(self, "\n") .. "\n"
end

-- What holds in each namespace: set before devices come, so that they begin with it. An address is used at once (no
-- duplicate address detection, RFC 4862, 5.4), and packets may come from where no route leads back to.
local everywhere = {
  ["ipv6/conf/all/accept_dad"] = 0, ["ipv6/conf/default/accept_dad"] = 0, ["ipv6/conf/default/dad_transmits"] = 0,
  ["ipv6/conf/default/router_solicitations"] = 0,
  ["ipv4/conf/all/rp_filter"] = 0, ["ipv4/conf/default/rp_filter"] = 0,
}

-- Of those that forward. Each packet that dies gets its time-exceeded, not one a second.
local forwarding = {
  ["ipv4/ip_forward"] = 1, ["ipv6/conf/all/forwarding"] = 1, ["ipv4/conf/all/send_redirects"] = 0,
  ["ipv4/icmp_ratelimit"] = 0, ["ipv6/icmp/ratelimit"] = 0,
}

-- Neither ping nor a server at a port below 1024 needs a capability.
local of_hosts = { ["ipv4/ping_group_range"] = "0 0", ["ipv4/ip_unprivileged_port_start"] = 0 }

local of_pair = { ["ipv4/conf/nat0/accept_local"] = 1, ["ipv6/conf/nat1/disable_ipv6"] = 1 }

-- Else ARP for the external addresses takes up to 0.8 s.
local of_wan = { ["ipv4/neigh/wan0/proxy_delay"] = 0 }

local function sysctls(script, ...)
  for _, values in ipairs { ... } do
    local names = {}
    for name in pairs(values) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do script:add("echo %s >/proc/sys/net/%s", values[name], name) end
  end
end

-- The internet ------------------------------------------------------------------------------------------------------

--- What the keeper's own namespace, the internet, is set to: `{ ["ipv4/ip_forward"] = 1, … }`.
function M.internet_sysctls()
  local values = {}
  for _, list in ipairs { everywhere, forwarding } do
    for name, value in pairs(list) do values[name] = value end
  end
  return values
end

--- The servers' addresses: before any server starts. They are the loopback device's, as not every kernel has dummies.
---@param addresses string[]
function M.servers(addresses)
  local batch = new_text()
  batch:add "link set lo up"
  for _, address in ipairs(addresses) do
    batch:add(address:find ":" and "addr add %s/128 dev lo nodad" or "addr add %s/32 dev lo", address)
  end
  return tostring(batch)
end

local function make_links(batch, plan, pids)
  local function at(side)
    local pid = side.kind and pids[side.kind .. " " .. side.name]
    return ("%sindex %d"):format(pid and ("netns %d "):format(pid) or "", side.index)
  end
  for _, link in ipairs(plan.links) do
    local near, far = link[1], link[2]
    batch:add("link add name %s %s type veth peer name %s %s", near.device, at(near), far.device, at(far))
  end
end

-- What lies behind a router that is linked to the internet: its own prefixes, and those of a router behind it.
local function add_routes(batch, plan, router, device)
  local inner = plan.router[router.inner or ""]
  for _, behind in ipairs { router, inner } do
    if behind.ipv6 then batch:add("route add %s via %s dev %s", behind.lan.prefix6, router.wan.address6, device) end
    if not behind.translates then
      batch:add("route add %s via %s dev %s", behind.lan.prefix, router.wan.address, device)
    end
  end
end

--- All cables, and the internet's ends of them. `pids` says for "router NAME" and "host NAME" which process holds the
--- namespace.
function M.links(plan, pids)
  local batch = new_text()
  make_links(batch, plan, pids)
  local function near_end(device, base, base6)
    batch:add("addr add %s/24 dev %s", base, device)
    batch:add("addr add %s/64 dev %s nodad", base6, device)
    batch:add("link set %s up", device)
  end
  for _, router in ipairs(plan.routers) do
    if not router.front then
      local device = "r" .. router.number
      near_end(device, router.wan.gateway, router.wan.gateway6)
      add_routes(batch, plan, router, device)
    end
  end
  for _, host in ipairs(plan.hosts) do
    for _, link in ipairs(host.links) do
      if not plan.router[link.router] then near_end("h" .. host.number, link.gateway, link.gateway6) end
    end
  end
  return tostring(batch)
end

-- Routers -----------------------------------------------------------------------------------------------------------

-- What needs no other device. Rules may name devices that are still to come.
local function router_pair(router)
  local batch = new_text()
  batch:add "link set lo up"
  batch:add("link add nat0 address %s type veth peer name nat1 address %s", MAC.nat0, MAC.nat1)
  batch:add "link set nat0 addrgenmode none"
  batch:add "link set nat1 addrgenmode none"
  batch:add("rule add pref 10 iif lan0 to %s lookup local", router.lan.address)
  batch:add("rule add pref 10 iif lan0 to %s.255 lookup local", router.lan.base)
  for _, device in ipairs { "lan0", "wan0" } do
    batch:add("rule add pref 20 fwmark %d iif %s lookup %d", MARK, device, DELAY.table)
    batch:add("rule add pref 30 iif %s lookup %d", device, TRANSLATE.table)
  end
  batch:add "rule add pref 40 lookup local"
  batch:add "rule del pref 0"
  return tostring(batch)
end

local function router_devices(router, inner)
  local lan, wan, batch = router.lan, router.wan, new_text()
  batch:add "link set nat0 up"
  batch:add "link set nat1 up"
  for _, stranger in ipairs { TRANSLATE, DELAY } do
    batch:add("neigh add %s lladdr %s nud permanent dev nat0", stranger.ipv4, stranger.mac)
    batch:add("route add default via %s dev nat0 onlink table %d", stranger.ipv4, stranger.table)
  end
  batch:add("neigh add %s lladdr %s nud permanent dev nat0", TRANSLATE.ipv6, TRANSLATE.mac)
  batch:add("route add ::/0 via %s dev nat0 table %d", TRANSLATE.ipv6, TRANSLATE.table)
  if lan.bridge then
    batch:add "link add lan0 type bridge"
    for port = 1, lan.members do
      batch:add("link set lan%d master lan0", port)
      batch:add("link set lan%d up", port)
    end
  end
  if not lan.bridge and lan.members == 0 and not inner then batch:add "link add lan0 type bridge" end
  batch:add("addr add %s/%d dev lan0", lan.address, lan.length)
  if router.ipv6 or inner then batch:add("addr add %s/64 dev lan0 nodad", lan.address6) end
  batch:add "link set lan0 up"
  for _, address in ipairs(wan.external) do
    batch:add("addr add %s/%d dev wan0", address, wan.length)
    batch:add("neigh add proxy %s dev wan0", address)
  end
  batch:add("addr add %s/64 dev wan0 nodad", wan.address6)
  batch:add "link set wan0 up"
  batch:add("route add default via %s", wan.gateway)
  batch:add("route add ::/0 via %s", wan.gateway6)
  if inner then add_routes(batch, { router = {} }, inner, "lan0") end
  return tostring(batch)
end

local function router_rules6()
  local batch = new_text()
  for _, device in ipairs { "lan0", "wan0" } do
    batch:add("rule add pref 30 iif %s lookup %d", device, TRANSLATE.table)
  end
  return tostring(batch)
end

-- A script that holds a namespace: it makes ready what can be, says so, waits for the cables, and goes on.
local function holder(prepare, go_on)
  return tostring(prepare) .. "echo ready\nread -r go\n[ \"$go\" = go ]\n" .. tostring(go_on)
end

--- What holds a router's namespace and becomes the router program: a script, to be run in its folder of `files` with
--- the program's path as $0.
---@return string script, table<string, string> files
function M.router(plan, router)
  local prepare, go_on = new_text(), new_text()
  prepare:add "set -e"
  sysctls(prepare, everywhere, forwarding)
  prepare:add "ip -batch pair"
  sysctls(prepare, of_pair)
  sysctls(go_on, of_wan)
  go_on:add "ip -batch devices"
  go_on:add "ip -6 -batch rules6"
  go_on:add 'exec "$0" lab router'
  return holder(prepare, go_on), {
    pair = router_pair(router), devices = router_devices(router, plan.router[router.inner or ""]),
    rules6 = router_rules6(),
  }
end

--- How a router that runs gets other external addresses: a batch for its namespace.
---@param old table its outer side as it was (p2pd.lab.topology)
---@param new table and as it is to be
function M.readdress(old, new)
  local batch = new_text()
  for i = #old.external, 1, -1 do -- the first address takes the others with it
    batch:add("neigh del proxy %s dev wan0", old.external[i])
    batch:add("addr del %s/%d dev wan0", old.external[i], old.length)
  end
  for _, address in ipairs(new.external) do
    batch:add("addr add %s/%d dev wan0", address, new.length)
    batch:add("neigh add proxy %s dev wan0", address)
  end
  batch:add("route replace default via %s", new.gateway)
  return tostring(batch)
end

-- Hosts -------------------------------------------------------------------------------------------------------------

-- The first link is the default one; what has another link's address goes out by that link.
local function host_devices(host)
  local batch = new_text()
  batch:add "link set lo up"
  for place, link in ipairs(host.links) do
    local own = UPLINK_TABLE + place
    local function family(address, gateway, length, default, nodad)
      batch:add("addr add %s/%d dev %s%s", address, length, link.device, nodad)
      batch:add("link set %s up", link.device)
      batch:add("route add %s via %s dev %s metric %d", default, gateway, link.device, 100 + place)
      if #host.links > 1 then batch:add("route add %s via %s dev %s table %d", default, gateway, link.device, own) end
    end
    family(link.address, link.gateway, link.length, "default", "")
    if #host.links > 1 then batch:add("rule add from %s lookup %d", link.address, own) end
    if link.address6 then family(link.address6, link.gateway6, 64, "::/0", " nodad") end
  end
  return tostring(batch)
end

local function host_rules6(host)
  local batch = new_text()
  for place, link in ipairs(host.links) do
    if link.address6 then batch:add("rule add from %s lookup %d", link.address6, UPLINK_TABLE + place) end
  end
  return tostring(batch)
end

-- fstab(5): white space is written as octal numbers.
local function mounts(list)
  local table_of = new_text()
  for _, mount in ipairs(list) do
    local from, to = mount[1]:gsub("[%s\\]", function(c) return ("\\%03o"):format(c:byte()) end), mount[2]
    table_of:add("%s %s none bind 0 0", from, to)
  end
  return tostring(table_of)
end

--- What holds a host's namespaces: a script, to be run in its folder of `files`, as the first process of the host's
--- pid namespace: it takes in the orphans.
---@param binds string[][] { from, to }: files that the host sees in the place of the machine's
---@return string script, table<string, string> files
function M.host(host, binds)
  local prepare, go_on = new_text(), new_text()
  prepare:add "set -e"
  prepare:add "mount -t proc proc /proc"
  sysctls(prepare, everywhere, of_hosts)
  prepare:add("hostname %s || :", host.name)
  prepare:add "mount -a -T mounts"
  go_on:add "ip -batch devices"
  if #host.links > 1 then go_on:add "ip -6 -batch rules6" end
  go_on:add "echo up"
  go_on:add "while :; do sleep infinity & wait; done"
  return holder(prepare, go_on), {
    devices = host_devices(host), rules6 = host_rules6(host), mounts = mounts(binds),
  }
end

return M
