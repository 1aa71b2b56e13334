-- dialing: how direct and reverse try a peer's addresses side by side ("happy eyeballs", RFC 8305).
local task = require "p2pd.task"

local M = {}

local ATTEMPT_DELAY = 0.25 -- seconds until the next address of a scope is tried beside the former (RFC 8305, section 8)

-- The scopes in the order of the list, each with its candidates.
local function by_scope(list)
  local lanes, found = {}, {}
  for _, candidate in ipairs(list) do
    local lane = found[candidate.scope]
    if not lane then
      lane = {}
      found[candidate.scope], lanes[#lanes + 1] = lane, lane
    end
    lane[#lane + 1] = candidate
  end
  return lanes
end

local function summary(failures)
  local code, parts = failures[1].code, {}
  for _, failure in ipairs(failures) do
    if failure.code ~= code then code = "EUNREACHABLE" end
    parts[#parts + 1] = (failure.message:gsub("^E[A-Z0-9]+: ", ""))
  end
  return nil, ("%s: %s"):format(code, table.concat(parts, "; ")), code
end

--- Dials the candidates: the best of each scope at once, the next of the same scope 250 ms later or as soon as the
--- former has failed. The first pipe on which both keys are proven wins.
---@param ctx p2pd.Context
---@param list p2pd.Candidate[] at least one
---@param token? string what the side that is dialed expects
---@return any? pipe, string? message, string? code
function M.first(ctx, list, token)
  local results = task.channel(#list)
  local function dial(candidate, ended)
    local pipe, message, code = ctx:dial {
      ip = candidate.ip, port = candidate.port, scope = candidate.scope, token = token,
    }
    results:send { pipe = pipe, message = message, code = code }
    ended:send(true)
  end
  for _, lane in ipairs(by_scope(list)) do
    ctx:spawn(function()
      for _, candidate in ipairs(lane) do
        local ended = task.channel()
        ctx:spawn(dial, candidate, ended)
        ended:recv(ATTEMPT_DELAY)
      end
    end)
  end
  local failures = {}
  while #failures < #list do
    local result = results:recv()
    if result.pipe then return result.pipe end
    failures[#failures + 1] = result
  end
  return summary(failures)
end

return M
