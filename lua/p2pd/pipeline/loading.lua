-- loading: strategies by their names: built in, of the user's own folder, or examples; by their modules and files.
local busy = require "p2pd.busy"
local core = require "p2pd.core"
local file_watch = require "p2pd.file_watch"
local luv = require "luv"
local own_file = require "p2pd.own_file"
local strategies = require "p2pd.strategy"
local task = require "p2pd.task"

local M = {}

local BUILT_IN, EXAMPLES = "lua/p2pd/strategies/", "scripts/strategies/"
local MODULES = "p2pd.strategies."
local NAME = "^[%w_-]+$" -- of what is looked for in folders

local function refuse(message, ...)
  return nil, ("EINVAL: " .. message):format(...), "EINVAL"
end

-- Names ---------------------------------------------------------------------------------------------------------------

local function embedded(folder)
  local names = {}
  for _, path in ipairs(core.source.list()) do
    local name = path:sub(1, #folder) == folder and path:sub(#folder + 1):match "^([%w_-]+)%.lua$"
    if name then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local function in_folder()
  local names, scan = {}, luv.fs_scandir(M.folder())
  if not scan then return names end
  for name in luv.fs_scandir_next, scan do names[#names + 1] = name:match "^([%w_-]+)%.lua$" end
  table.sort(names)
  return names
end

--- Where the user's own strategies lie: ~/.config/p2pd-lua/strategies, or below $XDG_CONFIG_HOME.
function M.folder()
  return own_file.config "strategies"
end

--- All that have names: those built in, the user's own, and the examples.
---@return { name: string, from: "built in"|"own"|"example", path: string }[]
function M.list()
  local list, seen = {}, {}
  local function add(names, from, folder)
    for _, name in ipairs(names) do
      list[#list + 1] = { name = name, from = from, path = folder .. name .. ".lua", hidden = seen[name] }
      seen[name] = seen[name] or from
    end
  end
  add(embedded(BUILT_IN), "built in", BUILT_IN)
  add(in_folder(), "own", M.folder() .. "/")
  add(embedded(EXAMPLES), "example", EXAMPLES)
  return list
end

--- Whether a name is that of a file.
function M.is_file(name)
  return name:find("/", 1, true) ~= nil or name:find "%.lua$" ~= nil
end

-- What is read --------------------------------------------------------------------------------------------------------

---@class p2pd.Source a file that something was made of, or would have been
---@field name string as it was given
---@field path string
---@field stamp string what it was like before it was read: see p2pd.file_watch
---@field module? string

-- Where the files are noted that a task reads.
local notes = setmetatable({}, { __mode = "k" })

local function note(name, path, module)
  local list = notes[task.current() or M]
  path = file_watch.absolute(path)
  if not list or list[path] then return end
  local source = { name = name, path = path, stamp = file_watch.stamp(path), module = module }
  list[#list + 1], list[path] = source, source
end

--- Calls the function, and gives the files of users that strategies were loaded from meanwhile, also what they load
--- themselves, and those that could not be read; then what the function returns.
---@return p2pd.Source[] sources, any ...
function M.noting(f, ...)
  local own, sources = task.current() or M, {}
  local outer = notes[own]
  local _ <close> = setmetatable({}, { __close = function() notes[own] = outer end })
  notes[own] = sources
  local results = table.pack(f(...))
  for _, source in ipairs(sources) do
    if outer and not outer[source.path] then outer[#outer + 1], outer[source.path] = source, source end
  end
  return sources, table.unpack(results, 1, results.n)
end

-- Texts ---------------------------------------------------------------------------------------------------------------

-- The line of a text in which a field is given, or in which the last `return` is.
local function line_of(text, field)
  local patterns = { "%f[%w_]" .. tostring(field):gsub("%p", "%%%0") .. "%s*=%f[^=]", "%f[%w_]return%f[^%w_]" }
  for i = field and 1 or 2, 2 do
    local at, from = nil, text:find(patterns[i])
    while from do
      at = from
      from = i == 2 and text:find(patterns[i], from + 1) or nil
    end
    if at then return select(2, text:sub(1, at):gsub("\n", "")) + 1 end
  end
  return 1
end

-- The strategy that a file's text returns; a function is named after the file.
local function evaluate(text, path)
  local chunk, problem = load((text:gsub("^#[^\n]*", "")), "@" .. path, "t")
  if not chunk then return refuse("%s%s", problem:find(path, 1, true) and "" or path .. ": ", problem) end
  local ok, strategy = busy.call(chunk)
  if not ok and task.is_cancelled(strategy) then error(strategy, 0) end
  if not ok then
    -- What throws in a tail call has no place: that is the file's last line that does anything.
    local place = tostring(strategy):find "^[^%s:]+:%d+: " and "" or ("%s:%d: "):format(path, line_of(text))
    return refuse("%s%s", place, tostring(strategy))
  end
  local name = path:match "([^/]+)%.lua$" or path:match "([^/]+)$"
  local made, field
  made, problem, field = strategies.of(strategy, (name:gsub("[^%w_.-]", "_"):sub(1, 64)))
  if not made then return refuse("%s:%d: %s", path, line_of(text, field), problem) end
  return made
end

-- A file that the user names: it is run as any script is.
local function load_file(path)
  note(path, path)
  local file, problem, number = io.open(path, "rb")
  if not file then
    local code = number == 13 and "EACCES" or "ENOENT"
    return nil, ("%s: cannot read the strategy %s"):format(code, problem), code
  end
  local text = file:read "a"
  file:close()
  if not text then return nil, ("EIO: cannot read the strategy %s"):format(path), "EIO" end
  return evaluate(text, path)
end

-- A file that is found by a name alone: nobody else may have put it there. False when there is none.
local function load_own(name, is_example)
  local folder = M.folder()
  local path = ("%s/%s.lua"):format(folder, name)
  if not is_example or luv.fs_stat(path) then note(name, path) end
  local text, message, code = own_file.read(path)
  if code == "ENOENT" or code == "ENOTDIR" then return false end
  local reason, why = own_file.objection_to_folder(folder)
  if reason then return nil, ("%s: the folder %s: %s"):format(why, folder, reason), why end
  if not text then
    return nil, ("%s: the strategy %s: %s"):format(code, path, (message:gsub("^%u+: ", ""))), code
  end
  return evaluate(text, path)
end

local function load_module(name, module)
  local is_file = not module:find "^p2pd%." and not package.preload[module]
  local path = is_file and package.searchpath(module, package.path)
  if path then note(name, path, module) end
  local ok, strategy = pcall(require, module)
  if not ok and task.is_cancelled(strategy) then error(strategy, 0) end
  if not ok then return refuse("strategy %s: %s", name, tostring(strategy)) end
  local made, problem = strategies.of(strategy)
  if not made then return refuse("%s: %s", name, problem) end
  return made
end

local function has(names, name)
  for _, other in ipairs(names) do
    if other == name then return true end
  end
  return false
end

local function unknown(name)
  local names = {}
  for _, each in ipairs(M.list()) do
    if not each.hidden then names[#names + 1] = each.name end
  end
  local guess = require("p2pd.repl.near").among(name, names)
  return refuse("there is no strategy '%s'%s; there are %s, and files such as ./mine.lua", name,
    guess and ("; did you mean %s?"):format(guess) or "", table.concat(names, ", "))
end

--- A strategy by its name ("direct": one that is built in, lies in the user's folder, or is an example), by its module
--- ("p2pd.strategies.direct", "mine.strategy") or by its file ("./mine.lua", Lua text that returns a strategy).
---@param name string
---@return p2pd.Strategy? strategy, string? message, string? code
function M.load(name)
  if type(name) ~= "string" then error("the name of a strategy is a string, not a " .. type(name), 2) end
  if M.is_file(name) then return load_file(name) end
  local short = name:sub(1, #MODULES) == MODULES and name:sub(#MODULES + 1) or name
  if has(embedded(BUILT_IN), short) then return load_module(name, MODULES .. short) end
  if short == name and name:find(".", 1, true) then return load_module(name, name) end
  if short ~= name or not name:find(NAME) then return unknown(name) end
  local is_example = has(embedded(EXAMPLES), name)
  local strategy, message, code = load_own(name, is_example)
  if strategy ~= false then return strategy, message, code end
  if not is_example then return unknown(name) end
  return evaluate(core.source.text(EXAMPLES .. name .. ".lua"), EXAMPLES .. name .. ".lua")
end

--- From now on the strategies that are modules are required anew, and so are users' modules among these.
---@param sources p2pd.Source[]
function M.forget(sources)
  for module in next, package.loaded do
    if type(module) == "string" and module:sub(1, #MODULES) == MODULES then package.loaded[module] = nil end
  end
  for _, source in ipairs(sources) do
    if source.module then package.loaded[source.module] = nil end
  end
end

--- The text of a strategy that has a name, to be copied and changed.
---@param name string
---@return string? text, string? message, string? code
function M.text(name)
  for _, each in ipairs(M.list()) do
    if each.name == name and each.from ~= "own" then return core.source.text(each.path) end
    if each.name == name then return own_file.read(each.path) end
  end
  return unknown(name)
end

return M
