-- chance: numbers that look like chance, the same for the same seed (SplitMix64, as core/chance.h). Pure.
local M = {}

--- What gives numbers from 0 on, below 1.
---@param seed integer
---@return fun(): number
function M.of(seed)
  local state = seed * 0x2545F4914F6CDD1D
  return function()
    state = state + 0x9E3779B97F4A7C15
    local word = (state ~ (state >> 30)) * 0xBF58476D1CE4E5B9
    word = (word ~ (word >> 27)) * 0x94D049BB133111EB
    return ((word ~ (word >> 31)) >> 11) * 0x1p-53
  end
end

return M
