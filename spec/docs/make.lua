-- make: the reference and the guide as HTML, and the manual pages: `make docs`.
--
--   lua5.4 spec/docs/make.lua [--build DIR] [FOLDER]   writes FOLDER (DIR/docs); asks DIR/p2pd-lua what it can do
package.path = "./?.lua;./lua/?.lua;" .. package.path
local manual = require "spec.docs.manual"
local programs = require "spec.docs.programs"
local reference = require "spec.docs.reference"
local site = require "spec.docs.site"
local tools = require "spec.docs.tools"

-- The page of the programs, from its text and what they say of themselves.
local function page_of(all)
  local commands = {}
  for place, command in ipairs(all.commands) do
    commands[place] = ("### `%s`\n%s"):format(command.name, command.text)
  end
  local values = { options = all.options, list = all.list, commands = table.concat(commands, "\n") }
  return (tools.read "spec/docs/programs.md":gsub("{{(%l+)}}", values))
end

local build, folder = "build", nil
local place = 1
while arg[place] do
  if arg[place] == "--build" then
    place = place + 1
    build = arg[place]
  else
    folder = arg[place]
  end
  place = place + 1
end
folder = folder or build .. "/docs"
local program = build .. "/p2pd-lua"
local all = programs.all(program)
all.page = page_of(all)
local version = tools.output(tools.quoted(program) .. " -v"):match "^p2pd%-lua (%S+)"
local modules = reference.modules "lua/meta"
tools.folder(folder .. "/man")
site.write(folder, modules, all, version)
manual.write(folder .. "/man", modules, all, version)
print(folder .. "/index.html")
