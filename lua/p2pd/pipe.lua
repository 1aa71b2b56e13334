-- pipe: what makes pipes pleasant, on top of core.pipe's send and recv.
local core = require "p2pd.core"

local methods = core.pipe.methods

local LONGEST_LINE = 1024 * 1024 -- bytes, unless the caller says otherwise

--- Yields the lines that arrive, without their ends ("\n" or "\r\n"); the last one may lack its end. A line longer than
--- `longest` bytes, or a pipe that breaks, throws.
---@param longest? integer
---@return fun(): string?
function methods:lines(longest)
  longest = longest or LONGEST_LINE
  local text, from, ended = "", 1, false
  return function()
    while true do
      local stop = text:find("\n", from, true)
      if stop then
        local line = text:sub(from, stop - 1)
        from = stop + 1
        return (line:gsub("\r$", ""))
      end
      text, from = text:sub(from), 1
      if ended then
        local line = text
        text = ""
        return line ~= "" and line or nil
      end
      if #text > longest then error(("EMSGSIZE: a line of more than %d bytes"):format(longest), 2) end
      local data, message, code = self:recv()
      if data then
        text = text .. data
      elseif code == "EOF" then
        ended = true
      else
        error(message, 2)
      end
    end
  end
end

return core.pipe
