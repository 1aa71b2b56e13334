-- Connect to a peer's address and join it to standard input and output.
local cli = require "p2pd.cli"
local p2pd = require "p2pd"

local program = {
  name = "connect",
  usage = "connect ADDRESS [option...]",
  about = "Opens a connection to the node with this address and joins it to standard input and\n"
    .. "output. Tells on standard error which ways were tried and how each went.",
  options = {
    { "--strategies", "A,B", "only these ways: names, or files of your own (direct,./mine.lua)" },
    { "--pipeline", "FILE", "a pipeline of your own: a Lua file that returns one" },
    { "--timeout", "SECONDS", "give up after so long (20)", range = { 0.001, 86400 } },
  },
  operands = 1,
  epilogue = "Exit status: 0 connected and closed cleanly, 1 could not connect, 2 usage, 3 broke after connecting.",
}

local function split(list)
  local names = {}
  for name in list:gmatch "[^,]+" do names[#names + 1] = name end
  return names
end

local function main(arguments)
  local options, status = cli.parse(program, arguments)
  if not options then return status end
  local tell = cli.teller(options.json)
  local pipeline, message, code
  if options.pipeline then
    pipeline, message, code = p2pd.pipeline.load(options.pipeline)
    if not pipeline then return cli.fail(tell, program.name, message, code, cli.USAGE) end
  end
  local node <close>
  node, message, code = p2pd.node(cli.node_options(options, tell, { listen = false }))
  if not node then return cli.fail(tell, program.name, message, code) end
  local started = p2pd.now()
  local pipe <close>
  pipe, message, code = node:connect(options[1], {
    strategies = options.strategies and split(options.strategies), pipeline = pipeline, timeout = options.timeout,
    on_event = function(rung) cli.tell_rung(tell, rung) end,
  })
  if not pipe then return cli.fail(tell, program.name, message, code) end
  cli.tell_pipe(tell, pipe, (p2pd.now() - started) * 1000)
  status, message, code = cli.join(pipe)
  if status ~= cli.OK then return cli.fail(tell, program.name, message, code, status) end
  return status
end

return main { ... }
