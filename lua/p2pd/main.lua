-- main: what the arguments mean, read as lua5.4 reads its own; this file is the body of the first task.
local core = require "p2pd.core"

local OK, FAILED, USAGE = 0, 1, 2

local usage = [==[
usage: p2pd-lua [option...] [FILE.lua [ARG...]]
       p2pd-lua NAME [ARG...]
Without FILE or NAME: what standard input holds, or at a terminal a prompt for Lua.

  -e CODE     run the code
  -l MODULE   require the module into a global of its name (-l NAME=MODULE: of that name)
  -i          go to the prompt when the script has ended
  -v          print the version
  -E          look at no LUA_… variable of the environment
  -W          turn warnings on
  --          end of the options
  -           run standard input
  -h, --help  print this text
]==]

local function complain(...)
  io.stderr:write("p2pd-lua: ", table.concat { ... }, "\n")
end

-- The name and first line of each built-in script.
local function builtins()
  local found = {}
  for _, path in ipairs(core.source.list()) do
    local name = path:match "^scripts/([%w_-]+)%.lua$"
    if name then
      local about = ("\n" .. core.source.text(path)):match "\n%-%-+%s*([^\n]*)" or ""
      found[#found + 1] = { name = name, about = about:gsub("^" .. name:gsub("%p", "%%%0") .. ":%s*", "") }
    end
  end
  table.sort(found, function(a, b) return a.name < b.name end)
  return found
end

local function print_help()
  local lines = { usage }
  local scripts = builtins()
  if #scripts > 0 then lines[#lines + 1] = "Built-in programs (p2pd-lua NAME --help says more):" end
  for _, script in ipairs(scripts) do
    lines[#lines + 1] = ("  %-11s %s"):format(script.name, script.about)
  end
  io.stdout:write(table.concat(lines, "\n"), "\n")
end

local function print_version()
  io.stdout:write("p2pd-lua ", core.version, "  ", _VERSION, "\n")
end

-- Splits the arguments into options, steps to be run in their order, and the place of the script's name.
local function collect(argv)
  local options, place = { steps = {} }, 1
  while argv[place] do
    local word = argv[place]
    local letter, value = word:match "^%-([el])(.*)$"
    if letter then
      if value == "" then
        place = place + 1
        value = argv[place]
        if not value or value:sub(1, 1) == "-" then return nil, ("'%s' needs an argument"):format(word) end
      end
      options.steps[#options.steps + 1] = { letter, value }
    elseif word == "-h" or word == "--help" then
      options.help = true
    elseif word == "--" then
      options.literal = true
      place = place + 1
      break
    elseif word:match "^%-[ivEW]$" then
      options[word:sub(2)] = true
      if word == "-W" then options.steps[#options.steps + 1] = { "W" } end
    elseif word ~= "-" and word:sub(1, 1) == "-" then
      return nil, ("unknown option '%s'"):format(word)
    else
      break
    end
    place = place + 1
  end
  options.script = argv[place] and place
  return options
end

-- Each loader gives a function, or nil, what to say about it, and the exit status.

local function load_code(code, name)
  local body, message = load(code, name, "bt")
  return body, message, FAILED
end

local function load_file(path)
  local body, message = loadfile(path)
  return body, message, FAILED
end

local function exists(path)
  local file = io.open(path)
  return file and file:close()
end

local function load_script(name, options)
  if name == "-" and not options.literal then return load_file() end
  if name:find "/" or name:find "%.lua$" then return load_file(name) end
  local body, message = core.source.load(("scripts/%s.lua"):format(name))
  if body then
    options.builtin = true
    return body
  end
  if not message:find "^no embedded file" then return nil, message, FAILED end
  if exists(name) then return load_file(name) end
  local names = {}
  for i, script in ipairs(builtins()) do names[i] = script.name end
  local guess = require("p2pd.repl.near").among(name, names)
  return nil, ("'%s' is neither a built-in program nor a file%s"):format(name,
    guess and "; did you mean " .. guess .. "?" or " (p2pd-lua --help lists the programs)"), USAGE
end

local function step_body(step)
  local letter, value = step[1], step[2]
  if letter == "e" then return load_code(value, "=(command line)") end
  if letter == "W" then return function() warn "@on" end end
  local global, module = value:match "^([^=]*)=(.*)$"
  if not module then global, module = value:match "^[^-]*", value end
  return load_code(("_G[%q] = require %q"):format(global, module), "=(command line)")
end

local function environment_body()
  for _, name in ipairs { "LUA_INIT_5_4", "LUA_INIT" } do
    local text = os.getenv(name)
    if text and text:sub(1, 1) == "@" then return load_file(text:sub(2)) end
    if text then return load_code(text, "=" .. name) end
  end
  return function() end
end

-- A tail call, so that tracebacks say "main chunk" as lua5.4's do; main.c leaves out what is below that.
local function enter(body, ...)
  return body(...)
end

local function is_terminal()
  return require("luv").guess_handle(0) == "tty"
end

local function set_arguments(argv, script)
  local shift = script or 0
  local shifted = {}
  for place = 0, #argv do shifted[place - shift] = argv[place] end
  _G.arg = shifted
end

local function main(argv)
  local options, problem = collect(argv)
  if not options then
    complain(problem)
    io.stderr:write(usage)
    return USAGE
  end
  if options.help then
    print_help()
    return OK
  end
  local script = options.script and argv[options.script]
  local asks = options.i or not script and not options.v and #options.steps == 0
  local at_prompt = asks and is_terminal()
  if options.v and not at_prompt then print_version() end
  set_arguments(argv, options.script)
  if not options.E then
    local body, message, status = environment_body()
    if not body then
      complain(message)
      return status
    end
    enter(body)
  end
  for _, step in ipairs(options.steps) do
    local body, message, status = step_body(step)
    if not body then
      complain(message)
      return status
    end
    enter(body)
  end
  local body, message, status
  if script then
    body, message, status = load_script(script, options)
  elseif asks and not at_prompt then
    body, message, status = load_file()
  end
  if message then
    complain(message)
    if not at_prompt then return status end
  end
  if at_prompt then return require("p2pd.repl").run(body, arg) end
  if not body then return OK end
  local result = enter(body, table.unpack(arg, 1, #arg))
  if options.i and script then
    body, message = load_file()
    if not body then
      complain(message)
      return FAILED
    end
    enter(body)
  end
  return options.builtin and math.tointeger(result) or OK
end

local status = main(...)
return status
