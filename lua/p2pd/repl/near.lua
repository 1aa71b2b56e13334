-- near: what somebody may have meant who mistyped a name.
local M = {}

-- How many letters have to be put in, left out, changed or swapped with their neighbour to make b of a.
local function distance(a, b)
  local before, row = {}, {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local two_before = before
    before, row = row, { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], two_before[j - 2] + 1)
      end
    end
  end
  return row[#b]
end

--- The names that are near enough, the nearest first.
---@param name string
---@param names string[]
---@return string[]
function M.list(name, names)
  local found = {}
  name = name:sub(1, 64):lower()
  for _, other in ipairs(names) do
    local lower = other:sub(1, 64):lower()
    local apart = distance(name, lower)
    if #name > 1 and lower:sub(1, #name) == name then apart = math.min(apart, 1) end
    if apart <= math.max(1, #name // 3) then found[#found + 1] = { apart, other } end
  end
  table.sort(found, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  for i, entry in ipairs(found) do found[i] = entry[2] end
  return found
end

--- The nearest of them in words ("a", "a or b"), or nil.
---@param name string
---@param names string[]
---@return string?
function M.among(name, names)
  local found = M.list(name, names)
  return #found > 0 and table.concat(found, " or ", 1, math.min(#found, 3)) or nil
end

return M
