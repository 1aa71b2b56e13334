-- The lab's servers, each asked for what it is there for by programs that are not ours, in namespaces that end with it.
-- check: unsanitized
require "p2pd"
local luv = require "luv"
local program = require "spec.support.program"
local settings = require "p2pd.settings"

local START = 0.6 -- seconds in which all servers answer
local PATH = os.getenv "PATH" .. ":/usr/sbin:/sbin" -- where Debian has servers, though not in a user's PATH
local ROOT = luv.getuid() == 0 -- others need a user namespace, too

-- Where the servers run stands for the Internet; behind a router that translates what miniupnpd maps, and nothing else,
-- there is a host.
local NETWORK = [[
set -e
mount -t tmpfs tmpfs /run
ip link set lo up
for n in 1 2 3 4 5 6 7 8; do
  ip address add 30.1.0.$n/32 dev lo
  ip address add 2c0f:30:1::$n/128 dev lo nodad
done
ip netns add router
ip netns add host
ip link add wan type veth peer name wan0 netns router
ip -n host link add eth0 type veth peer name lan0 netns router
ip address add 30.2.1.1/24 dev wan
ip link set wan up
ip -n router address add 30.2.1.2/24 dev wan0
ip -n router address add 192.168.1.1/24 dev lan0
for device in lo wan0 lan0; do ip -n router link set $device up; done
ip -n router route add default via 30.2.1.1
ip netns exec router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
ip -n host address add 192.168.1.10/24 dev eth0
for device in lo eth0; do ip -n host link set $device up; done
ip -n host route add default via 192.168.1.1
exec "$@"
]]

