-- asking: how strategies ask the peer to come: they wait for it, and hear when it will not.
local task = require "p2pd.task"

local M = {}

--- What a refusing peer says, as a failure. It is the peer's own; anything that is no code is not taken for one.
---@param reply table of kind "refused"
---@param sentence string what the peer does not do
---@return nil, string message, string code
function M.refusal(reply, sentence)
  local code = type(reply.code) == "string" and reply.code:match "^E[A-Z0-9]+$" or "EUNREACHABLE"
  local reason = type(reply.message) == "string" and reply.message or "without a reason"
  return nil, ("%s: %s: %s"):format(code, sentence, reason), code
end

--- Asks the peer to come, and waits for its pipe. A reply that is no refusal does not end it: the pipe does, or the
--- strategy's time.
---@param ctx p2pd.Context
---@param wait fun(): any?, string?, string? gives the pipe
---@param fields table the request
---@param sentence string what the peer does not do when it refuses
---@return any? pipe, string? message, string? code
function M.come(ctx, wait, fields, sentence)
  local outcomes = task.channel(2)
  ctx:spawn(function() outcomes:send(table.pack(wait())) end)
  ctx:spawn(function()
    local reply, why, what = ctx:request(fields)
    if not reply then
      outcomes:send(table.pack(nil, why, what))
    elseif reply.kind == "refused" then
      outcomes:send(table.pack(M.refusal(reply, sentence)))
    end
  end)
  local outcome = outcomes:recv()
  return table.unpack(outcome, 1, outcome.n)
end

return M
