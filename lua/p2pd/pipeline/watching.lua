-- watching: a pipeline is loaded anew whenever one of the files changes that it was made of.
local file_watch = require "p2pd.file_watch"
local loading = require "p2pd.pipeline.loading"
local pipeline = require "p2pd.pipeline"
local strategies = require "p2pd.strategy"
local task = require "p2pd.task"

local M = {}

local NAMED = 3      -- files that are told by name
local LONGEST = 300  -- bytes of a pipeline's outline

local watch = {}
M.methods = watch
watch.__index = watch
watch.__name = "p2pd.pipeline_watch"

-- Words ---------------------------------------------------------------------------------------------------------------

local function names_of(files)
  local names = {}
  for i, file in ipairs(files) do names[i] = file.name end
  return names
end

local function listed(names)
  local text = table.concat(names, ", ", 1, math.min(#names, NAMED))
  return #names > NAMED and ("%s and %d more"):format(text, #names - NAMED) or text
end

local function outline(strategy)
  local text = strategies.outline(strategy)
  return #text <= LONGEST and text or text:sub(1, LONGEST) .. "…"
end

local function loaded(files, new)
  local names = names_of(files)
  local text = ("%s %s loaded again: %s"):format(listed(names), #names == 1 and "was" or "were", outline(new))
  return { files = names, pipeline = new, text = text }
end

local function failed(files, message, code)
  local text = ("%s; the pipeline stays as it was"):format((message:gsub("^EINVAL: ", "")))
  return { files = names_of(files), message = message, code = code, text = text }
end

-- Watching ------------------------------------------------------------------------------------------------------------

local function tell(self, news)
  local ok, failure = pcall(self.on_news, news)
  if ok then return end
  if task.is_cancelled(failure) then error(failure, 0) end
  io.stderr:write(("p2pd-lua: what gets a pipeline's news failed: %s\n"):format(tostring(failure)))
end

-- What was a part of the pipeline stays watched while a new one cannot be made. `before` are these files as they were
-- when the loading began, `sources` those that were looked at then.
local function all_of(before, sources)
  local all, known = table.move(sources, 1, #sources, 1, {}), {}
  for _, source in ipairs(sources) do known[source.path] = true end
  for _, source in ipairs(before) do
    if not known[source.path] then all[#all + 1] = source end
  end
  return all
end

local function stamped(files)
  local list = {}
  for i, file in ipairs(files) do
    list[i] = { name = file.name, path = file.path, module = file.module, stamp = file_watch.stamp(file.path) }
  end
  return list
end

local function reload(self, changed)
  local before = stamped(self.files)
  loading.forget(self.files)
  local sources, new, message, code = loading.noting(pipeline.again, self.strategy)
  if self.loading ~= task.current() then return end
  if new then
    self.strategy, self.files = new, pipeline.origin(new).files
  else
    self.files = all_of(before, sources)
  end
  local watched, why, what = self.watch:set(self.files)
  tell(self, new and loaded(changed, new) or failed(changed, message, code))
  if not watched and not self.closed then tell(self, { files = {}, message = why, code = what, text = why }) end
end

-- Gives up what is being loaded, unless it is that which asks for it.
local function drop(self)
  local task_of_it = self.loading
  self.loading = nil
  if task_of_it and task_of_it ~= task.current() then task_of_it:cancel() end
end

-- A file that waits as it is loaded is not waited for when it has changed once more.
local function begin(self, changed)
  drop(self)
  self.loading = task.spawn(reload, self, changed):observe()
end

--- From now on it is this pipeline that is loaded anew; one that was not loaded by a name has no files.
function watch:follow(strategy)
  drop(self)
  local origin = pipeline.origin(strategy)
  self.strategy, self.files = strategy, origin and origin.files or {}
  return self.watch:set(self.files)
end

--- Ends it.
function watch:close()
  if self.closed then return true end
  self.closed = true
  self.watch:close()
  drop(self)
  return true
end

watch.__close = watch.close

function watch:__tostring()
  return ("watch (%s)"):format(self.closed and "closed" or listed(names_of(self.files)))
end

--- Watches the files that a pipeline was made of.
---@param strategy p2pd.Strategy
---@param on_news fun(news: p2pd.PipelineNews) must not wait
---@return p2pd.PipelineWatch? watch, string? message, string? code
function M.open(strategy, on_news)
  local origin = pipeline.origin(strategy)
  if not origin then return nil, "ENOENT: it was not loaded by a name", "ENOENT" end
  if #origin.files == 0 then return nil, ("ENOENT: no file of yours is in '%s'"):format(origin.name), "ENOENT" end
  local self = setmetatable({ on_news = on_news }, watch)
  self.watch = file_watch.new(function(changed) begin(self, changed) end)
  local ok, message, code = self:follow(strategy)
  if ok then return self end
  self:close()
  return nil, message, code
end

return M
