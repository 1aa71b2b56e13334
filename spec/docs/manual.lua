-- manual: the manual pages, for man(1): p2pd-lua(1), and one for each module of the library, as p2pd.pipe(3lua).
local reference = require "spec.docs.reference"
local tools = require "spec.docs.tools"

local M = {}

local function dashes(code)
  return (code:gsub("\\?%-", "\\-")) -- those that are typed
end

-- Code is bold, as everywhere in manual pages, or what the text around it is. The converter has it in a font of its
-- own, named \fC, \f(CB or \f[CB].
local function without_code_font(text)
  text = text:gsub("\\f%[C[RBIW]*%]", "\1"):gsub("\\f%(C[RBIW]", "\1"):gsub("\\fC", "\1")
  text = text:gsub("\\f([BI])\1(.-)\\f%1\\fR", function(font, code)
    return ("\\f%s%s\\fR"):format(font, dashes(code))
  end)
  return (text:gsub("\1(.-)\\fR", function(code) return ("\\fB%s\\fR"):format(dashes(code)) end))
end

local function roff(markdown, title, section, version)
  local text = tools.converted("man", markdown, ("-s -mtitle=%s -msection=%s"):format(title, section))
  text = without_code_font(text):gsub("(\n%.EX\n)(.-)(\n%.EE)", function(before, code, after)
    return before .. dashes(code) .. after
  end)
  text = text:gsub("(\n%.S[HS][\n ][^\n]*)\n%.[LP]P%f[\n]", "%1") -- a paragraph begins there anyway
  local head = ('.TH "%s" "%s" "" "p2pd-lua %s" "p2pd-lua"'):format(title, section, version)
  local found
  text, found = text:gsub("\n%.TH [^\n]*", function() return "\n" .. head end, 1)
  assert(found == 1, "the converter's manual page has no title")
  return text
end

-- A page's parts as the sections of a manual page.
local function sections(markdown, shape)
  local body = markdown:gsub("^%s*# [^\n]+\n", "")
  return (("\n" .. body):gsub("\n##(#*) ([^\n]+)", function(deeper, title)
    return ("\n#%s %s"):format(deeper, deeper == "" and shape(title) or title)
  end))
end

local function same(title)
  return title
end

--- Writes them into a folder.
---@param folder string
---@param modules table[] as `reference.modules` gives them
---@param programs table as `programs.all` gives it, with its `page`
---@param version string
function M.write(folder, modules, programs, version)
  local others = {}
  for place, module in ipairs(modules) do
    local body = sections(reference.page(module), same)
    local head = body:find "^%s*#" and "" or "# DESCRIPTION\n"
    local markdown = ("# NAME\n\n%s - %s\n\n%s%s"):format(module.name, tools.prose(module.summary), head, body)
    tools.write(("%s/%s.3lua"):format(folder, module.name), roff(markdown, module.name, "3lua", version))
    others[place] = ("`%s(3lua)`"):format(module.name)
  end
  local body = sections(programs.page, string.upper)
  local markdown = ("# NAME\n\np2pd-lua - %s\n\n# SYNOPSIS\n%s\n# DESCRIPTION\n%s\n# SEE ALSO\n\n%s\n"):format(
    "opens an encrypted connection between any two computers", programs.usage, body, table.concat(others, ", "))
  tools.write(folder .. "/p2pd-lua.1", roff(markdown, "p2pd-lua", "1", version))
end

return M
