-- p2pd.nic: what this machine has, and in network namespaces, what changes there.
local p2pd = require "p2pd"
local core = require "p2pd.core"
local nic = require "p2pd.nic"
local program = require "spec.support.program"
local run = require "spec.support.run"

local ENTER = { "unshare", "--user", "--map-root-user", "--net" }

-- What a script prints in a network namespace of its own, where `ip` is a function that runs it with these words.
local function apart(script)
  local command = table.move(ENTER, 1, #ENTER, 1, {})
  table.move({ program.path, "-e", [[
    local p2pd, nic, luv = require "p2pd", require "p2pd.nic", require "luv"
    local function ip(words)
      assert(os.execute("PATH=$PATH:/usr/sbin:/sbin ip " .. words))
    end
    local function tell(event, message)
      print(event and event.kind or message, event and event.link, event and event.address, event and event.route)
    end
    local function find(address)
      for _, entry in ipairs(assert(nic.list())) do
        if entry.ip == address then return entry end
      end
    end
    ip "link add d0 type veth peer name d1"
    for _, device in ipairs { "d0", "d1" } do ip("link set " .. device .. " addrgenmode none up") end
    p2pd.sleep(0.1)
  ]] .. script }, 1, 3, #command + 1, command)
  command.env = { P2PD_LUA = "lua" }
  local ended = program.run(command)
  assert(ended.status == 0, ended.err)
  return ended.out
end

describe("interfaces", function()
  local closed -- why there are no namespaces here

  lazy_setup(function()
    local command = table.move(ENTER, 1, #ENTER, 1, {})
    command[#command + 1] = "true"
    local ended = program.run(command)
    closed = ended.status ~= 0 and ended.err
  end)

  local function inside(name, body)
    it(name, run(function()
      if closed then
        pending("there are no namespaces here: " .. closed)
        return
      end
      body()
    end))
  end

  it("are listed with what they are", run(function()
    local loopback
    for _, entry in ipairs(assert(nic.list())) do
      assert.is_true(entry.family == 4 or entry.family == 6)
      assert.equal("integer", math.type(entry.mtu))
      if entry.ip == "127.0.0.1" then loopback = entry end
    end
    assert.same({ "lo", 8, "loopback", true, true, nil }, {
      loopback.name, loopback.prefix, loopback.scope, loopback.up, loopback.loopback, loopback.metric,
    })
    for _, route in ipairs(assert(nic.routes())) do
      assert.truthy(route.name and route.index and route.metric and route.family)
    end
    assert.equal("127.0.0.1", nic.source "127.0.0.9")
  end))

  it("can be watched, by one task at a time", run(function()
    local watcher = assert(nic.watch())
    assert.equal("network watcher (open)", tostring(watcher))
    local event, _, code = watcher:wait(0.01)
    if not event then assert.equal("ETIMEDOUT", code) end
    local waiting = p2pd.spawn(function() return watcher:wait(5) end)
    p2pd.sleep(0.01)
    assert.equal("EBUSY", select(3, watcher:wait(1)))
    watcher:close()
    watcher:close()
    assert.equal("ECLOSED", select(3, waiting:wait()))
    assert.equal("ECLOSED", select(3, watcher:wait(1)))
    assert.equal("network watcher (closed)", tostring(watcher))
    waiting = p2pd.spawn(function()
      local other <close> = assert(nic.watch())
      other:wait()
    end)
    p2pd.sleep(0.01)
    waiting:cancel()
    waiting:wait()
    assert.has_error(function() core.nic.watch():wait(-1) end)
    collectgarbage()
  end))

  inside("have scopes, gateways and MTUs", function()
    assert.equal([[
192.0.2.5	private	nil	nil	nil
10.1.1.5	private	10.1.1.1	100	true
30.1.1.5	global	10.1.1.1	100	true
100.64.0.5	shared	10.1.1.1	100	true
2a00::5	global	2a00::1	1024	true
fd00::5	unique-local	2a00::1	1024	true
fe80::5%d0	link-local	2a00::1	1024	true
true	1400	64	d0
]], apart [[
      ip "link set d0 mtu 1400"
      ip "address add 192.0.2.5/24 dev d1"
      for _, address in ipairs { "10.1.1.5/24", "30.1.1.5/24", "100.64.0.5/10" } do
        ip("address add " .. address .. " dev d0")
      end
      for _, address in ipairs { "2a00::5/64", "fd00::5/64", "fe80::5/64" } do
        ip("address add " .. address .. " dev d0 nodad")
      end
      ip "route add default via 10.1.1.1 metric 100"
      ip "route add default via 10.1.1.2 metric 200"
      ip "-6 route add default via 2a00::1"
      for _, address in ipairs {
        "192.0.2.5", "10.1.1.5", "30.1.1.5", "100.64.0.5", "2a00::5", "fd00::5", "fe80::5%d0",
      } do
        local entry = assert(find(address), address)
        print(entry.ip, entry.scope, entry.gateway, entry.metric, entry.default)
      end
      local entry = find "2a00::5"
      print(entry.up, entry.mtu, entry.prefix, entry.name)
    ]])
  end)

  inside("say which addresses are not for use", function()
    assert.equal("false	false	true\nfalse	true	false\n", apart [[
      ip "address add 2a00::5/64 dev d0"
      local entry = find "2a00::5"
      print(entry.temporary, entry.deprecated, entry.tentative)
      ip "address add 2a00::6/64 dev d0 nodad preferred_lft 0"
      entry = find "2a00::6"
      print(entry.temporary, entry.deprecated, entry.tentative)
    ]])
  end)

  inside("tell when addresses, links and routes change", function()
    assert.equal([[
address	false	true	false
route	false	false	true
route	false	false	true
address	false	true	true
link	true	false	false
link	true	false	false
ETIMEDOUT: waiting for a change of the network: connection timed out	nil	nil	nil
]], apart [[
      local watcher <close> = assert(nic.watch())
      local function after(words)
        ip(words)
        tell(watcher:wait(2))
        p2pd.sleep(0.1)
      end
      after "address add 10.1.1.5/24 dev d0"
      after "route add default via 10.1.1.1"
      after "route replace default via 10.1.1.2"
      after "address del 10.1.1.5/24 dev d0"
      after "link set d1 down"
      after "link set d1 up"
      tell(watcher:wait(0.1))
    ]])
  end)

  inside("tell what belongs together as one, and keep it for who asks later", function()
    assert.equal("address	false	true	true\nnil\n", apart [[
      local watcher <close> = assert(nic.watch())
      ip "-batch - <<END\naddress add 10.1.1.5/24 dev d0\nroute add default via 10.1.1.1\nEND"
      p2pd.sleep(0.2)
      tell(watcher:wait(0))
      print((watcher:wait(0.15)))
    ]])
  end)

  inside("that vanish are missed at once", function()
    assert.equal("d0\nlink	true	true	true\ntrue\n0\n", apart [[
      ip "address add 10.1.1.5/24 dev d0"
      ip "route add default via 10.1.1.1"
      local watcher <close> = assert(nic.watch())
      print(find("10.1.1.5").name)
      ip "link del d0"
      tell(watcher:wait(2))
      print(find "10.1.1.5" == nil)
      print(#assert(nic.routes()))
    ]])
  end)
end)
