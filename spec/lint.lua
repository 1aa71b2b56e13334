-- lint: what a machine can see of the house rules, in C and Lua.
--
--   lua5.4 spec/lint.lua [--build DIR]
--
-- Ends with "N passed, N failed", one case for each rule or program.
local passed, failed = 0, 0

-- Another version lays some lines out otherwise, so only this one's judgement counts.
local CLANG_FORMAT = "14"
local MAX_LINES, MAX_C_COLUMNS = 500, 100

-- "Includes point downward only": the units of core/, layer upon layer. A unit may include its own layer and those
-- before. What is called after a unit (pipe_flow) is part of it; what is not listed must only not lead back to itself.
local LAYERS = {
  { "err", "log", "loop" },
  { "ip", "bytes", "crypto", "suite", "warm", "bucket", "chance", "frame" },
  { "key", "seal", "derive", "addr", "stun_msg", "turn_msg", "ntp_msg", "mqtt_frame", "nat", "nat_model", "packet",
    "link", "predict", "punch_plan" },
  { "wire", "timers", "tcp", "udp", "dns", "nic", "ntp", "clock", "machine", "identity" },
  { "tls", "stream", "paho", "inbox", "outbox", "uplink", "mqtt", "signal" },
  { "stun", "turn", "portmap", "punch", "pipe", "listener", "router" },
}

local function case(name, problems)
  local good = #problems == 0
  print(("%s - %s"):format(good and "ok" or "not ok", name))
  for _, problem in ipairs(problems) do print("  " .. problem) end
  if good then passed = passed + 1 else failed = failed + 1 end
end

local function lines_of(command)
  local pipe, lines = assert(io.popen(command)), {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  local ok = pipe:close()
  return lines, ok
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

local function each_line(paths, look)
  local problems = {}
  for _, path in ipairs(paths) do
    local number = 0
    for line in (read(path) .. "\n"):gmatch "([^\n]*)\n" do
      number = number + 1
      local problem = look(line, path, number)
      if problem then problems[#problems + 1] = ("%s:%d: %s"):format(path, number, problem) end
    end
  end
  return problems
end

local c_files = lines_of "find core bindings spec/c spec/fuzz spec/bench spec/support -name '*.[ch]' | sort"
local lua_files = lines_of "find lua scripts spec -name '*.lua' | sort"
local all_files = table.move(lua_files, 1, #lua_files, #c_files + 1, table.move(c_files, 1, #c_files, 1, {}))
local core_files, binding_files = {}, {}
for _, path in ipairs(c_files) do
  if path:find "^core/" then core_files[#core_files + 1] = path end
  if path:find "^bindings/" then binding_files[#binding_files + 1] = path end
end

-- Rules ---------------------------------------------------------------------------------------------------------------

local function rule_lua_free()
  case("core/ knows nothing of Lua", each_line(core_files, function(line)
    local header = line:match '^%s*#%s*include%s*[<"]([^>"]+)'
    return header and (header:find "^l?ua[xlu%d]" or header:find "^luv/" or header:find "^bindings/")
      and "includes " .. header
  end))
end

local function rule_one_yielder()
  case("only bindings/wait.c yields and resumes", each_line(binding_files, function(line, path)
    local name = line:match "%f[%w_](lua_yieldk?)%s*%(" or line:match "%f[%w_](lua_resume)%s*%("
    return path ~= "bindings/wait.c" and not line:find "^%s*/?%*" and name and "calls " .. name
  end))
end

local function rule_file_length()
  local problems = {}
  for _, path in ipairs(all_files) do
    local _, count = read(path):gsub("\n", "")
    if count > MAX_LINES and not path:find "^spec/" then
      problems[#problems + 1] = ("%s has %d lines"):format(path, count)
    end
  end
  case(("no file is longer than %d lines"):format(MAX_LINES), problems)
end

local function rule_columns()
  case(("lines of C end by column %d"):format(MAX_C_COLUMNS), each_line(c_files, function(line)
    local columns = utf8.len(line) or #line
    return columns > MAX_C_COLUMNS and ("%d columns"):format(columns)
  end))
end

local function rule_no_notes()
  case("nothing is left for later in a comment", each_line(all_files, function(line, path)
    if path == "spec/lint.lua" then return nil end
    local note = line:match "%f[%w](TODO)%f[%W]" or line:match "%f[%w](FIXME)%f[%W]" or line:match "%f[%w](XXX)%f[%W]"
      or line:match "%f[%w](HACK)%f[%W]"
    return note and "says " .. note
  end))
end

-- What each unit includes, and in which file: { pipe = { tls = "core/pipe_flow.c" } }
local function units(layer)
  local function unit_of(name)
    if layer[name] then return name end
    local stem = name:match "^(.*)_[^_]+$"
    return stem and layer[unit_of(stem)] and unit_of(stem) or name
  end
  local included = {}
  for _, path in ipairs(core_files) do
    local unit = unit_of(path:match "([%w_]+)%.[ch]$")
    included[unit] = included[unit] or {}
    for name in read(path):gmatch '#%s*include%s*"core/([%w_]+)%.h"' do
      if unit_of(name) ~= unit then included[unit][unit_of(name)] = path end
    end
  end
  return included
end

local function rule_downward()
  local layer, problems, state = {}, {}, {}
  for depth, names in ipairs(LAYERS) do
    for _, name in ipairs(names) do layer[name] = depth end
  end
  local included = units(layer)
  local function visit(unit, trail)
    if state[unit] == "open" then problems[#problems + 1] = ("a circle: %s > %s"):format(trail, unit) end
    if state[unit] then return end
    state[unit] = "open"
    for name, path in pairs(included[unit] or {}) do
      if layer[unit] and layer[name] and layer[name] > layer[unit] then
        problems[#problems + 1] = ("%s includes %s, which is above it"):format(path, name)
      end
      visit(name, trail .. " > " .. name)
    end
    state[unit] = "done"
  end
  for unit in pairs(included) do visit(unit, unit) end
  table.sort(problems)
  case("the includes of core/ point downward", problems)
end

-- Programs ------------------------------------------------------------------------------------------------------------

local function program(name, command)
  local lines, ok = lines_of("timeout 300 " .. command .. " 2>&1")
  if not ok and #lines == 0 then lines[1] = "it failed: " .. command end
  case(name, ok and {} or lines)
end

local function layout()
  local version = lines_of("clang-format --version 2>&1")[1] or ""
  if version:match "version (%d+)" ~= CLANG_FORMAT then
    print(("  clang-format is not asked: the files are laid out by version %s, and this is: %s")
      :format(CLANG_FORMAT, version))
    return
  end
  local places, problems = {}, {}
  for _, line in ipairs(lines_of("clang-format --dry-run " .. table.concat(c_files, " ") .. " 2>&1")) do
    local path = line:match "^(%S+):%d+:%d+: warning"
    if path then places[path] = (places[path] or 0) + 1 end
  end
  for path, count in pairs(places) do problems[#problems + 1] = ("%s: %d places"):format(path, count) end
  table.sort(problems)
  case("clang-format", problems)
end

local build = arg[1] == "--build" and arg[2] or "build"
rule_lua_free()
rule_one_yielder()
rule_file_length()
rule_columns()
rule_no_notes()
rule_downward()
program("luacheck", "luacheck --no-color --codes -q lua scripts spec")
layout()
program("clang-tidy", ("sh -c 'make --no-print-directory BUILD=%s compile_commands.json && "
  .. "printf \"%%s\\n\" core/*.c bindings/*.c | xargs -P2 -n6 clang-tidy --quiet -p . 2>/dev/null'"):format(build))
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
