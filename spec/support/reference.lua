-- reference: the API's reference in Markdown, from the annotations in lua/meta: `make docs`.
--
--   lua5.4 spec/support/reference.lua [--build DIR]     writes DIR/docs/reference.md
package.path = "./?.lua;" .. package.path
local processes = require "spec.support.processes"

local PREAMBLE = "# The API of p2pd-lua\n\nMade from `lua/meta` by `make docs`.\n"

-- A list entry from an annotation: its name and type in code, and what is said of it.
local function entry(name, kind, text)
  local head = ("- `%s%s`"):format(name, kind ~= "" and ": " .. kind or "")
  return head .. (text ~= "" and " – " .. text or "")
end

-- Splits "TYPE words" where the type ends: at a space outside of brackets, of commas and of unions.
local function split_type(text)
  local depth, place = 0, 1
  while place <= #text do
    local c = text:sub(place, place)
    if c:find "[%(%[{<]" then depth = depth + 1 elseif c:find "[%)%]}>]" then depth = depth - 1 end
    if c == " " and depth == 0 and not text:sub(1, place - 1):find "[,:|]$" then break end
    place = place + 1
  end
  return text:sub(1, place - 1), text:sub(place + 1)
end

-- What is written for each annotation, in the order in which it comes.
local tags = {}

function tags.class(out, rest)
  local name, base = rest:match "^([%w_.]+)%s*:?%s*(.*)"
  out[#out + 1] = ("\n## %s\n"):format(name) .. (base ~= "" and ("\nIt is a `%s`.\n"):format(base) or "")
end

function tags.alias(out, rest)
  local name, kind = rest:match "^(%S+)%s*(.*)"
  out[#out + 1] = ("\n## %s\n"):format(name) .. (kind ~= "" and ("\n`%s`\n"):format(kind) or "")
end

local function named(out, rest)
  local name, kind = rest:match "^(%S+)%s*(.*)"
  out[#out + 1] = entry(name, split_type(kind))
end

tags.field, tags.param = named, named

tags["return"] = function(out, rest)
  local kind, text = split_type(rest)
  out[#out + 1] = entry("returns", kind, text)
end

local function flush(out, doc, notes, heading)
  if heading then out[#out + 1] = ("\n### %s\n"):format(heading) end
  local title = not heading and notes[1] and notes[1]:find "^\n## " and table.remove(notes, 1)
  if title then out[#out + 1] = title end
  if #doc > 0 then out[#out + 1] = table.concat(doc, "\n") .. "\n" end
  for _, note in ipairs(notes) do out[#out + 1] = note end
end

local function convert(text, out)
  local doc, notes = {}, {}
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    local tag, rest = line:match "^%-%-%-@(%w+)%s*(.*)"
    local call = line:match "^function ([%w_.:]+%b())"
    if tag then
      if tags[tag] then tags[tag](notes, rest) end
    elseif line:find "^%-%-%-|" then
      local value, words = line:match "^%-%-%-|%s*(%S+)%s*(.*)"
      notes[#notes + 1] = entry(value, "", words)
    elseif line:find "^%-%-%-" then
      doc[#doc + 1] = line:match "^%-%-%-%s?(.*)"
    else
      if call or #doc > 0 or #notes > 0 then flush(out, doc, notes, call and ("`%s`"):format(call)) end
      doc, notes = {}, {}
    end
  end
end

local build = arg[1] == "--build" and arg[2] or "build"
local out = { PREAMBLE }
for _, path in ipairs(processes.find("lua/meta", "%.lua$")) do convert(processes.read(path), out) end
os.execute(("mkdir -p '%s/docs'"):format(build))
local path = build .. "/docs/reference.md"
processes.write(path, table.concat(out, "\n") .. "\n")
print(path)
