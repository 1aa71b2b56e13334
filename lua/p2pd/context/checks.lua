-- checks: what the methods of a ctx share: the scope behind it, and how arguments are looked at.
local task = require "p2pd.task"

local M = {}

-- Each ctx has a scope behind it, which scripts do not see.
local scopes = setmetatable({}, { __mode = "k" })

--- Puts a scope behind a ctx.
function M.bind(ctx, scope)
  scopes[ctx] = scope
end

--- The scope behind a ctx, or nil.
function M.peek(ctx)
  return scopes[ctx]
end

--- The same; throws when that is no ctx.
function M.scope_of(ctx, level)
  local scope = scopes[ctx]
  if not scope then error("call it with a colon on the ctx that the strategy was given", level + 1) end
  return scope
end

--- The same where something is opened or said: that is for strategies, not for the context that an attempt starts from.
function M.working_scope(ctx, level)
  local scope = M.scope_of(ctx, level + 1)
  if not scope.strategy then error("this ctx waits for pipeline.run; a strategy gets one of its own", level + 1) end
  return scope
end

--- Throws unless each option is known (name -> type).
function M.options(options, known, level)
  if type(options) ~= "table" then error("a table of options is expected, not a " .. type(options), level + 1) end
  for key, value in pairs(options) do
    local expected = known[key]
    if not expected then error(("unknown option '%s'"):format(tostring(key)), level + 1) end
    if type(value) ~= expected then
      error(("option '%s' is a %s, not a %s"):format(key, type(value), expected), level + 1)
    end
  end
end

function M.seconds(seconds, level)
  if seconds ~= nil and (type(seconds) ~= "number" or not (seconds >= 0)) then
    error("a time is a number of seconds, zero or more", level + 1)
  end
end

--- The timeout for the means: never more than remains, nil when nothing limits it.
function M.within(scope, timeout)
  local limit = math.min(timeout or math.huge, math.max(0, scope.deadline - task.now()))
  return limit < math.huge and limit or nil
end

function M.from_hex(text)
  return (text:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end))
end

function M.to_hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

return M
