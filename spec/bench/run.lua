-- bench: the numbers that this project holds itself to, each as a ratio to what others reach in the same run, or held
-- against a time. Run it by `make bench`, on a machine that does nothing else.
--
--   lua5.4 spec/bench/run.lua [--build DIR] [--only PART,...] [--runs N] [--scale X] [--json FILE]
--
-- Parts: pipe shell echo idle memory start ready link. --runs: how often each is measured, in turns with what it is
-- compared with (5; idle 3). --scale 0.1 does a tenth of the work, to try it out. Exit status 1 when a bar was missed.
package.path = "./?.lua;" .. package.path
local luv = require "luv"
local processes = require "spec.support.processes"

local MIB = 1048576
local NOISY = 0.3 -- (most - least) / median, beyond which a result is said to be noisy

local options = { build = "build", runs = "5", scale = "1" }
local rows, folder, inherited = {}, nil, luv.os_environ()
local lua = processes.which "lua5.4"

-- Numbers -------------------------------------------------------------------------------------------------------------

local function sorted(values)
  local copy = table.move(values, 1, #values, 1, {})
  table.sort(copy)
  return copy
end

local function median(values)
  local order = sorted(values)
  local middle = (#order + 1) // 2
  return #order % 2 == 1 and order[middle] or (order[middle] + order[middle + 1]) / 2
end

local function most(values)
  return math.max(table.unpack(values))
end

local function spread(values)
  local order = sorted(values)
  return (order[#order] - order[1]) / median(values)
end

local function scaled(count)
  return math.max(1, math.floor(count * tonumber(options.scale)))
end

-- Takes a row: name, unit, value or values, what it is held against and the baselines of that, and the bar. What was
-- measured in turns is compared in turns: the ratio is the median of the ratios of neighbours, so that a machine that
-- gets slower meanwhile counts for both.
local function add(row)
  row.value = row.value or median(row.values)
  local ratios
  if row.baselines then
    ratios = {}
    for i, value in ipairs(row.values) do ratios[i] = value / row.baselines[i] end
    row.baseline, row.ratio = median(row.baselines), median(ratios)
  end
  local compared = row.compared or row.ratio or row.value
  if row.bar then
    row.ok = (row.at == "most" and compared <= row.bar) or (row.at ~= "most" and compared >= row.bar)
  end
  local judged = not row.compared and ratios or row.values
  row.noisy = judged ~= nil and #judged > 2 and spread(judged) > NOISY
  rows[#rows + 1] = row
end

local function number(value)
  return (value >= 1000 and "%.0f" or value >= 100 and "%.1f" or "%.2f"):format(value)
end

local function verdict(row)
  local text = row.bar == nil and "" or row.ok and "ok" or "MISSED"
  return text .. (row.noisy and " (noisy)" or "")
end

local function print_row(row)
  local bar = row.bar and ("%s %s%s"):format(row.at == "most" and "≤" or "≥", row.bar,
    row.ratio and not row.compared and " ×" or " " .. row.unit) or ""
  print(("%-7s %-38s %9s %-7s %-24s %6s  %-13s %s"):format(row.part, row.name, number(row.value), row.unit,
    row.baseline and ("%s %s"):format(row.against, number(row.baseline)) or row.against or "",
    row.ratio and ("%.2f"):format(row.ratio) or "", bar, verdict(row)))
  io.stdout:flush()
end

-- Programs ------------------------------------------------------------------------------------------------------------

local started = {}

local function start(argv, more)
  local env = {}
  for name, value in pairs(inherited) do env[#env + 1] = name .. "=" .. value end
  for name, value in pairs(more and more.env or {}) do env[#env + 1] = name .. "=" .. value end
  local process = assert(processes.start(argv, {
    env = env, stdio = more and more.stdio or { [0] = "pipe", [1] = "pipe", [2] = folder .. "/errors" },
  }))
  started[#started + 1] = process
  return process
end

local function expect(process, pattern, seconds)
  local line = process:line(seconds or 30)
  local found = line and line:match(pattern)
  if found then return found end
  error(("wanted '%s', but got '%s'; %s"):format(pattern, tostring(line), processes.read(folder .. "/errors")), 2)
end

-- Starts what serves, and calls f with the port or address that it prints; ends it after that.
local function serving(argv, pattern, f, env)
  local server = start(argv, { env = env })
  local where = expect(server, pattern)
  local results = table.pack(pcall(f, where, server))
  server:kill()
  if not results[1] then error(results[2], 0) end
  return table.unpack(results, 2, results.n)
end

-- Runs it, and returns the number that it prints.
local function measure(argv, env)
  local process = start(argv, { env = env })
  local value = tonumber((expect(process, "^(%S+)", 120):gsub(",", ".")))
  process:wait(10)
  return value
end

local function program(name)
  return ("%s/%s"):format(options.build, name)
end

local function node(mode, ...)
  return { program "p2pd-lua", "spec/bench/node.lua", mode, folder, ... }
end

local LOCAL = { BENCH_BIND = "127.0.0.1" }
local SERVED = "^address%s+(%S+)"

local function settings(brokers)
  processes.write(folder .. "/settings.lua",
    ("return { mqtt = {%s}, stun = {}, turn = {}, ntp = {} }\n"):format(brokers))
  luv.fs_chmod(folder .. "/settings.lua", 384)
end

-- Measures ours and theirs in turns, after one round that does not count.
local function in_turns(ours, theirs, runs, warm)
  local values, baselines = {}, {}
  if warm then
    ours()
    theirs()
  end
  for i = 1, runs or tonumber(options.runs) do
    values[i], baselines[i] = ours(), theirs()
  end
  return values, baselines
end

local function status_of(pid, field)
  return tonumber(processes.read("/proc/" .. pid .. "/status"):match(field .. ":%s*(%d+)"))
end

-- Seconds of processor time that a process has used, of its own and in the kernel for it. proc(5): utime and stime are
-- fields 14 and 15, in ticks of 10 ms.
local function cpu_seconds(pid)
  local fields = {}
  local text = processes.read("/proc/" .. pid .. "/stat"):match "%) (.*)"
  for field in text:gmatch "%S+" do fields[#fields + 1] = field end
  return tonumber(fields[12]) / 100, tonumber(fields[13]) / 100
end

local function joined(first, ...)
  local list = { table.unpack(first) }
  for _, more in ipairs { ... } do table.move(more, 1, #more, #list + 1, list) end
  return list
end

-- Starts mosquitto on a free port of an address, in the namespace that the prefix leads to. It says on standard error
-- what it does: its standard output waits until a buffer is full.
local function with_broker(prefix, ip, f)
  local port = 20000 + luv.os_getpid() % 20000
  local path = folder .. "/mosquitto.conf"
  processes.write(path, ("listener %d %s\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n%s")
    :format(port, ip, "log_dest stderr\nlog_type all\n"))
  local mosquitto = assert(processes.which "mosquitto", "mosquitto is missing")
  local broker = start(joined(prefix, { "sh", "-c", 'exec "$@" 2>&1', "sh", mosquitto, "-c", path }))
  repeat
    local line = assert(broker:line(10), "mosquitto did not start")
  until line:find "running"
  settings(("{ host = %q, port = %d }"):format(ip, port))
  local ok, message = pcall(f)
  broker:kill()
  settings ""
  if not ok then error(message, 0) end
end

-- Parts ---------------------------------------------------------------------------------------------------------------

local parts, order = {}, { "pipe", "shell", "echo", "idle", "memory", "start", "ready", "link" }

local function certificate()
  local key, made = folder .. "/tls.key", folder .. "/tls.crt"
  local openssl = start({ "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
    "-subj", "/CN=localhost", "-days", "2", "-keyout", key, "-out", made })
  assert(openssl:wait(20) == 0, "openssl could not make a certificate")
  processes.write(folder .. "/tls.pem", processes.read(key) .. processes.read(made))
  return key, made
end

function parts.pipe()
  local bytes = ("%d"):format(scaled(1024) * MIB)
  local key, made = certificate()
  local env = { KEY = key, CERTIFICATE = made }
  local function ours()
    return serving(node "sink", SERVED, function(address)
      return measure(node("send", address, bytes), LOCAL)
    end, LOCAL)
  end
  local function nodejs()
    local js = { processes.which "node", "spec/bench/node_tls.js" }
    return serving({ js[1], js[2], "sink" }, "^port (%d+)", function(port)
      return measure({ js[1], js[2], "send", port, bytes }, env)
    end, env)
  end
  local function plain()
    return serving({ program "bench_tls_echo", "sink" }, "^port (%d+)", function(port)
      return measure { program "bench_tls_echo", "send", port, bytes }
    end)
  end
  local values, baselines = in_turns(ours, nodejs)
  add { name = "TLS pipe, 64 KiB writes", unit = "MiB/s", against = "Node.js tls", values = values,
    baselines = baselines, bar = 1.3 }
  values, baselines = in_turns(ours, plain)
  add { name = "the same, to set it in relation", unit = "MiB/s", against = "plain C", values = values,
    baselines = baselines }
end

-- Seconds from the start of the sender until the receiver's consumer has counted all bytes.
local function piped(consumer, sender, bytes)
  local began = luv.hrtime()
  local feed = start({ "sh", "-c", ('head -c %d /dev/zero | "$@"'):format(bytes), "sh", table.unpack(sender) })
  local counted = tonumber(expect(consumer, "^%s*(%d+)", 120))
  local seconds = (luv.hrtime() - began) / 1e9
  feed:wait(5)
  assert(counted == bytes, ("%d bytes went in, %s came out: %s"):format(bytes, counted,
    processes.read(folder .. "/errors")))
  return bytes / MIB / seconds
end

function parts.shell()
  local bytes = scaled(1024) * MIB
  certificate()
  local listener = 0
  local function ours()
    listener = listener + 1
    local told = ("%s/listen%d"):format(folder, listener)
    local server = start { "sh", "-c", '"$@" </dev/null 2>' .. told .. " | wc -c", "sh", program "p2pd-lua", "listen",
      "--bind", "127.0.0.1", "--key", folder .. "/listen.pem", "--settings", folder .. "/settings.lua" }
    local address
    for _ = 1, 200 do
      address = processes.read(told):match "address (%S+)\n"
      if address then break end
      processes.sleep(0.02)
    end
    assert(address, "listen did not start: " .. processes.read(told))
    local rate = piped(server, { program "p2pd-lua", "connect", address, "--bind", "127.0.0.1",
      "--key", folder .. "/connect.pem", "--settings", folder .. "/settings.lua" }, bytes)
    server:kill()
    return rate
  end
  local function socat()
    local port = 20000 + (luv.os_getpid() + listener * 7) % 20000
    local listen = ("OPENSSL-LISTEN:%d,bind=127.0.0.1,reuseaddr,cert=%s/tls.pem,verify=0"):format(port, folder)
    local server = start { "sh", "-c", '"$@" </dev/null | wc -c', "sh", "socat", "-u", listen, "-" }
    processes.sleep(0.3)
    local rate = piped(server, { "socat", "-u", "-", ("OPENSSL:127.0.0.1:%d,verify=0"):format(port) }, bytes)
    server:kill()
    return rate
  end
  local values, baselines = in_turns(ours, socat)
  add { name = "listen and connect, stdin to stdout", unit = "MiB/s", against = "socat OPENSSL", values = values,
    baselines = baselines, bar = 2 }
end

-- Both ends share a processor: one waits while the other works, and what it costs to wake another processor up says
-- nothing of the one or the other program. Many short turns at servers that stay: a machine that others use too is
-- seldom steady for long, and a program that has just started has not yet seen all of itself.
function parts.echo()
  local count = ("%d"):format(scaled(10000))
  local pinned = { "taskset", "-c", processes.read("/proc/self/status"):match "Cpus_allowed_list:%s*.-(%d+)\n" }
  local values, baselines = serving(joined(pinned, node "echoes"), SERVED, function(address)
    return serving(joined(pinned, { program "bench_tls_echo", "serve" }), "^port (%d+)", function(port)
      return in_turns(function() return measure(joined(pinned, node("echo", address, count)), LOCAL) end,
        function() return measure(joined(pinned, { program "bench_tls_echo", "echo", port, count })) end,
        5 * tonumber(options.runs), true)
    end)
  end, LOCAL)
  add { name = "64-byte echo, both ends in Lua", unit = "/s", against = "plain C", values = values,
    baselines = baselines, bar = 0.9 }
end

function parts.idle()
  local count = scaled(10000)
  local limited = { "sh", "-c", 'ulimit -n 30000 2>/dev/null || ulimit -n $(ulimit -Hn); exec "$@"', "sh" }
  local sizes, rates, walls, kernel, handshakes = {}, {}, {}, {}, {}
  for i = 1, math.min(3, tonumber(options.runs)) do
    serving(joined(limited, node("keep", ("%d"):format(count))), SERVED, function(address, server)
      local before, user, system = status_of(server.pid, "VmRSS"), cpu_seconds(server.pid)
      local began = luv.hrtime()
      local holder = start(joined(limited, node("hold", address, ("%d"):format(count), "32")), { env = LOCAL })
      expect(server, "^kept%s+(%d+)", 300)
      walls[i] = count / ((luv.hrtime() - began) / 1e9)
      local user_after, system_after = cpu_seconds(server.pid)
      rates[i] = count / (user_after - user + system_after - system)
      kernel[i] = 100 * (system_after - system) / (user_after - user + system_after - system)
      processes.sleep(0.5)
      sizes[i] = (status_of(server.pid, "VmRSS") - before) / count
      holder:kill()
    end, LOCAL)
    -- Two of them, since the server has the client beside it, too.
    local argv = { program "bench_handshakes", ("%d"):format(scaled(5000)) }
    local beside = start(argv)
    handshakes[i] = (measure(argv) + tonumber(expect(beside, "^(%S+)", 120))) / 2
  end
  add { name = ("an idle pipe, of %d in a node"):format(count), unit = "KiB", values = sizes, bar = 24, at = "most" }
  add { name = "pipes accepted, per second of its CPU", unit = "/s", against = "handshakes", values = rates,
    baselines = handshakes, bar = 0.8 }
  add { name = "of that time in the kernel", unit = "%", values = kernel }
  add { name = "pipes accepted, by the clock", unit = "/s", values = walls }
end

function parts.memory()
  with_broker({}, "127.0.0.1", function()
    local total, own = {}, {}
    for i = 1, tonumber(options.runs) do
      serving(node "echoes", SERVED, function(address, server)
        local holder = start(node("hold", address, "1", "1"), { env = LOCAL })
        expect(holder, "^held%s+(%d+)", 30)
        processes.sleep(0.2)
        total[i] = status_of(server.pid, "VmRSS") / 1024
        own[i] = status_of(server.pid, "RssAnon") / 1024
        holder:kill()
      end, LOCAL)
    end
    add { name = "a node with a pipe and a broker, resident", unit = "MiB", values = total, bar = 10, at = "most" }
    add { name = "of this its own, not shared libraries", unit = "MiB", values = own }
  end)
end

function parts.start()
  local function timed(argv)
    return function()
      local process = start(argv, { stdio = { [2] = folder .. "/errors" } })
      process:wait(10)
      assert(process.status == 0, processes.read(folder .. "/errors"))
      return process.seconds * 1000
    end
  end
  local values, baselines = in_turns(timed { program "p2pd-lua", "-e", "" }, timed { lua, "-e", "" },
    math.max(20, scaled(60)), true)
  local baseline = median(baselines)
  add { name = "p2pd-lua -e ''", unit = "ms", against = "lua5.4 -e ''", values = values, baselines = baselines,
    compared = median(values), bar = tonumber(("%.2f"):format(2 * baseline + 2)), at = "most" }
end

function parts.ready()
  with_broker({}, "127.0.0.1", function()
    local values = {}
    for i = 1, 20 do values[i] = measure(node "ready", LOCAL) end
    add { name = "a node is ready, median of 20", unit = "ms", values = values, bar = 60, at = "most" }
    add { name = "a node is ready, slowest of 20", unit = "ms", value = most(values), bar = 60, at = "most" }
  end)
end

-- Two hosts, 20 ms from each other, and the broker halfway between them.
function parts.link()
  local delay = start { program "bench_delay", "10", "10", "0" }
  local inside, ips = {}, {}
  for i = 1, 3 do
    local line = expect(delay, "^host (.*)")
    local pid, ip = line:match "(%d+) (%S+)"
    inside[i], ips[i] = { "nsenter", "--net", "--target", pid }, ip
    if luv.getuid() ~= 0 then table.move({ "--user", "--preserve-credentials" }, 1, 2, 5, inside[i]) end
    table.insert(inside[i], "--")
  end
  expect(delay, "^(ready)")
  local function on(host, argv) return joined(inside[host], argv) end
  local trips = {}
  for i = 1, 5 do
    trips[i] = measure(on(1, { lua, "-e", ([[local luv = require "luv"
      local tcp, began = luv.new_tcp(), luv.hrtime()
      tcp:connect("%s", 9, function() print((luv.hrtime() - began) / 1e6) tcp:close() end)
      luv.run()]]):format(ips[2]) }))
  end
  add { name = "the link's round trip, R", unit = "ms", values = trips }
  with_broker(inside[3], ips[3], function()
    for _, way in ipairs { { "direct", 90, "2 R + 10 ms" }, { "reverse", 140, "S + 2.5 R + 20 ms" } } do
      serving(on(2, node "wait"), SERVED, function(address)
        local values, count = {}, math.max(3, scaled(10))
        local meeting = start(on(1, node("meet", address, way[1], ("%d"):format(count))))
        for i = 1, count do values[i] = tonumber(expect(meeting, "^(%S+)", 30)) end
        meeting:wait(10)
        add { name = ("%s, until it may send, median of %d"):format(way[1], count), unit = "ms", values = values,
          against = way[3], bar = way[2], at = "most" }
        add { name = ("%s, slowest of %d"):format(way[1], count), unit = "ms", value = most(values) }
      end)
    end
  end)
  delay:kill()
end

-- All of it -----------------------------------------------------------------------------------------------------------

local function arguments()
  local place = 1
  while arg[place] do
    local name = arg[place]:match "^%-%-(%a+)$"
    if name ~= "build" and name ~= "only" and name ~= "runs" and name ~= "scale" and name ~= "json" then
      error("usage: run.lua [--build DIR] [--only PART,...] [--runs N] [--scale X] [--json FILE]", 0)
    end
    options[name] = arg[place + 1] or error(arg[place] .. " needs a value", 0)
    place = place + 2
  end
end

local function run(name)
  local before = #rows
  local ok, message = pcall(parts[name])
  if not ok then add { name = "it failed: " .. tostring(message), unit = "", value = 0, ok = false } end
  for i = before + 1, #rows do
    rows[i].part = name
    print_row(rows[i])
  end
  for _, process in ipairs(started) do
    if process.status == nil then process:kill() end
  end
  started = {}
  return ok
end

local function write_json()
  local cjson = require "cjson"
  for _, row in ipairs(rows) do row.compared = nil end
  processes.write(options.json, cjson.encode(rows) .. "\n")
end

arguments()
folder = assert(luv.fs_mkdtemp((inherited.TMPDIR or "/tmp") .. "/p2pd-bench-XXXXXX"))
settings ""
local good = true
processes.go(function()
  print(("%-7s %-38s %17s %-24s %6s  %-13s"):format("part", "what", "p2pd-lua", "against", "ratio", "bar"))
  for _, name in ipairs(order) do
    if not options.only or ("," .. options.only .. ","):find("," .. name .. ",", 1, true) then
      good = run(name) and good
    end
  end
  for _, row in ipairs(rows) do good = good and row.ok ~= false end
  if options.json then write_json() end
  processes.remove(folder)
end)
luv.run()
os.exit(good)
