-- kinds: what the value of a router's option can be. Pure.
--
-- Each kind is `check(value)` -> the value in its one form, or nil and what it has to be; and `read(text)`, which gives
-- the value that a text means, or the text where it means none.
local M = {}

local PORTS = { 1, 65535 }
local MOST_OPEN_PORTS = 16 -- core/nat_model.h: NAT_OPEN_PORTS

local function as_is(text)
  return text
end

--- One of some words.
---@param list string[]
function M.word(list)
  return {
    read = as_is,
    check = function(value)
      for _, known in ipairs(list) do
        if known == value then return value end
      end
      return nil, "one of " .. table.concat(list, ", ")
    end,
  }
end

---@param least number
---@param most number
---@param whole? boolean
function M.number(least, most, whole)
  return {
    read = function(text) return tonumber(text) or text end,
    check = function(value)
      local good = type(value) == "number" and value >= least and value <= most
      if good and whole then value = math.tointeger(value) end
      if good and value then return value end
      return nil, ("a %snumber from %.15g to %.15g"):format(whole and "whole " or "", least, most)
    end,
  }
end

M.boolean = {
  read = function(text)
    local value = ({ ["true"] = true, ["false"] = false })[text]
    if value == nil then return text end
    return value
  end,
  check = function(value)
    if type(value) == "boolean" then return value end
    return nil, "true or false"
  end,
}

local function is_port(value)
  return math.type(value) == "integer" and value >= PORTS[1] and value <= PORTS[2]
end

--- A range of them.
M.ports = {
  read = as_is,
  check = function(value)
    if type(value) == "string" then
      local first, last = value:match "^(%d+)%-(%d+)$"
      value = { tonumber(first), tonumber(last) }
    end
    if type(value) == "table" and #value == 2 then
      local first, last = math.tointeger(value[1]), math.tointeger(value[2])
      if is_port(first) and is_port(last) and first <= last then return { first, last } end
    end
    return nil, ("{first, last}, from %d to %d, the first not above the last"):format(PORTS[1], PORTS[2])
  end,
}

--- Of independent and dependent.
M.step = {
  read = function(text) return tonumber(text) or text end,
  check = function(value)
    value = type(value) == "number" and math.tointeger(value)
    if value and value ~= 0 and math.abs(value) <= PORTS[2] then return value end
    return nil, ("a whole number from -%d to %d, but not 0"):format(PORTS[2], PORTS[2])
  end,
}

M.open_ports = {
  read = function(text)
    local list = {}
    for port in text:gmatch "[^,]+" do list[#list + 1] = tonumber(port) or port end
    return list
  end,
  check = function(value)
    local list = {}
    for place, port in ipairs(type(value) == "table" and value or {}) do
      list[place] = type(port) == "number" and math.tointeger(port) or 0
    end
    local good = type(value) == "table" and #list <= MOST_OPEN_PORTS
    for _, port in ipairs(list) do good = good and is_port(port) end
    if good then return list end
    return nil, ("a list of at most %d ports"):format(MOST_OPEN_PORTS)
  end,
}

return M
