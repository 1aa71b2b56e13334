-- Pinholes in an IPv6 firewall, opened by the real miniupnpd.
-- check: unsanitized
local cjson = require "cjson"
local labs = require "spec.support.lab"
local luv = require "luv"
local mapping = require "spec.support.mapping"
local p2pd = require "p2pd"
local program = require "spec.support.program"
local run = require "spec.support.run"

-- The lab's routers keep IPv6 out by a program of their own, which miniupnpd knows nothing of. Here the firewall is the
-- kernel's, where it makes its pinholes.
local FIREWALL = [[
set -e
mount -t tmpfs tmpfs /run
[ ! -e /dev/log ] || mount --bind /dev/null "$(readlink -f /dev/log)"
ip link set lo up
ip netns add router
ip netns add host
ip link add wan type veth peer name wan0 netns router
ip -n host link add eth0 type veth peer name lan0 netns router
for name in router host; do ip -n $name link set lo up; done
ip address add 30.2.1.1/24 dev wan
ip address add 2c0f:30:2::1/64 dev wan nodad
ip -n router address add 30.2.1.2/24 dev wan0
ip -n router address add 192.168.1.1/24 dev lan0
ip -n router address add 2c0f:30:2::2/64 dev wan0 nodad
ip -n router address add 2c0f:30:3::1/64 dev lan0 nodad
ip -n host address add 2c0f:30:3::10/64 dev eth0 nodad
ip link set wan up
for device in wan0 lan0; do ip -n router link set $device up; done
ip -n host link set eth0 up
ip netns exec router sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
ip -n router route add default via 30.2.1.1
ip -n router route add ::/0 via 2c0f:30:2::1
ip -n host route add ::/0 via 2c0f:30:3::1
ip route add 2c0f:30:3::/64 via 2c0f:30:2::2
ip netns exec router nft -f - <<END
table inet filter {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "lan0" accept
    jump pinholes
  }
  chain pinholes {}
  chain prerouting { type nat hook prerouting priority dstnat; jump maps; }
  chain postrouting { type nat hook postrouting priority srcnat; jump peers; }
  chain maps {}
  chain peers {}
}
END
cat >/run/conf <<END
ext_ifname=wan0
ext_ifname6=wan0
listening_ip=lan0
port=5000
enable_upnp=yes
ipv6_disable=no
friendly_name=six
min_lifetime=1
max_lifetime=86400
uuid=2c0f0030-0000-4000-8000-000000000001
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=pinholes
upnp_nat_chain=maps
upnp_nat_postrouting_chain=peers
END
echo ready
exec ip netns exec router miniupnpd -d -f /run/conf -P /run/pid
]]

describe("a pinhole in an IPv6 firewall", function()
  it("is opened, renewed and closed", run(function()
    if labs.obstacle(labs.users()[1]) or luv.getuid() ~= 0 then return pending "only root can make this network" end
    local network <close> = program.start {
      "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", FIREWALL,
      env = { PATH = os.getenv "PATH" .. ":/usr/sbin:/sbin" },
    }
    network:expect "ready"
    local function within(name, command)
      local enter = {
        "nsenter", ("--net=/proc/%d/ns/net"):format(network.pid), ("--mount=/proc/%d/ns/mnt"):format(network.pid),
        "--wd=.",
      }
      if name then table.move({ "ip", "netns", "exec", name }, 1, 4, #enter + 1, enter) end
      enter = table.move(command, 1, #command, #enter + 1, enter)
      enter.env = { PATH = os.getenv "PATH" .. ":/usr/sbin:/sbin" }
      return enter
    end
    local function dial()
      return program.run(within(nil, {
        "lua5.4", "-e", [[
          local luv = require "luv"
          local socket, timer = luv.new_tcp(), luv.new_timer()
          local function say(text) print(text) os.exit(0) end
          socket:connect("2c0f:30:3::10", 7000, function(failure) say(failure or "open") end)
          timer:start(500, 0, function() say "ETIMEDOUT" end)
          luv.run()]],
      })).out
    end
    local server <close> = program.start(within("host", { -- luacheck: ignore 211
      program.path, "-e", [[
        local luv = require "luv"
        local server = luv.new_tcp()
        assert(server:bind("::", 7000))
        server:listen(8, function() local one = luv.new_tcp() server:accept(one) end)
        print "ready"
        io.stdout:flush()
        require "p2pd".sleep(60)]],
    }))
    server:expect "ready"
    program.await(function()
      return program.run(within("host", { program.path, "-e", [[print(require "p2pd.portmap".probe {
        internal_ip = "2c0f:30:3::10", timeout = 1 }.pinhole ~= nil)]] })).out == "true\n"
    end, 5)
    assert.equal("ETIMEDOUT\n", dial())
    local code = mapping.script({ internal_ip = "2c0f:30:3::10", internal_port = 7000, lifetime = 2 }, 60)
    local holder <close> = program.start(within("host", { program.path, "-e", code }))
    holder:expect "pinhole"
    local told = cjson.decode(holder.out)
    assert.same({ "2c0f:30:3::10", 7000, "pinhole", 2, "six" },
      { told.external_ip, told.external_port, told.method, told.lifetime, told.router })
    p2pd.sleep(4)
    assert.equal("open\n", dial())
    holder:kill "sigterm"
    holder:wait()
    assert.equal("ETIMEDOUT\n", dial())
  end))
end)
