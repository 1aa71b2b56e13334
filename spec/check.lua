-- check: everything that has to hold, part by part: a line each with its time, and what failed in full; at the end what
-- failed once more, in short, and the sum of all cases on the last line.
--
--   lua5.4 spec/check.lua [--build DIR] [--only PART,...] [--jobs N] [FILE...]
--
-- Parts: build clang c replay spec lint asan tsan; all but tsan unless told. FILE: of specs and C tests only these.
-- CI=true lists each case. A spec says in a comment of its first lines how it is to be run, if not as others are:
--
--   check: alone           with nothing beside it, since it measures times
--   check: timeout 300     seconds instead of 120; under sanitizers three times as long
--   check: unsanitized     not under sanitizers
--
-- Each part is a session of its own with a mark in its environment. What still carries the mark when the part has ended
-- was left behind: that is a failure, and it is ended here. The same goes for network namespaces with names.
package.path = "./?.lua;" .. package.path
local luv = require "luv"
local processes = require "spec.support.processes"

local TIMEOUT, SLOWDOWN, GRACE = 120, 3, 1.5 -- seconds; factor under sanitizers; seconds to end what was started
local BUILD_TIMEOUT = 900
local SHORT = 30 -- lines of what failed that are told once more
local SEARCHABLE = 457 -- 0711: specs that become an ordinary user have folders of that user's in there

