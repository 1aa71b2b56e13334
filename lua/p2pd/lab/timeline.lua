-- timeline: what the routers of a lab let in, dropped and mapped, as text: a line for each packet. Pure.
--
--    0.412345 a   out udp 192.168.1.10:40000 > 30.1.0.3:3478     as 30.2.1.2:40000: a new mapping
--    0.433102 b   in  tcp 30.2.1.2:40001 > 30.2.2.2:50000 S      dropped: nothing went out to there
--    1.020000 a   set loss=0.5
local M = {}

-- core/nat_model.h: enum nat_reason, and core/router.h: enum router_reason; by the names that bindings/router.c gives.
local reasons = {
  ["mapped-new"] = "a new mapping", ["mapped"] = "mapped", ["untranslated"] = "as it is",
  ["no-mapping"] = "no mapping has that endpoint", ["filtered"] = "nothing went out to there",
  ["blocked"] = "this router blocks it", ["table-full"] = "the table of mappings is full",
  ["no-port"] = "no port is free", ["no-hairpin"] = "no hairpinning here",
  ["bad-state"] = "it begins nothing", ["unreadable"] = "it cannot be read",
  ["unsupported"] = "no TCP, UDP or ICMP, or a fragment", ["stray"] = "neither from nor to the inside",
  ["no-ipv6"] = "no IPv6 here", ["unknown-error"] = "an error about nothing that passed",
  ["mapped-before"] = "mapped by miniupnpd", ["link"] = "lost on the link",
}

local fates = {
  duplicated = "twice", reordered = "late", lost = "lost on the link", full = "the link's queue is full",
  down = "the link is cut",
}

local verdicts = {
  pass = "%s", hairpin = "goes back inside: %s", drop = "dropped: %s", reset = "answered with a reset: %s",
  unreachable = "answered with ICMP unreachable: %s",
}

local function outcome(event)
  local reason = reasons[event.reason] or event.reason or ""
  local text = (verdicts[event.verdict] or "%s"):format(reason)
  local fate = fates[event.fate or ""]
  if event.reason == "link" then return "dropped: " .. (fate or reason) end
  return fate and ("%s, %s"):format(text, fate) or text
end

local function translation(event)
  local parts = {}
  if event.new_source then parts[#parts + 1] = "as " .. event.new_source end
  if event.new_destination then parts[#parts + 1] = "to " .. event.new_destination end
  return #parts > 0 and table.concat(parts, " ") .. ": " or ""
end

local function row(event)
  if event.text then return event.text end
  local flags = event.flags and event.flags ~= "" and " " .. event.flags or ""
  local packet = ("%s > %s%s"):format(event.source or "?", event.destination or "?", flags)
  return ("%-3s %-4s %-46s %s%s%s"):format(event.direction, event.protocol, packet,
    event.error and "an ICMP error about it: " or "", translation(event), outcome(event))
end

--- The text of some events, the first first.
---@param events table[] of the routers, each with `router` and `at`, in seconds; or with `text`, the lab's own
---@return string
function M.render(events)
  local width = 0
  for _, event in ipairs(events) do width = math.max(width, #(event.router or "lab")) end
  local lines = {}
  for i, event in ipairs(events) do
    lines[i] = ("%10.6f %-" .. width .. "s %s\n"):format(event.at, event.router or "lab", row(event))
  end
  return table.concat(lines)
end

return M