describe("the lab's servers", function()
  local folder, servers, readiness

  lazy_setup(function()
    folder = program.folder()
    servers = program.start {
      "unshare", ROOT and "--fork" or "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child",
      "sh", "-c", NETWORK, "sh", program.path, "spec/support/lab_servers.lua", tostring(folder),
      env = { P2PD_LUA = "lua", PATH = PATH },
    }
    servers:expect "ready\n"
    readiness = servers.out
  end)

  lazy_teardown(function()
    servers:close()
    getmetatable(folder).__close()
  end)

  -- The same command where the servers are, or with { within = "host" } in that namespace.
  local function inside(command)
    local enter = {
      "nsenter", ("--net=/proc/%d/ns/net"):format(servers.pid), ("--mount=/proc/%d/ns/mnt"):format(servers.pid),
      ("--pid=/proc/%d/ns/pid_for_children"):format(servers.pid), "--wd=.",
    }
    if not ROOT then
      table.move({ ("--user=/proc/%d/ns/user"):format(servers.pid), "--preserve-credentials" }, 1, 2, #enter + 1, enter)
    end
    if command.within then table.move({ "ip", "netns", "exec", command.within }, 1, 4, #enter + 1, enter) end
    enter = table.move(command, 1, #command, #enter + 1, enter)
    enter.env = { PATH = PATH }
    return enter
  end

  local function run(command)
    local ended = program.run(inside(command))
    return ended.out .. ended.err
  end

  local function start(command)
    return program.start(inside(command))
  end

  local function plain(command)
    table.move({ "lua5.4", "spec/support/plain.lua" }, 1, 2, 1, table.move(command, 1, #command, 3))
    return command
  end

  it("answer within 0.6 s, all of them", function()
    local count = 0
    for _, seconds in readiness:gmatch "(%g+) (%d+%.%d+)\n" do
      count = count + 1
      assert.is_true(tonumber(seconds) < START, readiness)
    end
    assert.equal(8, count)
  end)

  it("are what the settings name", function()
    local got = assert(settings.from(load(folder:read "settings.lua", "settings", "t", {})()))
    assert.equal("30.1.0.1", got.mqtt[1].host)
    assert.same({ 2, 3, 2, 4, 0 }, { #got.mqtt, #got.stun, #got.turn, #got.ntp, #got.names })
    assert.equal(-2.5, got.clock_error)
  end)

  it("carry a message from one MQTT client to another, over IPv4 and IPv6", function()
    for _, addresses in ipairs { { "30.1.0.1", "30.1.0.1" }, { "30.1.0.2", "2c0f:30:1::2" } } do
      local listener <close> = start { "mosquitto_sub", "-h", addresses[1], "-t", "place", "-C", "1", "-W", "5" }
      run { "mosquitto_pub", "-h", addresses[2], "-t", "place", "-m", "hello there", "-r" } -- whoever is first
      listener:expect "hello there\n"
    end
  end)

  it("answer STUN's change requests from the other address and port", function()
    local answers = run { "turnutils_stunclient", "30.1.0.3" }
    assert.matches("Response origin: : 30%.1%.0%.3:3478.*Response origin: : 30%.1%.0%.4:3479", answers)
    answers = run { "turnutils_natdiscovery", "-m", "-f", "30.1.0.3" }
    assert.matches("Endpoint Independent Filtering", answers)
  end)

  it("relay datagrams and connections for those who know the password, and for nobody else", function()
    local common = { "turnutils_uclient", "-y", "-u", "lab", "-w", "lab", "-n", "1", "-z", "1" }
    local function client(...)
      local command = table.move({ ... }, 1, select("#", ...), #common + 1, table.move(common, 1, #common, 1, {}))
      return start(command)
    end
    local udp <close> = client "30.1.0.3"
    local udp6 <close> = client("-x", "2c0f:30:1::3")
    local tcp <close> = client("-T", "30.1.0.3") -- RFC 6062
    local wrong = run { "turnutils_uclient", "-y", "-u", "lab", "-w", "wrong", "30.1.0.3" }
    assert.matches("Cannot complete Allocation", wrong)
    for _, each in ipairs { udp, udp6, tcp } do
      each:wait()
      assert.matches("Total lost packets 0 %(0%.000000%%%)", each.out)
      local sent, received = each.out:match ".*tot_send_bytes ~ (%d+), tot_recv_bytes ~ (%d+)"
      assert.equal(sent, received)
      assert.is_true(tonumber(sent) > 0)
    end
  end)

  it("tell the time", function()
    for number = 5, 8 do
      local answer = run {
        "chronyd", "-Q", "-u", "root", "-t", "3", "cmdport 0", ("server 30.1.0.%d iburst maxsamples 1"):format(number),
      }
      assert.is_true(math.abs(tonumber(answer:match "clock wrong by (%S+) seconds")) < 0.05, answer)
    end
  end)

  it("are unlike the liar, whose time is as wrong as it was told to be", function()
    local liar <close> = start { "lua5.4", "spec/support/lying_ntp.lua", "127.0.0.1", "124", "3.25" }
    liar:expect "124\n"
    local answer = run {
      "chronyd", "-Q", "-u", "root", "-t", "3", "cmdport 0", "server 127.0.0.1 port 124 iburst maxsamples 1",
    }
    assert.is_true(math.abs(tonumber(answer:match "clock wrong by (%S+) seconds") - 3.25) < 0.05, answer)
  end)

  it("map ports of a router by NAT-PMP and by IGD, through which connections and datagrams come", function()
    local answer = run { "natpmpc", "-g", "192.168.1.1", "-a", "7000", "7001", "tcp", "60", within = "host" }
    assert.matches("Public IP address : 30%.2%.1%.2", answer)
    assert.matches("Mapped public port 7000 protocol TCP to local port 7001", answer)
    answer = run {
      "upnpc", "-u", "http://192.168.1.1:5000/rootDesc.xml", "-a", "192.168.1.10", "7001", "8000", "udp",
      within = "host",
    }
    assert.matches("30%.2%.1%.2:8000 UDP is redirected to internal 192%.168%.1%.10:7001", answer)
    local host <close> = start(plain { "reflect", "7001", within = "host" })
    host:expect "ready"
    assert.matches("^30%.2%.1%.1 %d+\n", run(plain { "ask", "tcp", "30.2.1.2", "7000" }))
    assert.matches("^30%.2%.1%.1 %d+\n", run(plain { "ask", "udp", "30.2.1.2", "8000" }))
    assert.matches("ECONNREFUSED", run(plain { "ask", "tcp", "30.2.1.2", "7001" }))
  end)

  it("let a host map ports to itself alone", function()
    local answer = run {
      "upnpc", "-u", "http://192.168.1.1:5000/rootDesc.xml", "-a", "192.168.1.11", "7001", "9000", "tcp",
      within = "host",
    }
    assert.matches("failed with code", answer)
    assert.not_matches("9000", run { "nft", "list", "table", "inet", "portmap", within = "router" })
  end)

  it("are found by a multicast search on the router's LAN", function()
    assert.matches("Found valid IGD : http://192%.168%.1%.1:5000/", run { "upnpc", "-s", within = "host" })
  end)

  it("are not planned without their programs: it says which packages have them", function()
    local ended = program.run {
      program.path, "-e", [[
        local luv = require "luv"
        luv.fs_access = function() return false end -- as if nothing was installed
        print(require "p2pd.lab.servers".plan { folder = "/", routers = {
          { name = "r1", lan = "192.168.1.0/24", address = "192.168.1.1", portmap = true } } })]],
      env = { P2PD_LUA = "lua", PATH = PATH },
    }
    assert.equal("nil\tENOENT: not installed: turnserver, mosquitto, chronyd, miniupnpd; `apt-get install coturn "
      .. "mosquitto chrony miniupnpd-nftables` brings what is missing\tENOENT\n", ended.out)
  end)
end)
