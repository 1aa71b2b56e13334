-- pipe: what makes pipes pleasant, on top of core.pipe's send and recv.
local core = require "p2pd.core"

local methods = core.pipe.methods

local LONGEST_LINE = 1024 * 1024 -- bytes, unless the caller says otherwise

-- What lines() took from a pipe and did not yield yet: `text` from the place `from` on. It belongs to the pipe: another
-- lines() goes on with it, and recv gives it out first.
local rests = setmetatable({}, { __mode = "k" })
local receive = methods.recv

--- The bytes that are there, at least one; waits for some.
---@param timeout? number seconds
---@param most? integer bytes
---@return string? bytes, string? message, string? code
function methods:recv(timeout, most)
  local rest = rests[self]
  if not rest or rest.from > #rest.text then return receive(self, timeout, most) end
  local bytes = rest.text:sub(rest.from, most and rest.from + most - 1)
  rest.from = rest.from + #bytes
  return bytes
end

--- Yields the lines that arrive, without their ends ("\n" or "\r\n"); the last one may lack its end. A line longer than
--- `longest` bytes, or a pipe that breaks, throws.
---@param longest? integer
---@return fun(): string?
function methods:lines(longest)
  longest = longest or LONGEST_LINE
  local rest = rests[self] or { text = "", from = 1 }
  rests[self] = rest
  return function()
    while true do
      local stop = rest.text:find("\n", rest.from, true)
      if stop then
        local line = rest.text:sub(rest.from, stop - 1):gsub("\r$", "")
        rest.from = stop + 1
        return line
      end
      local left = rest.text:sub(rest.from)
      if #left > longest then error(("EMSGSIZE: a line of more than %d bytes"):format(longest), 2) end
      local data, message, code = receive(self)
      if data then
        rest.text, rest.from = left .. data, 1
      elseif code ~= "EOF" then
        error(message, 2)
      else
        rest.text, rest.from = "", 1
        return left ~= "" and left or nil
      end
    end
  end
end

return core.pipe
