-- pretty: values as text for a person. Whatever a value holds, no control character of it reaches the terminal.
local M = {}

M.limits = { depth = 4, items = 60, total = 600, keys = 4000, text = 2000, inner_text = 200 }

local colours = {
  string = "32", number = "36", keyword = "35", other = "33", error = "31", faint = "2", strong = "1",
}

--- A function that colours a text by kind: "string", "number", "keyword", "other", "error", "faint", "strong".
---@param on boolean
---@return fun(kind: string, text: string): string
function M.painter(on)
  if not on then return function(_, text) return text end end
  return function(kind, text)
    return ("\27[%sm%s\27[0m"):format(colours[kind], text)
  end
end

--- A text as readline's prompt: it does not count the columns of what stands between \1 and \2.
---@param text string
---@param coloured boolean
function M.prompt(text, coloured)
  return coloured and "\1\27[1m\2" .. text .. "\1\27[0m\2" or text
end

local short = { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["\\"] = "\\\\", ['"'] = '\\"' }

-- Characters that are not seen, or that change how others are seen.
local function is_hidden(code)
  return code < 0xa0 or code >= 0x200b and code <= 0x200f or code >= 0x2028 and code <= 0x202e
    or code >= 0x2060 and code <= 0x206f or code == 0xfeff or code == 0xad or code == 0x61c
    or code >= 0xfff0 and code <= 0xfffb or code >= 0xe0000 and code <= 0xe0fff
end

