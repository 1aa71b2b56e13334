-- servers: the real servers of a lab: how each is started, and the settings with which a host uses them.
--
-- All of them run in the foreground, as uid 0 of whatever user namespace they are in, and write nowhere but into the
-- lab's folder and to standard error.
local luv = require "luv"
local process = require "p2pd.process"
local finder = require "p2pd.lab.finder"
local probe = require "p2pd.lab.probe"

local M = {}

local PORTS = { mqtt = 1883, stun = 3478, stun_alternate = 3479, ntp = 123, nat_pmp = 5351, igd = 5000 }
local USER, PASSWORD, REALM = "lab", "lab", "lab"
local STRATUM = 2 -- of the clocks, as of servers on the Internet

--- The names of the addresses that servers have, by their last number. coturn has two.
M.NAMES = { "broker1", "broker2", "coturn", "coturn-other", "ntp1", "ntp2", "ntp3", "ntp4" }
local STUN, STUN_OTHER = 3, 4

local function ipv4(number) return "30.1.0." .. number end
local function ipv6(number) return "2c0f:30:1::" .. number end

-- The names that match, each with its number.
local function named(pattern)
  local place = 0
  return function()
    repeat place = place + 1 until not M.NAMES[place] or M.NAMES[place]:find(pattern)
    return M.NAMES[place], place
  end
end

local function lines(...)
  return table.concat({ ... }, "\n") .. "\n"
end

-- Configurations ------------------------------------------------------------------------------------------------------

local function mosquitto_conf(number)
  return lines(
    "user root", -- else it becomes another, who may not be in this user namespace
    ("listener %d %s"):format(PORTS.mqtt, ipv4(number)),
    ("listener %d %s"):format(PORTS.mqtt, ipv6(number)),
    "allow_anonymous true",
    "persistence false",
    "sys_interval 0",
    "log_dest stderr")
end

-- Two addresses and two ports let it answer STUN's change requests (RFC 5780, section 4); relays for UDP (RFC 8656) and
-- TCP (RFC 6062) lie on the address that the client came to.
local function coturn_conf()
  return lines(
    "listening-ip=" .. ipv4(STUN),
    "listening-ip=" .. ipv4(STUN_OTHER),
    "listening-ip=" .. ipv6(STUN),
    "listening-ip=" .. ipv6(STUN_OTHER),
    "listening-port=" .. PORTS.stun,
    "alt-listening-port=" .. PORTS.stun_alternate,
    "min-port=49152", -- few ports for relays, as it lists them all before it answers: these take 10 ms, all 80
    "max-port=51199",
    "lt-cred-mech",
    ("user=%s:%s"):format(USER, PASSWORD),
    "realm=" .. REALM,
    "no-tls",
    "no-dtls",
    "no-cli",
    "relay-threads=0", -- one thread does all, and starts sooner
    "userdb=:memory:", -- SQLite's name for no file
    "log-file=stdout",
    "pidfile=coturn.pid")
end

local function miniupnpd_conf(router, place)
  return lines(
    "ext_ifname=wan0",
    "listening_ip=lan0",
    "port=" .. PORTS.igd,
    "enable_upnp=yes",
    "enable_natpmp=yes",
    "ipv6_disable=yes",
    "secure_mode=yes", -- hosts map ports to themselves alone
    "min_lifetime=1",
    "max_lifetime=86400",
    "friendly_name=lab " .. router.name,
    ("uuid=2c0f0030-0000-4000-8000-%012d"):format(place),
    "upnp_table_name=portmap",
    "upnp_nat_table_name=portmap",
    "upnp_forward_chain=forwards",
    "upnp_nat_chain=maps",
    "upnp_nat_postrouting_chain=peers",
    ("allow 1024-65535 %s 1-65535"):format(router.lan),
    "deny 0-65535 0.0.0.0/0 0-65535")
end

-- What miniupnpd maps is translated by the kernel. Packets of such connections get the mark 1, by which they are
-- routed to the router program for the link's delay and loss alone; from it they come back as what they are to be.
-- Loaded once more, it forgets what was mapped.
local miniupnpd_nft = [[
table inet portmap
delete table inet portmap
table inet portmap {
  chain translated {
    type filter hook prerouting priority raw
    iifname "nat0" notrack
  }
  chain prerouting {
    type nat hook prerouting priority dstnat
    jump maps
  }
  chain mapped {
    type filter hook prerouting priority dstnat + 10
    iifname { "lan0", "wan0" } ct status dnat meta mark set 1
  }
  chain forward {
    type filter hook forward priority filter
    jump forwards
  }
  chain postrouting {
    type nat hook postrouting priority srcnat
    jump peers
  }
  chain maps {}
  chain forwards {}
  chain peers {}
}
]]

