-- finder: where programs lie; those that are missing are said in one sentence, with the packages that bring them.
local program_path = require "p2pd.program_path"

local M = {}

local finder = {}
finder.__index = finder

function M.new()
  return setmetatable({ asked = {}, missing = {}, packages = {} }, finder)
end

--- Where a program lies: its name alone when it is missing, which is remembered.
---@param name string
---@param package string Debian's, that has it
---@return string
function finder:find(name, package)
  local path = program_path.which(name)
  if path or self.asked[name] then return path or name end
  self.asked[name] = true
  self.missing[#self.missing + 1] = name
  if not self.packages[package] then
    self.packages[package] = true
    self.packages[#self.packages + 1] = package
  end
  return name
end

--- Whether all programs are there.
---@return boolean? ok, string? message, string? code
function finder:found_all()
  if #self.missing == 0 then return true end
  return nil, ("ENOENT: not installed: %s; `apt-get install %s` brings what is missing")
    :format(table.concat(self.missing, ", "), table.concat(self.packages, " ")), "ENOENT"
end

return M
