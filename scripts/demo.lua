-- Show the main job: two nodes, each a process of its own, meet through a broker and talk.
-- They are on two computers of a lab, behind a router each; where no lab can be had, on loopback.
local cjson = require "cjson"
local luv = require "luv"
local cli = require "p2pd.cli"
local p2pd = require "p2pd"
local finder = require "p2pd.lab.finder"
local process = require "p2pd.process"
local stdio = require "p2pd.stdio"

local program = {
  name = "demo", bare = true,
  usage = "demo [option...]",
  about = "Lets two nodes meet, and lets you type from the one to the other. They run on two computers\n"
    .. "of a lab (see `p2pd-lua lab --help`), 20 ms from its servers and 40 ms from each other, each\n"
    .. "behind a router that lets nobody in. Leaves nothing behind.",
  options = {
    { "--loopback", nil, "without a lab: both nodes and a broker on loopback" },
    { "--json", nil, "tell each event as one JSON object a line on standard error, too" },
  },
}

-- How the demo calls itself on the computer that connects.
local visitor = {
  name = "demo", bare = true, usage = "demo", about = "",
  options = { { "--meet", "ADDRESS", "" }, { "--json", nil, "" } },
}

local LINES = {
  "hello",
  "these lines go to the other node and come back",
  "over a connection that both ends have proven",
}
-- What the two routers do with ports.
local NATS = { "symmetric/independent:7", "port-restricted/random" }
local WORDS = { "a new port for each destination, 7 after the last one", "any port, and the same for all destinations" }
local LINK_MS = 10 -- each way, of each computer
local SHOWN = 2    -- of the packets that each router decided about, each way

-- A signal may break into a task at any step, but not into a coroutine that it runs: no folder is left behind.
local function make_folder(folder)
  local path, message, code = luv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/p2pd-demo-XXXXXX")
  folder.path = path
  return path, message, code
end

local function remove_folder(folder)
  if not folder.path then return end
  for name in luv.fs_scandir_next, luv.fs_scandir(folder.path) do luv.fs_unlink(folder.path .. "/" .. name) end
  luv.fs_rmdir(folder.path)
end

local function write_file(path, text)
  local file = assert(luv.fs_open(path, "w", 384)) -- 0600
  assert(luv.fs_write(file, text))
  luv.fs_close(file)
end

local function free_port()
  local socket = luv.new_tcp()
  socket:bind("127.0.0.1", 0)
  local port = socket:getsockname().port
  socket:close()
  return port
end

local function find_mosquitto()
  local programs = finder.new()
  local path = programs:find("mosquitto", "mosquitto")
  local found, message, code = programs:found_all()
  if found then return path end
  return nil, message, code
end

local function say(...)
  print(("demo: " .. ...):format(select(2, ...)))
  io.stdout:flush()
end

local function start_broker(folder, path, port)
  write_file(folder .. "/mosquitto.conf",
    ("user root\nlistener %d 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\n"):format(port))
  return process.start { path, "-c", folder .. "/mosquitto.conf" }
end

local function broker_listens(broker)
  for line in broker:lines() do
    if line:find "running" then return true end
  end
  return nil, "mosquitto ended before it listened"
end

-- The second node: the program itself, as `listen --echo`. Returns its address, when it has one.
local function address_of(peer)
  for line in peer:lines() do
    local address = line:match "^address (.+)$"
    if address then return address end
    say("the second node says: %s", line)
  end
  return nil, "the second node ended before it had an address"
end

local function connect(node, address, tell, json)
  local function tell_both(event, fields, words)
    say(event == "rung" and "  %s" or "%s", words)
    if json then tell(event, fields) end
  end
  local started = p2pd.now()
  local pipe, message, code = node:connect(address, {
    on_event = function(rung) cli.tell_rung(tell_both, rung) end,
  })
  if not pipe then return nil, cli.fail(tell, program.name, message, code) end
  cli.tell_pipe(tell_both, pipe, (p2pd.now() - started) * 1000)
  return pipe
end

local function exchange(pipe, line)
  local started = p2pd.now()
  assert(pipe:send(line .. "\n"))
  local answer = pipe:lines()()
  say("  sent %s, got back %s in %.2f ms", cjson.encode(line), cjson.encode(answer), (p2pd.now() - started) * 1000)
end

local function type_to(pipe)
  say("now type to the other node; it sends your lines back (Ctrl-D ends)")
  local input <close> = stdio.reader(0)
  for text in function() return (input:read()) end do
    for line in text:gmatch "[^\n]+" do exchange(pipe, line) end
  end
end

