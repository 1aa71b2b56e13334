-- worker: asks routers by way of a child process (p2pd.portmap.child), as the libraries block and read what may be
-- hostile. What the child says is not trusted either: one short line, of which each field is checked.
local cjson = require "cjson"
local luv = require "luv"
local core = require "p2pd.core"
local location = require "p2pd.portmap.location"
local program_path = require "p2pd.program_path"
local task = require "p2pd.task"

local M = {}

local ANSWER_MAX = 4096 -- bytes
local NAME_MAX, TYPE_MAX, SENTENCE_MAX = 64, 128, 200

-- The fields of an answer: what each may be, and what is made of it ------------------------------------------------

local function integer(least, most)
  return function(value)
    value = math.type(value) and math.tointeger(value)
    return value and value >= least and value <= most and value or nil
  end
end

local function text(most)
  return function(value)
    if type(value) ~= "string" then return nil end
    return (value:gsub("[^\32-\126]", "?"):sub(1, most))
  end
end

local function ip(value)
  local known = type(value) == "string" and core.address.ip(value)
  return known and known.text or nil
end

local function service(value, request)
  if type(value) ~= "table" then return nil end
  local host = location.host(value.control)
  local kind = text(TYPE_MAX)(value.type)
  if not host or not kind or kind:find "[^%w:._-]" then return nil end
  if request.location and location.host(request.location) ~= host then return nil end
  return { control = value.control, type = kind }
end

local fields = {
  external_ip = ip, internal_ip = ip, external_port = integer(1, 65535), lifetime = integer(0, 0xffffffff),
  epoch = integer(0, 0xffffffff), name = text(NAME_MAX), service = service,
  id = function(value) return type(value) == "string" and value:match "^%d+$" and #value < 8 and value or nil end,
}

local function read_answer(line, request)
  local ok, got = pcall(cjson.decode, line)
  if not ok or type(got) ~= "table" then return nil end
  if got.message then
    local code = text(16)(got.code) or ""
    if not code:find "^E[A-Z0-9_]+$" then code = "EIO" end
    local message = text(SENTENCE_MAX)(got.message) or "?"
    return nil, message:find("^" .. code .. ": ") and message or ("%s: %s"):format(code, message), code
  end
  local answer = {}
  for key, check in pairs(fields) do answer[key] = check(got[key], request) end
  return answer
end

-- The process ---------------------------------------------------------------------------------------------------------

local child = {}
child.__index = child

local function spawn(self, argv)
  self.handle, self.pid = luv.spawn(argv[1], {
    args = table.move(argv, 2, #argv, 1, {}), stdio = { nil, self.output, nil },
  }, function(status, signal)
    self.status, self.signal = signal ~= 0 and 128 + signal or status, signal
    self.handle:close()
    self.changed:signal()
  end)
  return self.handle, self.pid
end

local function read(self)
  self.output:read_start(function(_, data)
    if data and #self.line + #data <= ANSWER_MAX then
      self.line = self.line .. data
    else
      self.too_long = data ~= nil
      self.output:close()
    end
    self.changed:signal()
  end)
end

function child.__close(self)
  if self.handle and not self.status then luv.kill(self.pid, "sigkill") end
  while self.handle and not self.status do self.changed:wait() end
  if not self.output:is_closing() then self.output:close() end
end

local function too_slow()
  return nil, "ETIMEDOUT: it took too long", "ETIMEDOUT"
end

-- Waits for all that it says, and its end.
local function finish(self, deadline)
  while not (self.status and self.output:is_closing()) do
    local left = deadline - task.now()
    if left <= 0 or not self.changed:wait(left) then return too_slow() end
    if self.too_long then return nil, "EFORMAT: it says too much", "EFORMAT" end
  end
  if self.status == 0 then return self.line end
  if self.signal == luv.constants.SIGXCPU or self.signal == luv.constants.SIGALRM then return too_slow() end
  return nil, ("EFORMAT: what it answers broke the process that read it (status %d)"):format(self.status), "EFORMAT"
end

--- Asks, within the time. A task's; whatever leaves it ends the process.
---@param request table `request` is the name of one, in p2pd.portmap.child; the others are its fields
---@param timeout number seconds
---@return table? answer, string? message, string? code
function M.ask(request, timeout)
  local program, missing, missing_code = program_path.own()
  if not program then return nil, missing, missing_code end
  if timeout <= 0 then return nil, "ETIMEDOUT: no time is left", "ETIMEDOUT" end
  local deadline = task.now() + timeout
  request.timeout = timeout
  local argv = { program, "-E", "-e", ("require 'p2pd.portmap.child' (%q)"):format(cjson.encode(request)) }
  local self <close> = setmetatable({ output = luv.new_pipe(false), line = "", changed = task.condition() }, child)
  -- A signal may break into a task at any step, but not into a coroutine that it runs: no child is ever unknown.
  local handle, failure = coroutine.wrap(spawn)(self, argv)
  if not handle then return nil, ("EIO: cannot start %s: %s"):format(program, failure), "EIO" end
  read(self)
  local line, message, code = finish(self, deadline)
  if not line then return nil, message, code end
  local answer, refusal, refusal_code = read_answer(line, request)
  if answer or refusal then return answer, refusal, refusal_code end
  return nil, "EFORMAT: the process that asks the router says what it should not", "EFORMAT"
end

return M
