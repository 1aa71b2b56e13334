-- site: the HTML pages: which there are, what is on them, and how one gets from one to the other.
local html = require "spec.docs.html"
local names = require "spec.docs.names"
local reference = require "spec.docs.reference"
local tools = require "spec.docs.tools"

local M = {}

-- The guide's chapters as they are read: first what is done with the library, then what is behind it.
local CHAPTERS = {
  "strategies", "reports", "nat", "security", "embedding", "tasks", "errors", "pipes", "signaling", "punching", "lab",
}

local function in_order(there)
  local list, known = {}, {}
  for _, name in ipairs(CHAPTERS) do known[name] = true end
  for _, name in ipairs(there) do
    assert(known[name], ("lua/doc/%s.md has no place among the chapters in spec/docs/site.lua"):format(name))
  end
  assert(#there == #CHAPTERS, "spec/docs/site.lua names a chapter that lua/doc has not")
  return table.move(CHAPTERS, 1, #CHAPTERS, 1, list)
end

-- The first sentence below the title.
local function first_sentence(markdown)
  local paragraph = assert(markdown:match "^# [^\n]+\n\n(.-)\n\n"):gsub("\n", " ")
  return paragraph:match "^(.-%.)%s" or paragraph
end

local function inline(markdown)
  return tools.converted("html", markdown):match "^%s*<p>(.-)</p>%s*$"
end

local function chapters()
  local list = {}
  for place, name in ipairs(in_order(tools.names("lua/doc", ".md"))) do
    local text = tools.read(("lua/doc/%s.md"):format(name))
    list[place] = {
      file = name .. ".html", name = name, title = text:match "^# ([^\n]+)", markdown = text,
      summary = first_sentence(text),
    }
  end
  return list
end

local function module_pages(modules)
  local list = {}
  for place, module in ipairs(modules) do
    local classes = {}
    for _, entry in ipairs(module.entries) do classes[entry.label] = entry.kind ~= "function" or nil end
    list[place] = {
      file = module.name .. ".html", title = module.name, markdown = reference.page(module), classes = classes,
      summary = module.summary, module = module, items = true,
    }
  end
  return list
end

-- Lists of pages ----------------------------------------------------------------------------------------------------

local function link(page, current)
  local mark = page == current and ' aria-current="page"' or ""
  return ('<a href="%s"%s>%s</a>'):format(page.file, mark, html.escape(page.title))
end

local function navigation(groups, current)
  local out = {}
  for _, group in ipairs(groups) do
    out[#out + 1] = ("<h2>%s</h2>\n<ul>"):format(group.title)
    for _, page in ipairs(group) do out[#out + 1] = ("<li>%s</li>"):format(link(page, current)) end
    out[#out + 1] = "</ul>"
  end
  return table.concat(out, "\n")
end

-- What is on a page: names of the reference and commands to their last one, of chapters the sections.
local function contents(headings)
  local out = {}
  for place = 2, #headings do
    local heading = headings[place]
    if heading.level <= 3 then
      out[#out + 1] = ('<li class="level%d"><a href="#%s">%s</a></li>'):format(heading.level,
        html.escape(heading.anchor), html.escape(heading.text))
    end
  end
  if #out < 2 then return "" end
  return ('<nav class="contents" aria-label="on this page">\n<h2>On this page</h2>\n<ul>\n%s\n</ul>\n</nav>'):format(
    table.concat(out, "\n"))
end

local function turn(group, place)
  local out = {}
  if group[place - 1] then out[1] = ('<span>← %s</span>'):format(link(group[place - 1])) end
  if group[place + 1] then out[#out + 1] = ('<span class="next">%s →</span>'):format(link(group[place + 1])) end
  return ('<nav class="turn" aria-label="neighbours">%s</nav>'):format(table.concat(out, "\n"))
end

local function index_body(groups, programs, readme, known)
  local out = {}
  local function add(...) out[#out + 1] = (...):format(select(2, ...)) end
  local convert = function(text) return (html.page(tools.converted("html", text), known, {})) end
  add("<h1>p2pd-lua</h1>")
  add("%s", convert(assert(readme:match "^# p2pd%-lua\n\n(.-)\n\n", "README.md has no first paragraph")))
  add("%s", convert(assert(readme:match "\n## Ten lines\n\n(.-\n```)\n", "README.md has no ten lines")))
  for _, group in ipairs(groups) do
    if group.id then
      add('<h2 id="%s">%s</h2>\n<dl class="pages">', group.id, group.title)
      for _, page in ipairs(group) do
        add("<dt>%s</dt>\n<dd>%s</dd>", link(page), (html.page(inline(page.summary), known, {})))
      end
      add "</dl>"
    end
  end
  add('<h2 id="programs">Programs</h2>\n%s', convert(programs.list:gsub("`(%l+)`", "`p2pd-lua %1`")))
  add('<p>All of it is in manual pages, too: <code>man p2pd-lua</code>, <code>man p2pd.pipe</code> and so on.</p>')
  return table.concat(out, "\n")
end

--- Writes all pages into a folder.
---@param folder string
---@param modules table[] as `reference.modules` gives them
---@param programs table as `programs.all` gives it, with its `page`
---@param version string
function M.write(folder, modules, programs, version)
  local guide, parts, known = chapters(), module_pages(modules), names.new()
  guide.title, guide.id, parts.title, parts.id = "Guide", "guide", "Reference", "reference"
  local rest = { title = "Programs" }
  rest[1] = { file = "programs.html", title = "p2pd-lua", markdown = programs.page, items = true }
  for _, page in ipairs(guide) do known:add_chapter(page.name, page.file) end
  for _, page in ipairs(parts) do known:add_module(page.module, page.file) end
  for _, command in ipairs(programs.commands) do known:add_program(command.name, "programs.html") end
  local groups, template = { guide, parts, rest }, tools.read "spec/docs/page.html"
  local function write(page, body, headings, neighbours)
    local title = page.title:gsub("`", "")
    local values = {
      title = html.escape(title == "p2pd-lua" and title or title .. " – p2pd-lua"), version = version, body = body,
      pages = navigation(groups, page), contents = contents(headings), turn = neighbours,
      class = page.items and ' class="items"' or "",
    }
    tools.write(("%s/%s"):format(folder, page.file), (template:gsub("{{(%l+)}}", values)))
  end
  for _, group in ipairs(groups) do
    for place, page in ipairs(group) do
      local ok, body, headings = pcall(html.page, tools.converted("html", page.markdown), known, page.classes or {})
      if not ok then error(page.file .. ": " .. body, 0) end
      write(page, body, headings, group.id and turn(group, place) or "")
    end
  end
  local body = index_body(groups, programs, tools.read "README.md", known)
  write({ file = "index.html", title = "p2pd-lua" }, body, {}, "")
  tools.write(folder .. "/style.css", tools.read "spec/docs/style.css")
end

return M