-- The part of the node that connects.
local function meet(address, options, json)
  local tell = cli.teller(json)
  local node <close>, why, why_code = p2pd.node(cli.node_options({}, tell, options))
  if not node then return cli.fail(tell, program.name, why, why_code) end
  node:facts(4) -- its router is known; otherwise connecting waits for that
  say("this node's address is       %s", node:address())
  say("connecting:")
  local pipe <close>, failed = connect(node, address, tell, json)
  if not pipe then return failed end
  for _, line in ipairs(LINES) do exchange(pipe, line) end
  if luv.guess_handle(0) == "tty" then type_to(pipe) end
  pipe:shutdown()
  return cli.OK
end

-- In a lab ------------------------------------------------------------------------------------------------------------

-- What the routers made of the first SYNs that the two nodes sent each other.
local function show_packets(net)
  local shown = {}
  say "what the routers did with their first packets, by seconds since the lab was up:"
  for line in (net:timeline() or ""):gmatch "[^\n]+" do
    local router, direction = line:match "^%s*%S+%s+(%S+)%s+(%S+)"
    local place = ("%s %s"):format(router, direction)
    if line:find " tcp .- S " and not line:find("30.1.0.", 1, true) and (shown[place] or 0) < SHOWN then
      shown[place] = (shown[place] or 0) + 1
      say("  %s", (line:gsub("%s+", " "):gsub("^ ", "")))
    end
  end
end

local function in_lab(net, json)
  local status = assert(net:status())
  say("two computers, %d ms from each other, each behind a router that lets in only answers:", 4 * LINK_MS)
  for i, router in ipairs(status.routers) do
    local host = status.hosts[i]
    say("  %s, %s behind %s: %s (%s)", host.name, host.links[1].ipv4, router.external[1], WORDS[i], router.options.nat)
  end
  local a, b = assert(net:host "a"), assert(net:host "b")
  local peer <close> = assert(b:start { net.program, "listen", "--echo" })
  local address, no_address = address_of(peer)
  if not address then return cli.fail(cli.teller(json), program.name, no_address, "EIO") end
  say("the second node's address is %s", address)
  local command = { net.program, "demo", "--meet", address, json and "--json" or nil }
  local met, message, code = a:exec(command)
  if not met then return cli.fail(cli.teller(json), program.name, message, code) end
  if met == cli.OK then show_packets(net) end
  return met
end

-- On loopback ---------------------------------------------------------------------------------------------------------

local function on_loopback(json)
  local function fail(message, code) return cli.fail(cli.teller(json), program.name, message, code) end
  local mosquitto, missing, missing_code = find_mosquitto()
  if not mosquitto then return fail(missing, missing_code) end
  local folder <close> = setmetatable({}, { __close = coroutine.wrap(remove_folder) })
  local made, message, code = coroutine.wrap(make_folder)(folder)
  if not made then return fail(message, code) end
  local port = free_port()
  local broker <close>, not_started = start_broker(folder.path, mosquitto, port)
  if not broker then return fail(not_started, "ENOENT") end
  local listens, no_broker = broker_listens(broker)
  if not listens then return fail(no_broker, "EIO") end
  say("mosquitto listens on 127.0.0.1:%d", port)
  local settings = folder.path .. "/settings.lua"
  write_file(settings, ("return { mqtt = {{ host = \"127.0.0.1\", port = %d }}, stun = {}, ntp = {} }\n"):format(port))
  local peer <close>, no_peer = process.start {
    luv.exepath(), "listen", "--echo", "--bind", "127.0.0.1", "--key", folder.path .. "/peer.pem",
    "--settings", settings,
  }
  if not peer then return fail(no_peer, "ENOENT") end
  local address, no_address = address_of(peer)
  if not address then return fail(no_address, "EIO") end
  say("the second node's address is %s", address)
  return meet(address, { settings = settings, key = folder.path .. "/own.pem", bind = "127.0.0.1" }, json)
end

local function main(arguments)
  local inside = arguments[1] == "--meet"
  local options, status = cli.parse(inside and visitor or program, arguments)
  if not options then return status end
  if inside then return meet(options.meet, {}, options.json) end
  if options.loopback then
    status = on_loopback(options.json)
  else
    local net <close>, message = require("p2pd.lab").up {
      a = { nat = NATS[1], delay_ms = LINK_MS, ipv6 = "none" },
      b = { nat = NATS[2], delay_ms = LINK_MS, ipv6 = "none" },
    }
    if not net then say("%s. So there is no lab, and both nodes run on loopback.", (message:gsub("^%u+: ", ""))) end
    status = net and in_lab(net, options.json) or not net and on_loopback(options.json)
  end
  if status == cli.OK then say "done" end
  return status
end

return main { ... }
