---@meta p2pd.channel

--- A queue between tasks. `#channel` is how many values wait in it; as a `<close>` variable it is closed with its
--- scope.
---@class p2pd.Channel
---@field capacity integer how many values it holds before `send` waits
---@field closed boolean
---@operator len: integer
local channel = {}

--- Puts a value in; waits while the channel is full.
---@param value any anything but nil, which throws
---@param timeout? number seconds
---@return true? sent
---@return string? message
---@return "ECLOSED"|"ETIMEDOUT"? code
function channel:send(value, timeout) end

--- Takes the oldest value out; waits while there is none.
---@param timeout? number seconds
---@return any value nil when there is none: then the other two say why
---@return string? message
---@return "EOF"|"ETIMEDOUT"? code "EOF" when the channel was closed and is empty
function channel:recv(timeout) end

--- Closes it. What is in it can still be received.
function channel:close() end
