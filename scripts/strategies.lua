-- List the strategies that have names, or print one to be copied and changed.
local cli = require "p2pd.cli"
local p2pd = require "p2pd"

local program = {
  name = "strategies",
  usage = "strategies [NAME]",
  about = "Lists the strategies and pipelines that are known by their names: those built in, your\n"
    .. "own, and examples. With a NAME: prints that one's text.\n\n"
    .. "Your own lie in " .. p2pd.pipeline.folder() .. ".",
  bare = true,
  operands = 1,
  optional = 1,
  epilogue = "A copy to begin with:  p2pd-lua strategies default > mine.lua",
}

-- What the first words of a file say of it.
local function about(text)
  local line = ("\n" .. text):match "\n%-%-+%s*([^\n]*)" or ""
  return line:gsub("^[%w_-]+: ", ""):match "^[^.:;,(]*"
end

local function list()
  for _, each in ipairs(p2pd.pipeline.list()) do
    local text, message = p2pd.pipeline.text(each.name)
    local words = each.hidden and ("its name is taken: one that is %s has it"):format(each.hidden)
      or text and about(text) or message
    print(("%-16s %-9s %s"):format(each.name, each.from, words))
  end
  return cli.OK
end

local function main(arguments)
  local options, status = cli.parse(program, arguments)
  if not options then return status end
  if not options[1] then return list() end
  local text, message, code = p2pd.pipeline.text(options[1])
  if not text then return cli.fail(cli.teller(), program.name, message, code) end
  io.stdout:write(text)
  return cli.OK
end

return main { ... }