local function escape(text, kept)
  local parts, place = {}, 1
  local function byte(c)
    if kept:find(c, 1, true) then return c end
    return short[c] or ("\\x%02X"):format(c:byte())
  end
  while place <= #text do
    local ascii = text:match("^[%z\1-\127]+", place)
    if ascii then
      parts[#parts + 1] = ascii:gsub('[%c\127"\\]', byte)
      place = place + #ascii
    else
      local character = text:match("^[\xC2-\xF4][\x80-\xBF]+", place) or ""
      character = character:sub(1, (utf8.offset(character, 2) or 1) - 1)
      if utf8.len(character) == 1 then
        local code = utf8.codepoint(character)
        parts[#parts + 1] = is_hidden(code) and ("\\u{%04X}"):format(code) or character
        place = place + #character
      else
        parts[#parts + 1] = ("\\x%02X"):format(text:byte(place))
        place = place + 1
      end
    end
  end
  return table.concat(parts)
end

--- A text of unknown origin, fit to be printed; line ends and tabs stay when `lines` is true.
---@param text string
---@param lines? boolean
function M.safe(text, lines)
  return escape(text, lines and '"\\\n\t' or '"\\')
end

local function quoted(text, limit)
  if #text <= limit then return '"' .. escape(text, "") .. '"' end
  local stop = utf8.offset(text, 0, limit + 1) or limit + 1
  if limit + 1 - stop > 3 then stop = limit + 1 end
  return ('"%s"… (%d bytes)'):format(escape(text:sub(1, stop - 1), ""), #text)
end

local keywords = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true
  until while]]):gmatch "%a+" do
  keywords[word] = true
end
M.keywords = keywords

function M.is_name(text)
  return text:match "^[%a_][%w_]*$" and not keywords[text]
end

-- A node of the picture: { kind, text } of a leaf, { items = {{label, node}…}, open = text, more = text } of a table.

local function described(value, state)
  local ok, text = pcall(tostring, value)
  if not ok then
    if state.is_cancelled(text) then error(text, 0) end
    text = ("%s (its __tostring failed: %s)"):format(type(value), type(text) == "string" and text or type(text))
  end
  return { "other", escape(text:sub(1, M.limits.text), '"\\') }
end

local function function_text(f)
  local info = debug.getinfo(f, "S")
  if info.what == "C" then return (tostring(f):gsub("^builtin: ", "")) end
  return ("function (%s:%d)"):format(info.short_src, info.linedefined)
end

local order = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
  local kind_a, kind_b = order[type(a)] or 4, order[type(b)] or 4
  if kind_a ~= kind_b then return kind_a < kind_b end
  if kind_a <= 2 then return a < b end
  return tostring(a) < tostring(b)
end

-- Keys that are not in the list part, sorted; of a huge table the first that come.
local function sorted_keys(value, length)
  local keys, count = {}, 0
  for key in next, value do
    if not (math.type(key) == "integer" and key >= 1 and key <= length) then
      count = count + 1
      if count <= M.limits.keys then keys[count] = key end
    end
  end
  local plain = {}
  for _, key in ipairs(keys) do plain[#plain + 1] = order[type(key)] and key or nil end
  if #plain == #keys then
    table.sort(keys, before)
  else -- a key's own __tostring is not asked for an order
    table.sort(plain, before)
    for _, key in ipairs(keys) do
      if not order[type(key)] then plain[#plain + 1] = key end
    end
    keys = plain
  end
  return keys, count
end

local picture

local function label_of(key, state)
  if type(key) == "string" and M.is_name(key) then return key .. " = " end
  local node = picture(key, state, M.limits.depth, {})
  return ("[%s] = "):format(node.items and "table" or node[2])
end

local function table_picture(value, state, depth, path)
  if path[value] then return { "faint", "<cycle>" } end
  local meta = debug.getmetatable(value)
  local name = type(meta) == "table" and rawget(meta, "__name")
  local open = (type(name) == "string" and escape(name, "") .. " " or "") .. "{"
  if next(value) == nil then return { "faint", open .. "}" } end
  if depth >= M.limits.depth then return { "faint", open .. "…}" } end
  local items, length = {}, rawlen(value)
  path[value] = true
  local function add(label, item)
    state.left = state.left - 1
    items[#items + 1] = { label, picture(item, state, depth + 1, path) }
  end
  local shown = 0
  for i = 1, math.min(length, M.limits.items) do
    if state.left <= 0 then break end
    add("", rawget(value, i))
    shown = shown + 1
  end
  local keys, count = sorted_keys(value, length)
  for i = 1, math.min(#keys, M.limits.items) do
    if state.left <= 0 then break end
    add(label_of(keys[i], state), rawget(value, keys[i]))
    shown = shown + 1
  end
  path[value] = nil
  local left = length + count - shown
  return { items = items, open = open, more = left > 0 and ("… %d more"):format(left) or nil }
end

function picture(value, state, depth, path)
  local kind = type(value)
  if kind == "string" then
    return { "string", quoted(value, depth == 0 and M.limits.text or M.limits.inner_text) }
  elseif kind == "number" then
    return { "number", tostring(value) }
  elseif kind == "nil" or kind == "boolean" then
    return { "keyword", tostring(value) }
  elseif kind == "function" then
    return { "other", escape(function_text(value), "") }
  elseif kind == "table" then
    local meta = debug.getmetatable(value)
    if type(meta) ~= "table" or rawget(meta, "__tostring") == nil then
      return table_picture(value, state, depth, path)
    end
  end
  return described(value, state)
end

local function width_of(text)
  return utf8.len(text) or #text
end

local function measure(node)
  if not node.items then
    node.width = width_of(node[2])
  else
    local width = #node.open + 1 + (node.more and width_of(node.more) + 2 or 0)
    for _, item in ipairs(node.items) do width = width + width_of(item[1]) + measure(item[2]) + 2 end
    node.width = width
  end
  return node.width
end

-- `column` is where the node begins, `indent` where its closing brace goes when it takes several lines.
local function write(node, out, indent, column, room, paint)
  if not node.items then
    out[#out + 1] = paint(node[1], node[2])
    return
  end
  local wide = node.width > room - column
  local inner = indent + 2
  local separator = wide and ",\n" .. (" "):rep(inner) or ", "
  out[#out + 1] = node.open .. (wide and separator:sub(2) or "")
  for i, item in ipairs(node.items) do
    if i > 1 then out[#out + 1] = separator end
    out[#out + 1] = item[1]
    write(item[2], out, inner, inner + width_of(item[1]), wide and room or math.huge, paint)
  end
  if node.more then out[#out + 1] = separator .. paint("faint", node.more) end
  out[#out + 1] = wide and "\n" .. (" "):rep(indent) .. "}" or "}"
end

--- The value as Lua would write it, within limits, on one line where it fits.
---@param value any
---@param options? {width: integer?, paint: function?, is_cancelled: function?}
---@return string
function M.text(value, options)
  options = options or {}
  local state = { left = M.limits.total, is_cancelled = options.is_cancelled or function() return false end }
  local node, out = picture(value, state, 0, {}), {}
  measure(node)
  write(node, out, 0, 0, options.width or 80, options.paint or M.painter(false))
  return table.concat(out)
end

--- Several values: beside one another where they fit, else one below the other.
---@param values {n: integer}
---@param options? table as text
---@return string
function M.list(values, options)
  local parts, total, lines = {}, 0, false
  for i = 1, values.n do
    parts[i] = M.text(values[i], options)
    total = total + width_of(parts[i]:gsub("\27%[%d*m", "")) + 2
    lines = lines or parts[i]:find("\n", 1, true) ~= nil
  end
  local fits = not lines and total - 2 <= (options and options.width or 80)
  return table.concat(parts, fits and ", " or ",\n")
end

return M
