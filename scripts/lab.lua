-- Networks with every kind of NAT, on this machine: make them, and run programs on their hosts.
local cjson = require "cjson"
local luv = require "luv"
local cli = require "p2pd.cli"

local USAGE = [==[
usage: p2pd-lua lab COMMAND [option...]

Makes networks on this machine: hosts behind routers with any kind of NAT, and
real servers (MQTT, STUN, TURN, time) between them. Needs root, or user namespaces.

  up [NAME]               make a lab
  exec HOST CMD...        run a command on a host of it
  run [option...] CMD...  make a lab for one command
  status                  what there is, with all addresses
  set ROUTER KEY=VALUE... change a router while it runs
  cut ROUTER              pull a router's cable out
  mend ROUTER             put it back
  restart SERVER          end a server at once, and start it again
  timeline                what the routers let in, dropped and mapped
  matrix                  try every pair of NATs, and show who connects how
  try PIPELINE            the same with a pipeline of yours beside another one: what got better, what worse
  down [NAME]             end a lab

`p2pd-lua lab COMMAND --help` says more. All but up, run, matrix and try take --lab NAME; without it the lab is called
"lab".
A NAT is written TYPE/DELTA[:VALUE][@FIRST-LAST], as symmetric/random or restricted/independent:3@40000-50000:
  TYPE   open udp-firewall full-cone restricted port-restricted symmetric blocked
  DELTA  equal preserving independent dependent random (not for open, udp-firewall, blocked)
]==]

local which = { "--lab", "NAME", "the lab, where it is not called \"lab\"" }
local json = { "--json", nil, "tell everything as one JSON object" }
local root = { "--root", nil, "let the command keep all rights over the lab (root's rights, where root made the lab)" }
local network = {
  { "--a", "NAT", "a router a with this NAT, and a host a behind it" },
  { "--b", "NAT", "the same for b" },
  { "--router", "NAME KEY=VALUE...", "a router with these options, as nat=symmetric/random", pairs = true },
  { "--hosts", "LIST", "the hosts: a,c=b,d=a+b is a behind a, c behind b, d behind both" },
}
local OPTIONS = [==[
Options of a router: nat, mapping, filtering, allocation, value, ports, timeout_s, transitory_s, uninvited (also as
udp.mapping, tcp.mapping, …); addresses, pairing, hairpin, noise, table, time_scale, seed, ipv6, open_ports, portmap;
carrier.nat, … (a second router in front); of its link: delay_ms, jitter_ms, loss, duplicate, reorder, rate_mbit, up.
Without routers there are a and b, both port-restricted/equal.]==]

local EPIPE = 32 -- errno(3)

local function failed(program, message, code)
  io.stderr:write(("p2pd-lua %s: %s\n"):format(program.name, message))
  return code == "EINVAL" and cli.USAGE or cli.FAILED
end

-- Prints a text, which has to go out. That somebody reads only the beginning of it is fine.
local function say(program, text)
  local ok, message, number = io.stdout:write(text)
  if ok then ok, message, number = io.stdout:flush() end
  if ok or number == EPIPE then return cli.OK end
  return failed(program, "EIO: cannot write what there is to say: " .. message, "EIO")
end

