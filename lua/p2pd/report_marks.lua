-- report_marks: what a report keeps of a puncher: numbers, and a bounded list of what happened when. Pure.
local M = {}

local MOST_MARKS = 64                    -- of a burst; of these,
local MOST_OPENED, MOST_TROUBLE = 16, 24 -- connections, and what is neither that nor a SYN

--- Milliseconds to a tenth; a whole number as such, so that JSON and people see 412, not 412.0.
---@param seconds number
---@return number
function M.ms(seconds)
  local tenths = math.floor(seconds * 10000 + 0.5)
  return tenths % 10 == 0 and tenths // 10 or tenths / 10
end

-- Which events are told: the connections, what went wrong, and of the SYNs as many as there is room for, evenly spread.
local function choose(events)
  local opened, trouble, sent = {}, {}, {}
  for place, event in ipairs(events) do
    local is_open = event.what == "connected" or event.what == "accepted"
    local list = is_open and opened or event.what == "sent" and sent or trouble
    list[#list + 1] = place
  end
  local chosen, left = {}, MOST_MARKS
  for _, share in ipairs { { opened, MOST_OPENED }, { trouble, MOST_TROUBLE }, { sent, MOST_MARKS } } do
    local places, count = share[1], math.min(#share[1], share[2], left)
    for i = 0, count - 1 do chosen[places[i * #places // count + 1]] = true end
    left = left - count
  end
  return chosen, MOST_MARKS - left
end

--- What a puncher's `seen` tells, for the report of an attempt that began at that time of `task.now`.
---@param seen table
---@param start number
---@return { sent: integer, refused: integer, unreachable: integer, connected: integer, accepted: integer,
---          marks?: table[], unlisted?: integer }
function M.burst(seen, start)
  local events = seen.events or {}
  local chosen, count = choose(events)
  local unlisted = #events - count + (seen.unlisted or 0)
  local told = {
    sent = seen.sent or 0, refused = seen.refused or 0, unreachable = seen.unreachable or 0,
    connected = seen.connected or 0, accepted = seen.accepted or 0,
    marks = count > 0 and {} or nil, unlisted = unlisted > 0 and unlisted or nil,
  }
  for place, event in ipairs(events) do
    if chosen[place] then
      told.marks[#told.marks + 1] = {
        ms = M.ms(seen.begun - start + event.ms / 1000), what = event.what, local_port = event.local_port,
        remote_port = event.remote_port, code = event.code,
      }
    end
  end
  return told
end

return M
