-- Connect to a peer's address and join it to standard input and output.
local cli = require "p2pd.cli"
local luv = require "luv"
local p2pd = require "p2pd"

local program = {
  name = "connect",
  usage = "connect ADDRESS [option...]",
  about = "Opens a connection to the node with this address and joins it to standard input and\n"
    .. "output. Tells on standard error which ways were tried and how each went.",
  options = {
    cli.strategies,
    cli.pipeline,
    { "--timeline", "FILE", "draw what was tried, over time, as a picture (SVG)" },
    { "--timeout", "SECONDS", "give up after so long (20)", range = { 0.001, 86400 } },
  },
  operands = 1,
  epilogue = "Strategies are known by their names (p2pd-lua strategies lists them), or by their files. Those with two\n"
    .. "ends are needed at the other side, too: listen takes the same options.\n"
    .. "Exit status: 0 connected and closed cleanly, 1 could not connect, 2 usage, 3 broke after connecting.",
}

-- Draws the attempt into an open file. The connection is of use without the picture, too.
local function draw(file, report, tell)
  local written, message = luv.fs_write(file, report and p2pd.timeline.svg(report) or "")
  luv.fs_close(file)
  if not written then tell("notice", { message = message }, "p2pd-lua: the timeline is not written: " .. message) end
end

local function main(arguments)
  local options, status = cli.parse(program, arguments)
  if not options then return status end
  local tell = cli.teller(options.json)
  local pipeline, wrong, wrong_code = cli.choose(options)
  if not pipeline then return cli.fail(tell, program.name, wrong, wrong_code, cli.USAGE) end
  -- What is no address is known before anything is opened; names are for the node to judge.
  local peer, not_one, not_one_code = p2pd.address.parse(options[1])
  if not peer and options[1]:find("-", 1, true) then
    return cli.fail(tell, program.name, not_one, not_one_code, cli.USAGE)
  end
  local picture, no_file, no_file_code
  if options.timeline then
    picture, no_file, no_file_code = luv.fs_open(options.timeline, "w", 420) -- 0644
    if not picture then return cli.fail(tell, program.name, no_file, no_file_code, cli.USAGE) end
  end
  local node <close>, why, why_code = p2pd.node(cli.node_options(options, tell, { listen = false }))
  if not node then return cli.fail(tell, program.name, why, why_code) end
  local started = p2pd.now()
  local pipe <close>, message, code = node:connect(options[1], {
    pipeline = pipeline, timeout = options.timeout, on_event = function(rung) cli.tell_rung(tell, rung) end,
  })
  if picture then draw(picture, node.last_report, tell) end
  if not pipe then return cli.fail(tell, program.name, message, code) end
  cli.tell_pipe(tell, pipe, (p2pd.now() - started) * 1000, node.last_report:table().why)
  local joined, broken, broken_code = cli.join(pipe)
  if joined ~= cli.OK then return cli.fail(tell, program.name, broken, broken_code, joined) end
  return joined
end

return main { ... }
