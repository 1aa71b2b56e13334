-- task: what scripts do with tasks, in terms of core.task's spawn, wait, cancel and conditions.
local core = require "p2pd.core"

local M = {
  sleep = core.task.sleep,
  current = core.task.current,
  list = core.task.list,
  now = core.task.now,
  run = core.task.run,
  condition = core.task.condition,
  cancelled = core.task.cancelled,
}

-- Who is told of the tasks that a task starts, by the latter.
local listeners = setmetatable({}, { __mode = "k" })

--- Starts a task: see p2pd.spawn.
function M.spawn(f, ...)
  if type(f) ~= "function" then error("a function is expected, not a " .. type(f), 2) end
  local task, listener = core.task.spawn(f, ...), listeners[core.task.current()]
  if listener then listener[#listener + 1] = { task = task, f = f } end
  return task
end

--- From now on the list gets each task that the running task starts (not those of groups).
---@param list { task: p2pd.Task, f: function }[]
function M.tell_of_spawns(list)
  listeners[core.task.current()] = list
end

--- Whether an error that a pcall caught is a task's cancellation.
function M.is_cancelled(err)
  return rawequal(err, M.cancelled)
end

local function check_functions(functions, level)
  if type(functions) ~= "table" or #functions == 0 then
    error("a list of functions is expected", level + 1)
  end
  for i, f in ipairs(functions) do
    if type(f) ~= "function" then
      error(("entry %d is a %s, not a function"):format(i, type(f)), level + 1)
    end
  end
end

-- Tasks that end with the scope that they were started in: whatever leaves it cancels those that are left and waits
-- for them, so that none outlives the call that needed it.
local group = {}
group.__index = group

local running = { ready = true, running = true, parked = true }

-- A cancellation that comes while this waits must not end the waiting: it is raised again at the task's next wait. It
-- comes once; where waiting is impossible (a forced end), those that were cancelled are left to themselves.
function group.__close(self)
  self.closing = true
  for _, task in ipairs(self) do task:cancel() end
  local interrupted = false
  for _, task in ipairs(self) do
    while running[task:status()] do
      local ok, err = pcall(task.wait, task)
      if not ok and (interrupted or not M.is_cancelled(err)) then break end
      interrupted = interrupted or not ok
    end
  end
end

-- One that is spawned while the scope is being left (by a task that has not come to a wait yet) is cancelled at once.
function group:spawn(f, ...)
  local task = core.task.spawn(f, ...):observe()
  self[#self + 1] = task
  if self.closing then task:cancel() end
  return task
end

--- A scope for tasks: `local group <close> = task.group()`; `group:spawn(f, ...)`.
function M.group()
  return setmetatable({}, group)
end

--- Runs the functions side by side. The first that returns something true wins: the others are cancelled and waited
--- for, then its values are returned. When none does, the last one's failure is returned. An error in any ends all.
---@param functions function[]
---@return any ...
function M.race(functions)
  check_functions(functions, 2)
  local tasks <close> = M.group()
  local ended, changed = {}, core.task.condition()
  for _, f in ipairs(functions) do
    tasks:spawn(function()
      local result = table.pack(pcall(f))
      ended[#ended + 1] = result
      changed:signal()
      if not result[1] and M.is_cancelled(result[2]) then error(result[2], 0) end
    end)
  end
  local seen = 0
  while true do
    while seen < #ended do
      seen = seen + 1
      local result = ended[seen]
      if not result[1] then
        if not M.is_cancelled(result[2]) then error(result[2], 0) end
        result = { true, nil, tostring(M.cancelled), "ECANCELED", n = 4 }
      end
      if result[2] or seen == #functions then
        return table.unpack(result, 2, result.n)
      end
    end
    changed:wait()
  end
end

--- Runs the function for at most so many seconds.
---@param seconds number
---@param f function
---@return any ... what f returns, or nil, message, "ETIMEDOUT"
function M.timeout(seconds, f, ...)
  if type(seconds) ~= "number" or seconds < 0 then error("a time is a number of seconds, zero or more", 2) end
  if type(f) ~= "function" then error("a function is expected, not a " .. type(f), 2) end
  local tasks <close> = M.group()
  local task = tasks:spawn(f, ...)
  task:wait(seconds)
  if running[task:status()] then
    return nil, ("ETIMEDOUT: it took longer than %g s"):format(seconds), "ETIMEDOUT"
  end
  return task:wait()
end

-- Channels --------------------------------------------------------------------------------------------------------

local channel = {}
channel.__index = channel
channel.__name = "p2pd.channel"

--- A queue between tasks: `send` parks while it holds `capacity` values, `recv` while it holds none.
---@param capacity? integer 1 unless given
function M.channel(capacity)
  capacity = capacity or 1
  if math.type(capacity) ~= "integer" or capacity < 1 then error("a capacity is a whole number from 1 on", 2) end
  return setmetatable({
    capacity = capacity, first = 1, last = 0, closed = false,
    filled = core.task.condition(), emptied = core.task.condition(),
  }, channel)
end

local function remaining(deadline)
  return deadline and math.max(0, deadline - core.task.now())
end

---@param value any not nil
---@param timeout? number seconds
---@return boolean? sent, string? message, string? code
function channel:send(value, timeout)
  if value == nil then error("nil cannot be sent: it is what recv returns at the end", 2) end
  local deadline = timeout and core.task.now() + timeout
  while not self.closed and self.last - self.first + 1 >= self.capacity do
    local ok, message, code = self.emptied:wait(remaining(deadline))
    if not ok then return nil, message, code end
  end
  if self.closed then return nil, "ECLOSED: the channel was closed", "ECLOSED" end
  self.last = self.last + 1
  self[self.last] = value
  self.filled:signal(1)
  return true
end

---@param timeout? number seconds
---@return any value, string? message, string? code
function channel:recv(timeout)
  local deadline = timeout and core.task.now() + timeout
  while self.last < self.first do
    if self.closed then return nil, "EOF: the channel was closed", "EOF" end
    local ok, message, code = self.filled:wait(remaining(deadline))
    if not ok then return nil, message, code end
  end
  local value = self[self.first]
  self[self.first] = nil
  self.first = self.first + 1
  self.emptied:signal(1)
  return value
end

--- What is in it can still be received; after that recv returns nil.
function channel:close()
  self.closed = true
  self.filled:signal()
  self.emptied:signal()
end

channel.__close = channel.close

--- How many values wait to be received.
function channel:__len()
  return self.last - self.first + 1
end

function channel:__tostring()
  return ("channel (%d of %d%s)"):format(#self, self.capacity, self.closed and ", closed" or "")
end

return M
