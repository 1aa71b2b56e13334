-- run: wraps the body of a test. `it("…", run(function() … end))` runs it as a task and fails when it leaves anything
-- behind: tasks that live on, handles that are open. `run.virtual` does so in virtual time, where waiting costs none.
local core = require "p2pd.core"
local luv = require "luv"

local M = {}

local PATIENCE_MS = 30000 -- for a whole test
local SETTLE_MS = 3000    -- for handles that are closing
local FAREWELL_MS = 1000  -- for tasks that are about to hear that a pipe or a node was closed

-- All handles of luv (this library's own are passed over by walk), as a set.
local function luv_handles()
  local handles = {}
  luv.walk(function(handle)
    if not handle:is_closing() then handles[handle] = true end
  end)
  return handles
end

-- Turns the loop until the condition holds, or so many milliseconds have passed. Returns whether it holds.
local function turn_until(condition, limit_ms)
  local deadline = luv.hrtime() + limit_ms * 1000000
  while not condition() do
    if luv.hrtime() > deadline then return false end
    luv.run("nowait")
    luv.sleep(1)
  end
  return true
end

local function settle()
  return turn_until(function()
    luv.run("nowait")
    return not luv.loop_alive()
  end, SETTLE_MS)
end

local function left_tasks(before)
  local left = {}
  for _, task in ipairs(core.task.list()) do
    if not before[task] then left[#left + 1] = task end
  end
  return left
end

-- Ends what the test left, so that the tests after it start clean.
local function clear(tasks, before)
  for _, task in ipairs(tasks) do task:cancel() end
  core.task.run(function()
    for _, task in ipairs(tasks) do pcall(task.wait, task) end
  end)
  for handle in pairs(luv_handles()) do
    if not before[handle] then handle:close() end
  end
end

local function check(tasks_before, handles_before, virtual)
  local problems = {}
  -- Turning the loop would let virtual time pass, and sleepers with it.
  if not virtual then turn_until(function() return #left_tasks(tasks_before) == 0 end, FAREWELL_MS) end
  local tasks = left_tasks(tasks_before)
  for _, task in ipairs(tasks) do
    problems[#problems + 1] = ("%s lives on: %s"):format(task, task:traceback():gsub("%s+", " "))
  end
  local still = #tasks == 0 and not settle()
  for handle in pairs(luv_handles()) do
    if not handles_before[handle] then problems[#problems + 1] = ("%s was left open"):format(handle) end
  end
  if still and #problems == 0 then problems[1] = "a handle of this library was left open" end
  if #problems == 0 then return end
  clear(tasks, handles_before)
  settle()
  return "the test left something behind: " .. table.concat(problems, "; ")
end

local function set_of(list)
  local set = {}
  for _, value in ipairs(list) do set[value] = true end
  return set
end

-- Cancels the test's task when PATIENCE_MS are over, in real time and without keeping the loop alive.
local function watch(test)
  local timer = luv.new_timer()
  timer:start(PATIENCE_MS, 0, function()
    test.late = true
    if test.task then test.task:cancel() end
  end)
  timer:unref()
  return timer
end

local function run_body(body, virtual, ...)
  local tasks_before, handles_before = set_of(core.task.list()), luv_handles()
  local test = {}
  local timer = watch(test)
  if virtual then core.task.virtual(0) end
  local ok, result, message = pcall(core.task.run, function(...)
    test.task = core.task.current()
    body(...)
    return test
  end, ...)
  timer:close()
  local left = check(tasks_before, handles_before, virtual)
  if virtual then core.task.virtual() end
  if not ok then error(result, 0) end
  if test.late then error(("the test took longer than %d s"):format(PATIENCE_MS // 1000), 0) end
  if result ~= test then error(message, 0) end
  if left then error(left, 0) end
end

--- The same in virtual time: sleeps and timeouts pass as soon as nothing else can run.
function M.virtual(body)
  return function(...) run_body(body, true, ...) end
end

return setmetatable(M, {
  __call = function(_, body)
    return function(...) run_body(body, false, ...) end
  end,
})