local function list_with(list, ...)
  local all = table.move(list, 1, #list, 1, {})
  for _, option in ipairs { ... } do all[#all + 1] = option end
  return all
end

-- The lab's options from the arguments --------------------------------------------------------------------------------

local function options_of_router(words)
  local router_options = require "p2pd.lab.options"
  local options = assert(router_options.router {})
  for i = 2, #words do
    local key, value = words[i]:match "^([^=]+)=(.*)$"
    local set, message, code = router_options.set(options, key, value)
    if not set then return nil, ("%s (router '%s')"):format(message, words[1]), code end
    options = set
  end
  return options
end

local function hosts_option(text)
  local hosts = {}
  for part in text:gmatch "[^,]+" do
    local name, routers = part:match "^([^=]+)=(.+)$"
    local list = {}
    for router in (routers or part):gmatch "[^+]+" do list[#list + 1] = router end
    hosts[name or part] = list
  end
  return hosts
end

local function lab_options(values, name)
  local options = { name = name, a = values.a, b = values.b, routers = {} }
  for _, words in ipairs(values.router or {}) do
    local router, message, code = options_of_router(words)
    if not router then return nil, message, code end
    options.routers[words[1]] = router
  end
  if values.hosts then options.hosts = hosts_option(values.hosts) end
  return options
end

-- The subcommands -----------------------------------------------------------------------------------------------------

local commands = {}

local function attach(program, values)
  local lab, message, code = require("p2pd.lab").attach(values.lab or values[1] or "lab")
  if lab then return lab end
  return nil, failed(program, message, code)
end

commands.up = {
  usage = "lab up [NAME] [option...]", operands = 1, optional = 1, options = list_with(network, json),
  about = "Makes a lab, called \"lab\" unless it gets a name; it stays until `lab down`.", epilogue = OPTIONS,
}

function commands.up.run(program, values)
  local options, message, code = lab_options(values, values[1] or "lab")
  if not options then return failed(program, message, code) end
  local lab <close>, not_up, not_up_code = require("p2pd.lab").up(options)
  if not lab then return failed(program, not_up, not_up_code) end
  local status = commands.status.run(program, values, lab)
  if status == cli.OK then lab:stay() end -- else it has not been told of, and ends here
  return status
end

commands.exec = {
  usage = "lab exec [option...] HOST [--] CMD...", operands = 1, command = true, options = { which, root },
  about = "Runs a command on a host, in this folder and terminal, but with the host's own home folder and\n"
    .. "settings, so that `p2pd-lua lab exec a p2pd-lua listen` uses the lab's servers. It has no\n"
    .. "capabilities. The exit status is the command's.",
}

function commands.exec.run(program, values)
  local lab, status = attach(program, { lab = values.lab })
  if not lab then return status end
  local host, message, code = lab:host(values[1])
  if not host then return failed(program, message, code) end
  values.command.root = values.root
  status, message = host:exec(values.command)
  return status or failed(program, message)
end

commands.run = {
  usage = "lab run [option...] [--] CMD...", command = true, options = list_with(network, root),
  about = "Makes a lab for one command, which runs on host a (or the first by name), and ends it with the\n"
    .. "command, whose exit status is the program's. P2PD_LAB, P2PD_LAB_HOST and P2PD_LAB_HOSTS hold names.",
  epilogue = OPTIONS,
}

function commands.run.run(program, values)
  local options, message, code = lab_options(values, ("run-%d"):format(luv.os_getpid()))
  if not options then return failed(program, message, code) end
  local lab <close>, not_up, not_up_code = require("p2pd.lab").up(options)
  if not lab then return failed(program, not_up, not_up_code) end
  local there, host
  there, message, code = lab:status()
  if not there then return failed(program, message, code) end
  if not there.hosts[1] then
    return failed(program, "EINVAL: this lab has no host that could run the command", "EINVAL")
  end
  host, message, code = lab:host(there.hosts[1].name)
  if not host then return failed(program, message, code) end
  values.command.root = values.root
  local status
  status, message = host:exec(values.command)
  return status or failed(program, message)
end

commands.status = {
  usage = "lab status [option...]", options = { which, json }, about = "Tells what there is in a lab.",
}

function commands.status.run(program, values, lab)
  local status
  if not lab then
    lab, status = attach(program, values)
    if not lab then return status end
  end
  local there, message, code = lab:status()
  if not there then return failed(program, message, code) end
  return say(program, values.json and cjson.encode(there) .. "\n" or require("p2pd.lab.words").status(there))
end

commands.set = {
  usage = "lab set [option...] ROUTER KEY=VALUE...", operands = 1, pairs = true, options = { which },
  about = "Changes a router while it runs: its NAT, its link, or by address=IP its external address.",
  epilogue = OPTIONS,
}

function commands.set.run(program, values)
  local lab, status = attach(program, { lab = values.lab })
  if not lab then return status end
  local options = {}
  for _, word in ipairs(values.pairs or {}) do
    local key, value = word:match "^([^=]+)=(.*)$"
    options[key] = value
  end
  local unknown = require("p2pd.lab.options").unknown_change(options)
  if unknown then return failed(program, "EINVAL: " .. unknown, "EINVAL") end
  local ok, message, code = lab:set(values[1], options)
  return ok and cli.OK or failed(program, message, code)
end

-- Those that ask for one thing by name.
for name, about in pairs {
  cut = "Pulls a router's cable out: nothing passes, and nobody is told.", mend = "Puts a router's cable back.",
  restart = "Ends a server at once, and starts it again.",
} do
  commands[name] = {
    usage = ("lab %s [option...] %s"):format(name, name == "restart" and "SERVER" or "ROUTER"), operands = 1,
    options = { which }, about = about,
  }
  commands[name].run = function(program, values)
    local lab, status = attach(program, { lab = values.lab })
    if not lab then return status end
    local ok, message, code = lab[name](lab, values[1])
    return ok and cli.OK or failed(program, message, code)
  end
end

commands.timeline = {
  usage = "lab timeline [option...]", about = "Tells what the routers did with each packet, the first first.",
  options = {
    which, { "--since", "SECONDS", "only what came later, in seconds since the lab was up", range = { 0, 1e9 } },
  },
}

function commands.timeline.run(program, values)
  local lab, status = attach(program, values)
  if not lab then return status end
  local text, message, code = lab:timeline(values.since)
  if not text then return failed(program, message, code) end
  return say(program, text)
end

commands.down = {
  usage = "lab down [NAME]", operands = 1, optional = 1, options = { which },
  about = "Ends a lab, with all that runs in it.",
}

function commands.down.run(program, values)
  local lab, status = attach(program, values)
  if not lab then return status end
  local ok, message, code = lab:down()
  return ok and cli.OK or failed(program, message, code)
end

-- Long, and seldom wanted.
setmetatable(commands, { __index = function(_, name)
  return (name == "matrix" or name == "try") and require(("p2pd.lab.%s_command"):format(name)) or nil
end })

-- The lab's own processes.
local hidden = {
  keeper = function() return require("p2pd.lab.keeper").run() end,
  router = function() return require("p2pd.lab.router")() end,
  ["end"] = function() return require("p2pd.lab.matrix_end").run() end,
}

local function main(name, ...)
  if name == nil or name == "--help" or name == "-h" then
    if name then return say({ name = "lab" }, USAGE) end
    io.stderr:write(USAGE)
    return cli.USAGE
  end
  if hidden[name] then return hidden[name](...) end
  local program = commands[name]
  if not program then
    io.stderr:write(("p2pd-lua lab: unknown command '%s'\n%s"):format(name, USAGE))
    return cli.USAGE
  end
  program.name, program.bare = "lab " .. name, true
  local values, status = cli.parse(program, { ... })
  if not values then return status end
  return program.run(program, values)
end

return main(...)
