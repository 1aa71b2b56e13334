-- The prompt inside a program that runs: one that was started with --console PATH.
local cli = require "p2pd.cli"
local luv = require "luv"

local program = {
  name = "attach",
  usage = "attach PATH",
  about = "Attaches to a program that was started with --console PATH: what is typed here is evaluated there,\n"
    .. "each line as a task of that program's. What the lines print is shown here. Ctrl-C cancels the line\n"
    .. "that runs there, Ctrl-D detaches and leaves the program running. :help tells more.",
  operands = 1, bare = true,
  epilogue = "Exit status: 0 detached, or the program has ended; 1 it could not be attached to; 2 usage.",
}

local function main(arguments)
  local options, status = cli.parse(program, arguments)
  if not options then return status end
  local tell = cli.teller(false)
  if luv.guess_handle(0) ~= "tty" then
    return cli.fail(tell, program.name, "ENOTTY: standard input is no terminal to type at", "ENOTTY")
  end
  local ok, message, code = require("p2pd.repl.attaching").run(options[1])
  if ok then return cli.OK end
  return cli.fail(tell, program.name, message, code)
end

return main { ... }
