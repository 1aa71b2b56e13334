-- split: chunks of bytes become lines. Each byte is looked at once, however the chunks are cut.
local M = {}

local split = {}
split.__index = split

--- A queue of lines: `feed` puts chunks in, `pop` takes lines out.
---@param beside? table another one: the lines of both come out of one queue, as they came
function M.new(beside)
  return setmetatable({ parts = {}, pending = 0, queue = beside and beside.queue or { first = 1, last = 0 } }, split)
end

local function push(self, part)
  local queue = self.queue
  self.parts[#self.parts + 1] = part
  queue.last = queue.last + 1
  queue[queue.last] = table.concat(self.parts)
  self.parts, self.pending = {}, 0
end

--- Takes the next chunk. `pending` is how many bytes of a line have come whose end has not.
---@param chunk string
function split:feed(chunk)
  local from = 1
  local stop = chunk:find("\n", from, true)
  while stop do
    push(self, chunk:sub(from, stop - 1))
    from = stop + 1
    stop = chunk:find("\n", from, true)
  end
  if from > #chunk then return end
  self.parts[#self.parts + 1] = chunk:sub(from)
  self.pending = self.pending + #chunk - from + 1
end

--- No more chunks come: what is left is the last line, if it is anything.
function split:finish()
  if self.pending > 0 then push(self, "") end
end

--- The next line, without its end; nil when none is there yet.
---@return string?
function split:pop()
  local queue = self.queue
  local line = queue[queue.first]
  if line then
    queue[queue.first] = nil
    queue.first = queue.first + 1
  end
  return line
end

--- How many lines are there.
function split:__len()
  return self.queue.last - self.queue.first + 1
end

return M
