-- tools: files, and the programs that the documentation is made by.
local luv = require "luv"

local M = {}

function M.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

function M.write(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

--- The names in a folder that end so, without that end, sorted.
---@param folder string
---@param ending string
---@return string[]
function M.names(folder, ending)
  local found = {}
  for name in luv.fs_scandir_next, assert(luv.fs_scandir(folder)) do
    if name:sub(-#ending) == ending then found[#found + 1] = name:sub(1, -#ending - 1) end
  end
  table.sort(found)
  return found
end

--- Makes a folder, and those in which it is to lie.
function M.folder(path)
  local parent = path:match "^(.+)/[^/]+$"
  if luv.fs_stat(path) then return end
  if parent then M.folder(parent) end
  assert(luv.fs_mkdir(path, 493)) -- 0755
end

function M.quoted(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- What a command prints; throws when it fails.
---@param command string
---@return string
function M.output(command)
  local stream = assert(io.popen(command))
  local text = stream:read "a"
  if not stream:close() then error(("it failed: %s\n%s"):format(command, text), 0) end
  return text
end

--- Markdown as something else. Nothing is to be guessed: quotes and dashes stay, and only what is written as a link is.
---@param format "html"|"man"
---@param text string
---@param more? string further arguments
---@return string
function M.converted(format, text, more)
  local path = os.tmpname()
  M.write(path, text)
  local ok, result = pcall(M.output, ("lowdown -t%s --out-no-smarty --parse-no-autolink --parse-no-super "
    .. "--parse-no-metadata %s %s"):format(format, more or "", M.quoted(path)))
  os.remove(path)
  return ok and result or error(result, 0)
end

--- Text of which Markdown is to make nothing but code, where it is between backticks.
---@param text string
---@return string
function M.prose(text)
  local pieces, code = {}, false
  for piece, tick in text:gmatch "([^`]*)(`*)" do
    pieces[#pieces + 1] = code and piece or piece:gsub("[\\*_%[%]<>#]", "\\%0")
    pieces[#pieces + 1] = tick
    if tick ~= "" then code = not code end
  end
  return table.concat(pieces)
end

--- Text in between backticks, also where it holds some.
---@param text string
---@return string
function M.code(text)
  return text:find "`" and "`` " .. text .. " ``" or "`" .. text .. "`"
end

return M
