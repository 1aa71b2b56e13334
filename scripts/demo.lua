-- Show the main job: two nodes, each a process of its own, meet through a broker and talk.
local cjson = require "cjson"
local luv = require "luv"
local cli = require "p2pd.cli"
local p2pd = require "p2pd"
local process = require "p2pd.process"
local stdio = require "p2pd.stdio"

local program = {
  name = "demo",
  usage = "demo [option...]",
  about = "Starts a real broker (mosquitto) on a free loopback port and a second node as a process of\n"
    .. "its own, connects to it while telling how, and lets you type to it. Leaves nothing behind.",
}

local LINES = {
  "hello",
  "these lines go to the other node and come back",
  "over a connection that both ends have proven",
}

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
  for folder in ((os.getenv "PATH" or "") .. ":/usr/sbin:/usr/local/sbin"):gmatch "[^:]+" do
    if luv.fs_access(folder .. "/mosquitto", "X") then return folder .. "/mosquitto" end
  end
end

local function say(...)
  print(("demo: " .. ...):format(select(2, ...)))
  io.stdout:flush()
end

local function start_broker(folder, path, port)
  write_file(folder .. "/mosquitto.conf",
    ("listener %d 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\n"):format(port))
  return process.start { path, "-c", folder .. "/mosquitto.conf" }
end

local function broker_listens(broker)
  for line in broker:lines() do
    if line:find "running" then return true end
  end
  return nil, "mosquitto ended before it listened"
end

-- The second node: the program itself, as `listen --echo`.
local function start_peer(folder)
  return process.start {
    luv.exepath(), "listen", "--echo", "--bind", "127.0.0.1", "--key", folder .. "/peer.pem",
    "--settings", folder .. "/settings.lua",
  }
end

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

local function main(arguments)
  local options, status = cli.parse(program, arguments)
  if not options then return status end
  local tell = cli.teller(options.json)
  local mosquitto = find_mosquitto()
  if not mosquitto then
    return cli.fail(tell, program.name, "mosquitto is not installed; `apt-get install mosquitto` brings it", "ENOENT")
  end
  local folder <close> = setmetatable({}, { __close = coroutine.wrap(remove_folder) })
  local made, message, code = coroutine.wrap(make_folder)(folder)
  if not made then return cli.fail(tell, program.name, message, code) end
  local port = free_port()
  local broker <close>, not_started = start_broker(folder.path, mosquitto, port)
  if not broker then return cli.fail(tell, program.name, not_started, "ENOENT") end
  local listens, no_broker = broker_listens(broker)
  if not listens then return cli.fail(tell, program.name, no_broker, "EIO") end
  say("mosquitto listens on 127.0.0.1:%d", port)
  write_file(folder.path .. "/settings.lua",
    ("return { mqtt = {{ host = \"127.0.0.1\", port = %d }}, stun = {}, ntp = {} }\n"):format(port))
  local peer <close>, no_peer = start_peer(folder.path)
  if not peer then return cli.fail(tell, program.name, no_peer, "ENOENT") end
  local address, no_address = address_of(peer)
  if not address then return cli.fail(tell, program.name, no_address, "EIO") end
  say("the second node's address is %s", address)
  local node <close>, why, why_code = p2pd.node {
    settings = folder.path .. "/settings.lua", key = folder.path .. "/own.pem", bind = "127.0.0.1",
  }
  if not node then return cli.fail(tell, program.name, why, why_code) end
  say("this node's address is       %s", node:address())
  say("connecting:")
  local pipe <close>, failed = connect(node, address, tell, options.json)
  if not pipe then return failed end
  for _, line in ipairs(LINES) do exchange(pipe, line) end
  if luv.guess_handle(0) == "tty" then type_to(pipe) end
  pipe:shutdown()
  say("done")
  return cli.OK
end

return main { ... }