local options = { build = "build", jobs = math.max(2, math.min(4, #luv.cpu_info())), files = {} }
local verbose = os.getenv "CI" == "true"
local inherited = luv.os_environ()
local lua = processes.which "lua5.4"
local make = processes.which(inherited.MAKE or "make") or inherited.MAKE
local scratch = assert(luv.fs_mkdtemp((inherited.TMPDIR or "/tmp") .. "/p2pd-check-XXXXXX"))
luv.fs_chmod(scratch, SEARCHABLE)
local totals = { passed = 0, failed = 0 }
local failures = {} -- lists of lines

-- Counting ------------------------------------------------------------------------------------------------------------

-- Returns how many cases passed, how many failed, and what each is called; nothing where there is nothing to count.
local count = {}

function count.summary(text)
  local passed, failed = ("\n" .. text):match ".*\n(%d+) passed, (%d+) failed"
  local cases = {}
  for case in text:gmatch "%f[^\n\0]ok %- ([^\n]+)" do cases[#cases + 1] = case end
  if passed then return tonumber(passed), tonumber(failed), cases end
end

-- The Test Anything Protocol, as busted prints it.
function count.tap(text)
  local passed, failed, cases = 0, 0, {}
  for line in text:gmatch "[^\n]+" do
    local name = line:match "^ok %d+ %- (.*)"
    if name then
      passed = passed + (name:find "^# SKIP" and 0 or 1)
      cases[#cases + 1] = name
    elseif line:find "^not ok %d+ " then
      failed = failed + 1
    end
  end
  return passed, failed, cases
end

function count.one() end

-- What a part leaves behind -------------------------------------------------------------------------------------------

local function marked(folder)
  local found, mark = {}, "\0P2PD_CHECK=" .. folder .. "\0"
  for name in processes.folder "/proc" do
    if name:find "^%d+$" and ("\0" .. processes.read("/proc/" .. name .. "/environ")):find(mark, 1, true) then
      found[#found + 1] = {
        pid = tonumber(name), command = processes.read("/proc/" .. name .. "/cmdline"):gsub("%z", " "),
      }
    end
  end
  return found
end

local function end_left_over(folder)
  local deadline, left = luv.hrtime() + GRACE * 1e9, marked(folder)
  while #left > 0 and luv.hrtime() < deadline do
    processes.sleep(0.05)
    left = marked(folder)
  end
  local lines = {}
  for _, process in ipairs(left) do
    lines[#lines + 1] = ("left behind: process %d: %s"):format(process.pid, process.command)
    luv.kill(process.pid, "sigkill")
  end
  return lines
end

local function namespaces()
  local names = {}
  for name in processes.folder "/run/netns" do names[name] = true end
  return names
end

-- Running a part ------------------------------------------------------------------------------------------------------

local function environment(part, folder)
  local own = {
    HOME = folder .. "/home", TMPDIR = folder .. "/tmp", P2PD_CHECK = folder, LC_ALL = "C.UTF-8", P2PD_LUA = "",
    XDG_DATA_HOME = "", XDG_STATE_HOME = "", XDG_CONFIG_HOME = "", XDG_RUNTIME_DIR = "",
  }
  for name, value in pairs(part.env or {}) do own[name] = value:gsub("FOLDER", folder) end
  local list = {}
  for name, value in pairs(inherited) do
    if own[name] == nil then list[#list + 1] = name .. "=" .. value end
  end
  for name, value in pairs(own) do
    if value ~= "" then list[#list + 1] = name .. "=" .. value end
  end
  return list
end

-- What a part that failed was and said, without the cases that passed.
local function explain(part, status, text)
  local lines = { "  | $ " .. table.concat(part, " ") }
  for line in (text:gsub("%s+$", "") .. "\n"):gmatch "([^\n]*)\n" do
    if not line:find "^ok %d+ %- " then lines[#lines + 1] = "  | " .. line end
  end
  lines[#lines + 1] = ("  | exit status %s"):format(status)
  return lines
end

local function report(part, status, seconds, text)
  local passed, failed, cases = (count[part.count or "one"])(text, status)
  passed, failed = passed or (status == 0 and 1 or 0), failed or 0
  if status ~= 0 and failed == 0 then failed = 1 end
  totals.passed, totals.failed = totals.passed + passed, totals.failed + failed
  local line = ("%-6s %-44s %4d passed%s  %6.2f s"):format(failed == 0 and "ok" or "FAILED", part.name, passed,
    failed > 0 and (", %d failed"):format(failed) or "", seconds)
  print(line)
  if failed > 0 then
    local lines = explain(part, status, text)
    print(table.concat(lines, "\n"))
    failures[#failures + 1] = table.move(lines, 1, #lines, 2, { line })
  elseif verbose then
    for _, case in ipairs(cases or {}) do print("         " .. case) end
  end
  io.stdout:flush()
  return failed == 0
end

local parts_run = 0

local function run(part)
  parts_run = parts_run + 1
  local folder, timeout = ("%s/%d"):format(scratch, parts_run), part.timeout or TIMEOUT
  for _, name in ipairs { "", "/home", "/tmp" } do assert(luv.fs_mkdir(folder .. name, SEARCHABLE)) end
  local process, message = processes.start(part, {
    env = environment(part, folder), stdio = { [1] = folder .. "/output" },
  })
  if not process then return report(part, 127, 0, message) end
  local status = process:wait(timeout)
  local lines = {}
  if status == nil then
    lines[1] = ("it took longer than %d s and was ended"):format(timeout)
    status = "none"
    process:kill "sigabrt"
  end
  for _, line in ipairs(end_left_over(folder)) do lines[#lines + 1] = line end
  for _, path in ipairs(processes.find(folder, "/sanitizer%.%d+$")) do lines[#lines + 1] = processes.read(path) end
  if #lines > 0 and status == 0 then status = "0, but for what is said above" end
  local text = processes.read(folder .. "/output")
  local good = report(part, status, process.seconds or timeout, text .. "\n" .. table.concat(lines, "\n"))
  processes.remove(folder)
  return good
end

-- Runs the parts, so many side by side; those that want to be alone come last.
local function run_all(parts)
  local waiting, alone, active = {}, {}, 0
  for _, part in ipairs(parts) do table.insert(part.alone and alone or waiting, part) end
  local thread = coroutine.running()
  local function worker()
    while #waiting > 0 do run(table.remove(waiting, 1)) end
    active = active - 1
    if active == 0 and coroutine.status(thread) == "suspended" then coroutine.resume(thread) end
  end
  for _ = 1, math.min(options.jobs, #waiting) do
    active = active + 1
    processes.go(worker)
  end
  if active > 0 then coroutine.yield() end
  for _, part in ipairs(alone) do run(part) end
end

-- The parts -----------------------------------------------------------------------------------------------------------

local function wanted(path)
  if #options.files == 0 then return true end
  for _, file in ipairs(options.files) do
    if path:find(file, 1, true) then return true end
  end
  return false
end

local function built(name, build, ...)
  local part = { make, "--no-print-directory", "-j" .. options.jobs, "BUILD=" .. build, "tests", ... }
  part.name, part.timeout, part.env = name, BUILD_TIMEOUT, { MAKEFLAGS = "", MAKELEVEL = "", HOME = inherited.HOME }
  return part
end

local function c_tests(build, kind, more)
  local parts = {}
  local folder, prefix = table.unpack(({ c = { "spec/c", "test_" }, replay = { "spec/fuzz", "fuzz_" } })[kind])
  for _, path in ipairs(processes.find(folder, "/" .. prefix .. "[^/]*%.c$")) do
    local name = path:match("/" .. prefix .. "([^/]*)%.c$")
    if wanted(path) then
      parts[#parts + 1] = {
        ("%s/%s_%s"):format(build, kind == "c" and "test" or "replay", name), name = more.label .. path,
        kind == "replay" and "spec/fuzz/corpus/" .. name or nil, timeout = more.timeout, env = more.env,
        count = "summary",
      }
    end
  end
  return parts
end

local function directives(path)
  local head, wishes = processes.read(path):sub(1, 500), {}
  wishes.alone = head:find "check: alone" ~= nil
  wishes.unsanitized = head:find "check: unsanitized" ~= nil
  wishes.timeout = tonumber(head:match "check: timeout (%d+)") or TIMEOUT
  return wishes
end

-- busted is run by the Lua that it is to test; what is preloaded is not for the programs that the specs start.
local function specs(build, more)
  local parts, busted = {}, processes.which "busted" or "/usr/bin/busted"
  for _, path in ipairs(processes.find("spec", "_spec%.lua$")) do
    local wishes = directives(path)
    if wanted(path) and not (more.sanitized and wishes.unsanitized) then
      local env = { P2PD_BUILD = build, LUA_CPATH = processes.absolute(build) .. "/?.so;;" }
      for name, value in pairs(more.spec_env or more.env or {}) do env[name] = value end
      parts[#parts + 1] = {
        lua, "-e", "require('luv').os_unsetenv('LD_PRELOAD')", busted, "--output=TAP", path, name = more.label .. path,
        timeout = wishes.timeout * (more.sanitized and SLOWDOWN or 1), alone = wishes.alone, env = env, count = "tap",
      }
    end
  end
  return parts
end

local function lint()
  return { lua, "spec/lint.lua", "--build", options.build, name = "lint", timeout = 600, count = "summary",
    env = { HOME = inherited.HOME, MAKEFLAGS = "", MAKELEVEL = "" } }
end

local function append(list, more)
  return table.move(more, 1, #more, #list + 1, list)
end

-- The library of gcc's sanitizer. It has to be there first when stock Lua loads p2pd.so: it is preloaded where a spec
-- runs, and where a spec starts "lua5.4" by that name, which then finds a script that does so.
local function runtime(name)
  local pipe = assert(io.popen("gcc -print-file-name=" .. name))
  local path = pipe:read "l"
  pipe:close()
  return path
end

local function sanitized(name, sanitizer, label)
  local build = ("%s/%s"):format(options.build, name)
  local env = {
    ASAN_OPTIONS = "detect_leaks=1:log_path=FOLDER/sanitizer:strict_string_checks=1:detect_stack_use_after_return=1",
    UBSAN_OPTIONS = "print_stacktrace=1:halt_on_error=1",
    TSAN_OPTIONS = "log_path=FOLDER/sanitizer",
    P2PD_SANITIZED = name, P2PD_SLOWDOWN = tostring(SLOWDOWN),
  }
  local more = { label = label, sanitized = true, timeout = TIMEOUT * SLOWDOWN, env = env, spec_env = {} }
  for key, value in pairs(env) do more.spec_env[key] = value end
  local preload, bin = runtime("lib" .. name .. ".so"), processes.absolute(build) .. "/bin"
  more.spec_env.LD_PRELOAD, more.spec_env.PATH = preload, bin .. ":" .. inherited.PATH
  processes.program(bin, "lua5.4", ('#!/bin/sh\nLD_PRELOAD=%s exec %s "$@"\n'):format(preload, lua))
  return build, more, built(("build with %s"):format(name), build, "CC=gcc", "CFLAGS=-O1 -g -fno-omit-frame-pointer",
    "SANITIZE=-fsanitize=" .. sanitizer .. " -fno-sanitize-recover=undefined")
end

local function main()
  local plain = { label = "", timeout = TIMEOUT }
  local parts, before = {}, namespaces()
  local only = options.only
  local function has(name)
    return only and only[name] or not only and name ~= "tsan"
  end
  if (has "build" or has "c" or has "replay" or has "spec") and not run(built("build with cc", options.build)) then
    return
  end
  if has "clang" then
    run(built("build with clang", options.build .. "/clang", "CC=clang", "CFLAGS=-O1 -g"))
  end
  if has "c" then append(parts, c_tests(options.build, "c", plain)) end
  if has "replay" then append(parts, c_tests(options.build, "replay", plain)) end
  if has "spec" then append(parts, specs(options.build, plain)) end
  run_all(parts)
  parts = {}
  if has "asan" then
    local build, more, make_it = sanitized("asan", "address,undefined", "asan: ")
    if run(make_it) then
      append(parts, c_tests(build, "c", more))
      append(parts, c_tests(build, "replay", more))
      append(parts, specs(build, more))
    end
  end
  if has "tsan" then
    local build, more, make_it = sanitized("tsan", "thread", "tsan: ")
    if run(make_it) then append(parts, c_tests(build, "c", more)) end
  end
  if has "lint" and #options.files == 0 then append(parts, { lint() }) end
  run_all(parts)
  for name in pairs(namespaces()) do
    if not before[name] and name:find "^p2pd" then
      report({ "ip", "netns", "list", name = "namespaces" }, 1, 0, "left behind: the network namespace " .. name)
    end
  end
end

local function arguments()
  local place = 1
  while arg[place] do
    local name = arg[place]
    if name == "--build" or name == "--only" or name == "--jobs" then
      place = place + 1
      options[name:sub(3)] = arg[place] or error(name .. " needs a value", 0)
    else
      options.files[#options.files + 1] = name
    end
    place = place + 1
  end
  options.jobs = math.tointeger(tonumber(options.jobs)) or 2
  if options.only then
    local names = {}
    for name in options.only:gmatch "[%w]+" do names[name] = true end
    options.only = names
  end
end

arguments()
local began = luv.hrtime()
processes.go(function()
  main()
  processes.remove(scratch)
end)
luv.run()
for _, lines in ipairs(failures) do
  print(table.concat(lines, "\n", 1, math.min(#lines, SHORT)))
  if #lines > SHORT then print(("  | … %d more lines above"):format(#lines - SHORT)) end
end
print(("all in %.1f s"):format((luv.hrtime() - began) / 1e9))
local summary = ("%d passed, %d failed"):format(totals.passed, totals.failed)
processes.write(options.build .. "/summary", summary .. "\n")
print(summary)
os.exit(totals.failed == 0 and totals.passed > 0)
