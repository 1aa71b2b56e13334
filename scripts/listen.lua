-- Wait for a peer and join it to standard input and output; or echo to any number of peers.
local cli = require "p2pd.cli"
local p2pd = require "p2pd"

local program = {
  name = "listen",
  usage = "listen [--echo] [option...]",
  about = "Starts a node, prints its address, and joins the first peer that connects to standard\n"
    .. "input and output. A second peer is turned away while the first is there.",
  options = {
    { "--echo", nil, "send back what arrives, to any number of peers" },
    { "--port", "N", "listen on this port (the default derives from the key)", range = { 1, 65535, whole = true } },
    { "--console", "PATH", "open a socket at PATH for `p2pd-lua attach PATH`: a prompt inside this program" },
    cli.strategies,
    cli.pipeline,
    cli.watch,
  },
  epilogue = "Exit status: 0 the peer closed cleanly, 1 the node could not start, 2 usage, 3 the connection broke.",
}

local function echo(tell, pipe)
  local _ <close> = pipe
  cli.tell_pipe(tell, pipe)
  local data, message, code = pipe:recv()
  while data and pipe:send(data) do data, message, code = pipe:recv() end
  pipe:shutdown()
  tell("closed", { peer = pipe.peer, code = code ~= "EOF" and code or nil },
    ("%s: %s"):format(pipe.remote, code == "EOF" and "closed" or message or "broken"))
end

local function join_first(tell, node)
  local taken = false
  local outcome = p2pd.channel()
  p2pd.spawn(function()
    for pipe in node:accept() do
      if taken then
        pipe:refuse "EBUSY"
        tell("refused", { peer = pipe.peer, code = "EBUSY" }, pipe.remote .. " was turned away: a peer is there")
      else
        taken = true
        p2pd.spawn(function()
          local _ <close> = pipe
          cli.tell_pipe(tell, pipe)
          outcome:send { cli.join(pipe) }
        end)
      end
    end
  end)
  return table.unpack(outcome:recv())
end

-- A prompt inside this program, which finds the node as `node`.
local function open_console(path, node, tell)
  if not path then return nil end
  return require("p2pd.console").open {
    path = path, names = { node = node },
    on_notice = function(text) tell("notice", { message = text }, "p2pd-lua: " .. text) end,
  }
end

local function main(arguments)
  local options, status = cli.parse(program, arguments)
  if not options then return status end
  local tell = cli.teller(options.json)
  local pipeline, wrong, wrong_code = cli.choose(options)
  if not pipeline then return cli.fail(tell, program.name, wrong, wrong_code, cli.USAGE) end
  local function tell_address(address)
    if options.echo then
      print("address " .. address)
      io.stdout:flush()
    else
      tell("address", { address = address }, "address " .. address)
    end
  end
  local node <close>, message, code = p2pd.node(cli.node_options(options, tell, {
    on_address = tell_address, pipeline = pipeline,
  }))
  if not node then return cli.fail(tell, program.name, message, code) end
  if options.watch then
    local watched, no_watch, why = cli.watch_files(tell, node)
    if not watched then return cli.fail(tell, program.name, no_watch, why) end
  end
  local _ <close>, no_console, reason = open_console(options.console, node, tell)
  if no_console then return cli.fail(tell, program.name, no_console, reason) end
  if options.echo then
    local written, why = io.stdout:write("address ", node:address(), "\n")
    if written then written, why = io.stdout:flush() end
    if not written then return cli.fail(tell, program.name, "EIO: the address cannot be written: " .. why, "EIO") end
    for pipe in node:accept() do p2pd.spawn(echo, tell, pipe) end
    return cli.OK
  end
  tell_address(node:address())
  status, message, code = join_first(tell, node)
  if status ~= cli.OK then return cli.fail(tell, program.name, message, code, status) end
  return status
end

return main { ... }
