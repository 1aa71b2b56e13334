---@meta p2pd.task

--- A function that runs beside others. `tostring` gives "task 3 (parked)".
---@class p2pd.Task
local task = {}

--- Waits until the task has ended. What it returned is returned; what it threw is thrown here, with its own traceback
--- kept. Of a cancelled one: nil, "ECANCELED: …", "ECANCELED".
---@param timeout? number seconds; without one as long as it takes. When it is over: nil, "ETIMEDOUT: …", "ETIMEDOUT"
---@return any ...
function task:wait(timeout) end

--- Throws the cancellation where the task waits, or at its next wait; does nothing when it has ended, or was
--- cancelled before. Its `<close>` variables run and may wait, for 5 seconds; after these it is closed by force.
function task:cancel() end

--- What it does now.
---@return "ready"|"running"|"parked"|"done"|"failed"|"cancelled"
function task:status() end

--- Says that somebody will look at the task's end: a failure of it is not printed.
---@return p2pd.Task task itself
function task:observe() end

--- Where the task waits now; of one that failed, its error and where it was thrown.
---@return string
function task:traceback() end

--- Tasks that end with the scope that they were started in: see `p2pd.group`.
---@class p2pd.Group
---@field [integer] p2pd.Task those that were started in it
local group = {}

--- Starts a task that the scope ends. Its failure is not printed: wait for it to learn of it.
---@param f function
---@param ... any its arguments
---@return p2pd.Task
function group:spawn(f, ...) end