-- The plan ------------------------------------------------------------------------------------------------------------

-- A command in a mount namespace of its own, to run when the shell has mounted something there.
local function after_mount(mount, argv)
  return table.move(argv, 1, #argv, 6, { "unshare", "--mount", "sh", "-c", mount .. ' && exec "$0" "$@"' })
end

-- Asks by another process, which is started by way of `enter`, a command's beginning that leads into a namespace.
local function ask_within(enter, protocol, ip, port, timeout)
  local question = ('print((require "p2pd.lab.probe".ask(%q, %q, %d, %f)))'):format(protocol, ip, port, timeout)
  local argv = table.move({ luv.exepath(), "-e", question }, 1, 3, #enter + 1, table.move(enter, 1, #enter, 1, {}))
  local child <close>, message, code = process.start(argv)
  if not child then return nil, message, code end
  local said
  for line in child:lines() do said = line end
  if said == "true" then return true end
  return nil, ("ETIMEDOUT: nothing speaks %s at %s port %d (%s)"):format(protocol, ip, port, said), "ETIMEDOUT"
end

local function with_probe(server, protocol, ip, port)
  function server.ready(timeout, enter)
    if enter then return ask_within(enter, protocol, ip, port, timeout) end
    return probe.ask(protocol, ip, port, timeout)
  end
  return server
end

local function broker(programs, folder, name, number)
  return with_probe({
    name = name, where = "internet", package = "mosquitto",
    argv = { programs:find("mosquitto", "mosquitto"), "-c", ("%s/%s.conf"):format(folder, name) },
    files = { [name .. ".conf"] = mosquitto_conf(number) },
  }, "mqtt", ipv4(number), PORTS.mqtt)
end

local function coturn(programs)
  return with_probe({
    name = "coturn", where = "internet", package = "coturn",
    -- By names in its own folder, which it keeps while it runs: where it finds no settings, since the lab ends while it
    -- starts, it writes into the machine's folders.
    argv = { programs:find("turnserver", "coturn"), "-c", "coturn.conf" },
    files = { ["coturn.conf"] = coturn_conf() },
  }, "stun", ipv4(STUN), PORTS.stun)
end

-- Where AppArmor is on, chronyd may read and write in few places, so its configuration is in its arguments, and the
-- one file that it insists on lies in its own folder, with something else mounted there.
local function clock(programs, name, number)
  local chronyd = {
    programs:find("chronyd", "chrony"), "-d", "-x", -- in the foreground, and the machine's clock is left alone
    "-u", "root", "bindaddress " .. ipv4(number), "bindaddress " .. ipv6(number), "port " .. PORTS.ntp, "allow",
    "local stratum " .. STRATUM, "cmdport 0", "bindcmdaddress /", "pidfile /var/lib/chrony/chronyd.pid",
  }
  return with_probe({
    name = name, where = "internet", package = "chrony", files = {},
    argv = after_mount("mount -t tmpfs tmpfs /var/lib/chrony", chronyd),
  }, "ntp", ipv4(number), PORTS.ntp)
end

-- In the foreground it logs to standard error, but also, every detail, to the machine's log: which it must not reach.
local function portmap(programs, folder, router, place)
  local name = "portmap-" .. router.name
  local miniupnpd = {
    programs:find("miniupnpd", "miniupnpd-nftables"), "-d", "-f", ("%s/%s.conf"):format(folder, name),
    "-P", ("%s/%s.pid"):format(folder, name),
  }
  return with_probe({
    name = name, where = router.name, package = "miniupnpd-nftables",
    argv = after_mount('[ ! -e /dev/log ] || mount --bind /dev/null "$(readlink -f /dev/log)"', miniupnpd),
    files = { [name .. ".conf"] = miniupnpd_conf(router, place) },
    setup = miniupnpd_nft,
  }, "nat-pmp", router.address, PORTS.nat_pmp)
end

---@class p2pd.lab.Server
---@field name string
---@field where string "internet", or the name of the router in whose namespace it runs
---@field package string Debian's, that has it
---@field argv string[] to be run in the folder of its files
---@field files table<string, string> what it reads: text by path below the folder
---@field setup string? what `nft -f` is to load before it starts, where it runs
---@field ready fun(timeout: number, enter: string[]?): true?, string?, string? waits until it answers; `enter` is the
---  beginning of a command that leads to where it runs, for callers who are elsewhere

---@class p2pd.lab.ServerOptions
---@field folder string an absolute path
---@field internet boolean? false: no servers in the internet, but only those on routers
---@field routers {name: string, lan: string, address: string, portmap: boolean?}[]? `lan` as in "192.168.1.0/24";
---  `address` is the router's own one there

--- The servers of a lab: two brokers, coturn, four clocks, and miniupnpd on each of the `routers` that has `portmap`.
---@param options p2pd.lab.ServerOptions
---@param programs table a p2pd.lab.finder
---@return p2pd.lab.Server[]
function M.make(options, programs)
  local folder, list = options.folder, {}
  if options.internet ~= false then
    list[1] = coturn(programs) -- it takes longest to start, so it comes first
    for name, number in named "^broker" do list[#list + 1] = broker(programs, folder, name, number) end
    for name, number in named "^ntp" do list[#list + 1] = clock(programs, name, number) end
  end
  for place, router in ipairs(options.routers or {}) do
    if router.portmap then list[#list + 1] = portmap(programs, folder, router, place) end
  end
  return list
end

--- The same, where their programs are there.
---@param options p2pd.lab.ServerOptions
---@return p2pd.lab.Server[]? plan, string? message, string? code ENOENT: the packages that are missing
function M.plan(options)
  local programs = finder.new()
  local list = M.make(options, programs)
  local ok, message, code = programs:found_all()
  if ok then return list end
  return nil, message, code
end

--- What M.plan takes for the plan of a lab (p2pd.lab.topology).
---@return p2pd.lab.ServerOptions
function M.asked(plan, folder)
  local routers = {}
  for i, router in ipairs(plan.routers) do
    routers[i] = {
      name = router.name, lan = router.lan.prefix, address = router.lan.address, portmap = router.options.portmap,
    }
  end
  return { folder = folder, internet = plan.servers, routers = routers }
end

--- The addresses that the servers need where they run, IPv4 and IPv6 in turn.
---@return string[]
function M.addresses()
  local list = {}
  for number in ipairs(M.NAMES) do
    list[#list + 1] = ipv4(number)
    list[#list + 1] = ipv6(number)
  end
  return list
end

--- The IPv4 address of this name; nil when it is none of theirs.
---@param name string
---@return string?
function M.address(name)
  for number, known in ipairs(M.NAMES) do
    if known == name then return ipv4(number) end
  end
end

-- Settings ------------------------------------------------------------------------------------------------------------

local function list_of(name, entries)
  return ("  %s = {\n    %s,\n  },\n"):format(name, table.concat(entries, ",\n    "))
end

local function entry(ip, port, more)
  return ("{ host = %q, port = %d%s }"):format(ip, port, more or "")
end

--- The text of a settings file that names the lab's servers, and no others.
---@param options? {clock_error: number?} see lua/meta/settings.lua
---@return string
function M.settings(options)
  local mqtt, ntp, turn = {}, {}, {}
  for _, number in named "^broker" do mqtt[#mqtt + 1] = entry(ipv4(number), PORTS.mqtt) end
  for _, number in named "^ntp" do ntp[#ntp + 1] = entry(ipv4(number), PORTS.ntp) end
  for _, transport in ipairs { "udp", "tcp" } do
    turn[#turn + 1] = entry(ipv4(STUN), PORTS.stun, (", transport = %q, user = %q, password = %q, realm = %q")
      :format(transport, USER, PASSWORD, REALM))
  end
  local stun = {
    entry(ipv4(STUN), PORTS.stun), entry(ipv4(STUN_OTHER), PORTS.stun), entry(ipv6(STUN), PORTS.stun),
  }
  return "return {\n" .. list_of("mqtt", mqtt) .. list_of("stun", stun) .. list_of("turn", turn) .. list_of("ntp", ntp)
    .. ("  names = {},\n  clock_error = %.14g,\n}\n"):format(options and options.clock_error or 0)
end

return M
