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

local function scratch_folder()
  local path = assert(luv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/p2pd-demo-XXXXXX"))
  return setmetatable({ path = path }, {
    __close = function()
      for name in luv.fs_scandir_next, luv.fs_scandir(path) do luv.fs_unlink(path .. "/" .. name) end
      luv.fs_rmdir(path)
    end,
  })
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
  for folder in (os.getenv "PATH" .. ":/usr/sbin:/usr/local/sbin"):gmatch "[^:]+" do
    if luv.fs_access(folder .. "/mosquitto", "X") then return folder .. "/mosquitto" end
  end
end

local function say(...)
  print(("demo: " .. ...):format(select(2, ...)))
  io.stdout:flush()
end

local function start_broker(folder, path)
  local port = free_port()
  write_file(folder .. "/mosquitto.conf",
    ("listener %d 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\n"):format(port))
  local broker, message = process.start { path, "-c", folder .. "/mosquitto.conf" }
  if not broker then return nil, message end
  for line in broker:lines() do
    if line:find "running" then
      say("mosquitto listens on 127.0.0.1:%d", port)
      return broker, port
    end
  end
  broker:close()
  return nil, "mosquitto ended before it listened"
end

-- The second node: the program itself, as `listen --echo`.
local function start_peer(folder)
  local peer, message = process.start {
    luv.exepath(), "listen", "--echo", "--bind", "127.0.0.1", "--key", folder .. "/peer.pem",
    "--settings", folder .. "/settings.lua",
  }
  if not peer then return nil, message end
  for line in peer:lines() do
    local address = line:match "^address (.+)$"
    if address then return peer, address end
    say("the second node says: %s", line)
  end
  peer:close()
  return nil, "the second node ended before it had an address"
end

local function connect(node, address)
  local events = cli.teller(false)
  local started = p2pd.now()
  local pipe, message, code = node:connect(address, {
    on_event = function(rung)
      cli.tell_rung(function(_, _, words) say("  %s", words) end, rung)
    end,
  })
  if not pipe then return nil, cli.fail(events, program.name, message, code) end
  cli.tell_pipe(function(_, _, words) say("%s", words) end, pipe, (p2pd.now() - started) * 1000)
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
  local folder <close> = scratch_folder()
  local broker <close>, port = start_broker(folder.path, mosquitto)
  if not broker then return cli.fail(tell, program.name, port, "ENOENT") end
  write_file(folder.path .. "/settings.lua",
    ("return { mqtt = {{ host = \"127.0.0.1\", port = %d }}, stun = {}, ntp = {} }\n"):format(port))
  local peer <close>, address = start_peer(folder.path)
  if not peer then return cli.fail(tell, program.name, address, "EIO") end
  say("the second node's address is %s", address)
  local node <close>, message, code = p2pd.node {
    settings = folder.path .. "/settings.lua", key = folder.path .. "/own.pem", bind = "127.0.0.1",
  }
  if not node then return cli.fail(tell, program.name, message, code) end
  say("this node's address is       %s", node:address())
  say("connecting:")
  local pipe <close>, failed = connect(node, address)
  if not pipe then return failed end
  for _, line in ipairs(LINES) do exchange(pipe, line) end
  if luv.guess_handle(0) == "tty" then type_to(pipe) end
  pipe:shutdown()
  say("done")
  return cli.OK
end

return main { ... }
