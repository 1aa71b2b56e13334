-- stdio: standard input and output as tasks use them, whatever lies behind: a terminal, a pipe, a socket or a file.
local luv = require "luv"
local task = require "p2pd.task"

local M = {}

local CHUNK = 256 * 1024
local HIGH_WATER = 1024 * 1024 -- bytes in memory at which the other side has to wait

local function open_stream(fd)
  local kind = luv.guess_handle(fd)
  if kind == "tty" then return luv.new_tty(fd, fd == 0) end
  if kind == "pipe" or kind == "tcp" then
    local stream = kind == "pipe" and luv.new_pipe(false) or luv.new_tcp()
    local ok, message, code = stream:open(fd)
    if not ok then
      stream:close()
      return nil, message, code
    end
    return stream
  end
  return nil -- a file: reading and writing it never waits for long
end

local reader = {}
reader.__index = reader

--- A reader of a file descriptor: `read()` returns bytes, or nil, "EOF…", "EOF".
---@param fd integer
function M.reader(fd)
  local self = setmetatable({ fd = fd, first = 1, last = 0, bytes = 0, changed = task.condition() }, reader)
  self.stream = open_stream(fd)
  return self
end

local function on_read(self, message, data)
  if data then
    self.last = self.last + 1
    self[self.last] = data
    self.bytes = self.bytes + #data
    if self.bytes >= HIGH_WATER then
      self.stream:read_stop()
      self.reading = false
    end
  else
    self.ended = message and ("EIO: reading: " .. message) or "EOF: the input has ended"
  end
  self.changed:signal()
end

function reader:read()
  if not self.stream then
    local data, message, code = luv.fs_read(self.fd, CHUNK, -1)
    if not data then return nil, message, code end
    if data == "" then return nil, "EOF: the input has ended", "EOF" end
    return data
  end
  while self.first > self.last do
    if self.ended then return nil, self.ended, self.ended:match "^%u+" end
    if not self.reading then
      self.reading = true
      self.stream:read_start(function(message, data) on_read(self, message, data) end)
    end
    self.changed:wait()
  end
  local data = self[self.first]
  self[self.first] = nil
  self.first, self.bytes = self.first + 1, self.bytes - #data
  return data
end

function reader:close()
  if self.stream and not self.stream:is_closing() then self.stream:close() end
  self.ended = self.ended or "ECLOSED: the input was closed"
  self.changed:signal()
end

reader.__close = reader.close

local writer = {}
writer.__index = writer

--- A writer to a file descriptor: `write(data)` parks while much is queued.
---@param fd integer
function M.writer(fd)
  return setmetatable({ fd = fd, stream = open_stream(fd), queued = 0, changed = task.condition() }, writer)
end

---@param data string
---@return boolean? ok, string? message, string? code
function writer:write(data)
  if self.failed then return nil, self.failed, "EPIPE" end
  if not self.stream then
    while #data > 0 do
      local written, message, code = luv.fs_write(self.fd, data, -1)
      if not written then return nil, message, code end
      data = data:sub(written + 1)
    end
    return true
  end
  local size = #data
  self.queued = self.queued + size
  local started, why = self.stream:write(data, function(message)
    self.queued = self.queued - size
    if message then self.failed = "EPIPE: writing: " .. message end
    if self.failed or self.queued < HIGH_WATER then self.changed:signal() end
  end)
  if not started then self.failed = "EPIPE: writing: " .. why end
  while self.queued >= HIGH_WATER and not self.failed do self.changed:wait() end
  if self.failed then return nil, self.failed, "EPIPE" end
  return true
end

--- Waits until all was written.
function writer:flush()
  while self.stream and self.queued > 0 and not self.failed do self.changed:wait() end
end

function writer:close()
  if self.stream and not self.stream:is_closing() then self.stream:close() end
end

writer.__close = writer.close

return M
