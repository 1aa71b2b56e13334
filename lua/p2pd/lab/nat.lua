-- nat: a NAT as text: TYPE/DELTA[:VALUE][@FIRST-LAST], as in "symmetric/independent:3" or
-- "restricted/random@40000-50000". What the words mean is said in core/nat_model.h. Pure.
local kinds = require "p2pd.lab.kinds"

local M = {}

M.STEP = 1 -- of independent and dependent, when no value is given

local types = {
  "open", "udp-firewall", "full-cone", "restricted", "port-restricted", "symmetric", "blocked",
  keeps_addresses = { open = true, ["udp-firewall"] = true },
  without_delta = { open = true, ["udp-firewall"] = true, blocked = true },
}
local deltas = {
  "na", "equal", "preserving", "independent", "dependent", "random",
  steps = { independent = true, dependent = true },
}

--- The types whose hosts keep their addresses, and the deltas that have a value: sets.
M.keeps_addresses, M.steps = types.keeps_addresses, deltas.steps

local function fail(sentence, ...)
  return nil, "EINVAL: " .. sentence:format(...), "EINVAL"
end

local function is_in(list, word)
  for _, known in ipairs(list) do
    if known == word then return true end
  end
  return false
end

local function check_parsed(text, nat)
  local example = "write it as in 'symmetric/random' or 'restricted/independent:3@40000-50000'"
  if not is_in(types, nat.type) then
    return fail("the NAT '%s' has the unknown type '%s' (known: %s); %s", text, nat.type, table.concat(types, ", "),
      example)
  end
  if nat.delta == nil and not types.without_delta[nat.type] then
    return fail("the NAT '%s' says not how it chooses ports; %s (known: %s)", text, example,
      table.concat(deltas, ", ", 2))
  end
  if nat.delta == "na" then nat.delta = nil end
  if nat.delta and not is_in(deltas, nat.delta) then
    return fail("the NAT '%s' has the unknown delta '%s' (known: %s)", text, nat.delta, table.concat(deltas, ", "))
  end
  if nat.delta == nil and not types.without_delta[nat.type] then
    return fail("the NAT '%s' maps ports, so its delta cannot be 'na' (known: %s)", text,
      table.concat(deltas, ", ", 2))
  end
  if types.keeps_addresses[nat.type] and (nat.delta or nat.first) then
    return fail("the NAT '%s' translates nothing, so it has neither a delta nor ports; write '%s'", text, nat.type)
  end
  if nat.value and not deltas.steps[nat.delta] then
    return fail("the NAT '%s' has a value, which only independent and dependent have; leave ':%s' out", text, nat.value)
  end
  return true
end

local function parse_ports(text, rest, nat)
  local range = rest:match "@(.*)$"
  if not range then return rest end
  local pair, wish = kinds.ports.check(range)
  if not pair then return fail("the NAT '%s' has the ports '%s'; they are FIRST-LAST: %s", text, range, wish) end
  nat.first, nat.last = pair[1], pair[2]
  return rest:match "^(.-)@"
end

--- A NAT's text in its parts: `{ type = "symmetric", delta = "independent", value = 3, first = 40000, last = 50000 }`.
---@param text string
---@return table? nat, string? message, string? code
function M.parse(text)
  if type(text) ~= "string" then
    local what = type(text) == "table" and "a table" or tostring(text)
    return fail("a NAT is a text like 'symmetric/random', not %s", what)
  end
  local nat = {}
  local rest, message, code = parse_ports(text, text, nat)
  if not rest then return nil, message, code end
  local left, value = rest:match "^([^:]*):(.*)$"
  left = left or rest
  nat.type, nat.delta = left:match "^([^/]*)/(.*)$"
  nat.type = nat.type or left
  if value then
    local wish
    nat.value, wish = kinds.step.check(tonumber(value))
    if not nat.value then return fail("the NAT '%s' has the value '%s'; it is %s", text, value, wish) end
  end
  local ok
  ok, message, code = check_parsed(text, nat)
  if not ok then return nil, message, code end
  if deltas.steps[nat.delta] then nat.value = nat.value or M.STEP end
  return nat
end

--- The one text of a NAT that was parsed.
---@param nat table
---@return string
function M.text(nat)
  return nat.type .. (nat.delta and "/" .. nat.delta or "") .. (nat.value and ":" .. nat.value or "")
    .. (nat.first and ("@%d-%d"):format(nat.first, nat.last) or "")
end

return M
