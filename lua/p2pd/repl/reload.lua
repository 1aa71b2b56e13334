-- reload: modules are required anew, and the pipelines of nodes that run loaded anew: `:reload`.
local near = require "p2pd.repl.near"

local SHORT = 12 -- letters of a node ID that tell it from others

local function nodes()
  local loaded = package.loaded["p2pd.node"]
  return type(loaded) == "table" and loaded.list and loaded.list() or {}
end

-- Whoever holds the old module in a variable of the prompt's gets the new one.
local function reload_module(session, name)
  local old = package.loaded[name]
  if name == "p2pd.core" or package.preload[name] or package.searchpath(name, package.cpath) then
    session.complain(("'%s' is not written in Lua: it stays as it is"):format(name))
    return
  end
  package.loaded[name] = nil
  local done, new = session.foreground(require, name)
  if not done then
    package.loaded[name] = old
    return
  end
  for _, variables in ipairs { session.env, _G } do
    for key, value in next, variables do
      if rawequal(value, old) then rawset(variables, key, new) end
    end
  end
  session.say(("%s was loaded again"):format(name))
end

local function is_of(origin, name)
  if not origin or origin.name == name then return origin ~= nil end
  for _, other in ipairs(origin.names or {}) do
    if other == name then return true end
  end
  return false
end

local function name_of(node)
  return ("node %s…"):format(tostring(node:id()):sub(1, SHORT))
end

local function text_of(origin)
  return origin.name .. (origin.names and (" (%s alone)"):format(table.concat(origin.names, ", ")) or "")
end

-- Attempts that are under way go on as they began; the next ones, and what is answered, go by the new pipeline.
local function reload_pipelines(session, list)
  local pipeline = require "p2pd.pipeline"
  for _, node in ipairs(list) do
    local origin = pipeline.origin(node.pipeline)
    if not origin then
      session.complain(("%s: its pipeline was not loaded by a name: node:use gives it another"):format(name_of(node)))
    else
      session.foreground(function()
        local new, message = pipeline.again(node.pipeline)
        if not new then return session.complain(session.safe(message)) end
        node:use(new)
        session.say(session.safe(("%s: %s was loaded again"):format(name_of(node), text_of(origin))))
      end)
    end
  end
end

local function unknown(session, name)
  local names = {}
  for loaded in next, package.loaded do names[#names + 1] = tostring(loaded) end
  local guess = near.among(name, names)
  session.complain(("'%s' is not loaded%s"):format(name, guess and "; did you mean " .. guess .. "?" or ""))
end

return function(session, name)
  local all, using = nodes(), {}
  for _, node in ipairs(all) do
    if name == "" or is_of(require("p2pd.pipeline").origin(node.pipeline), name) then using[#using + 1] = node end
  end
  if name == "" and #all == 0 then
    session.complain "no node runs; :reload NAME loads a module again"
  elseif #using > 0 then
    reload_pipelines(session, using)
  elseif package.loaded[name] ~= nil then
    reload_module(session, name)
  else
    unknown(session, name)
  end
end
