-- relay-at-once: a relay at once, and all other ways beside it, for those who would rather talk now than well. A pipe
-- by the relay waits for a better one for a grace time, then it is used.
local p2pd = require "p2pd"

local GRACE = 0.5 -- seconds

local function better_of(ways)
  local better, fallback = ways[1], ways[2]
  return {
    name = "relay-at-once", children = ways, rebuild = better_of,
    connect = function(ctx)
      local ended = p2pd.channel(2)
      for _, way in ipairs(ways) do
        ctx:spawn(function()
          local pipe, message, code = ctx:try(way)
          ended:send { way = way, pipe = pipe, message = message, code = code }
        end)
      end
      local first = ended:recv()
      if first.pipe and first.way == better then return first.pipe end
      -- Without a pipe there is no hurry.
      local second = ended:recv(first.pipe and GRACE or nil)
      if second and second.pipe then return second.pipe end
      if first.pipe then return first.pipe end
      local failure = first.way == fallback and second or first
      return nil, failure.message, failure.code
    end,
  }
end

local only = p2pd.pipeline.only

return better_of { only({ "direct", "reverse", "punch" }, "default"), assert(p2pd.pipeline.load "relay") }
