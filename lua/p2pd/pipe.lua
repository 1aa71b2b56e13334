-- pipe: what makes pipes pleasant, on top of core.pipe's send and recv.
local core = require "p2pd.core"

local methods, receive, held, hold = core.pipe.methods, core.pipe.receive, core.pipe.held, core.pipe.hold

local LONGEST_LINE = 1024 * 1024 -- bytes, unless the caller says otherwise

--- Yields the lines that arrive, without their ends ("\n" or "\r\n"); the last one may lack its end. A line longer than
--- `longest` bytes, or a pipe that breaks, throws.
---@param longest? integer
---@return fun(): string?
function methods:lines(longest)
  longest = longest or LONGEST_LINE
  return function()
    local text, from = held(self)
    while true do
      local stop = text:find("\n", from, true)
      if stop then
        hold(self, text, stop + 1)
        return (text:sub(from, stop - 1):gsub("\r$", ""))
      end
      local left = text:sub(from)
      if #left > longest then error(("EMSGSIZE: a line of more than %d bytes"):format(longest), 2) end
      local data, message, code = receive(self)
      if data then
        text, from = left .. data, 1
        hold(self, text, from)
      elseif code ~= "EOF" then
        error(message, 2)
      else
        hold(self, "", 1)
        return left ~= "" and left or nil
      end
    end
  end
end

-- Those that scripts were given, each with the time at which it was.
local given = setmetatable({}, { __mode = "k" })

--- A pipe is given to a script.
---@param pipe p2pd.Pipe
---@param strategy string by which it came
function core.pipe.give(pipe, strategy)
  pipe.strategy = strategy
  given[pipe] = core.task.now()
end

--- The pipes that scripts were given and have not closed, the oldest first.
---@return { pipe: p2pd.Pipe, age: number, sent: integer, received: integer }[]
function core.pipe.list()
  local list, now = {}, core.task.now()
  for pipe, since in next, given do
    local open, sent, received = core.pipe.state(pipe)
    if open then list[#list + 1] = { pipe = pipe, age = now - since, sent = sent, received = received } end
  end
  table.sort(list, function(a, b) return a.age > b.age end)
  return list
end

return core.pipe
