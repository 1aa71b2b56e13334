-- docs: what `make docs` makes. Names have places, links lead there, programs are told of, manual pages are sound.
-- check: unsanitized
local luv = require "luv"
local annotations = require "p2pd.repl.annotations"
local processes = require "spec.support.processes"
local xml = require "spec.support.xml"

local BUILD = os.getenv "P2PD_BUILD" or "build"
local PROGRAM = processes.absolute(BUILD) .. "/p2pd-lua"
local DOCTYPE = "^<!DOCTYPE html>\n"
local PRIVATE = { P2PD_LAB_STAT = true } -- what the lab's own processes tell each other

local folder, pages, manuals

-- What a command prints, and its exit status.
local function output_of(command)
  local stream = assert(io.popen(command .. " 2>&1"))
  local text = stream:read "a"
  return text, select(3, stream:close())
end

local function make(where)
  return output_of(("lua5.4 spec/docs/make.lua --build '%s' '%s'"):format(BUILD, where))
end

-- A page with its elements and anchors; throws when it is not well-formed.
local function read_page(path)
  local source, found = processes.read(path):gsub(DOCTYPE, "")
  assert.equal(1, found, path)
  local ok, elements = pcall(xml.elements, source)
  assert(ok, ("%s: %s"):format(path, elements))
  local page = { elements = elements, text = xml.text(source), anchors = {} }
  for _, element in ipairs(elements) do
    local id = element.attributes.id
    assert(not id or not page.anchors[id], ("%s has two places named %s"):format(path, id))
    if id then page.anchors[id] = true end
  end
  return page
end

-- A manual page as a terminal shows it, and what mandoc complains of: not that there is no date, for which the version
-- is there, so that what is made twice is the same.
local function read_manual(path)
  local complaints = output_of(("mandoc -T lint -W warning '%s'"):format(path))
  complaints = complaints:gsub("[^\n]*: missing date,[^\n]*\n", "")
  local text = output_of(("mandoc -T utf8 -O width=120 '%s'"):format(path)):gsub(utf8.charpattern .. "\8", "")
  return { text = text, complaints = complaints }
end

-- Without what differs between a comment, a page and a terminal.
local function plain(text)
  return (text:gsub("[`%s]+", ""))
end

local function each_module(f)
  for _, path in ipairs(processes.find("lua/meta", "%.lua$")) do f(annotations.parse(processes.read(path))) end
end

-- The commands, those of `lab` too, with the options that the --help of each names; "" is the program itself.
local function commands()
  local found = {}
  local function add(name)
    local text, status = output_of(("timeout 20 '%s' %s --help"):format(PROGRAM, name))
    assert.equal(0, status, text)
    found[name] = {}
    for line in text:gmatch "\n  (%-[^\n]*)" do
      local option, rest = line:match "^(%-[%w-]*),? ?(.*)$"
      while option do
        table.insert(found[name], option)
        option, rest = rest:match "^(%-[%w-]*),? ?(.*)$"
      end
    end
    return text
  end
  for name in add(""):match "\nBuilt%-in programs[^\n]*\n(.*)":gmatch "  (%l+) [^\n]*\n" do
    local text = add(name)
    if text:find "COMMAND" then
      for command in text:gmatch "\n  (%l+)" do add(name .. " " .. command) end
    end
  end
  return found
end

setup(function()
  folder = processes.new_folder()
  local text, status = make(folder .. "/docs")
  assert.equal(0, status, text)
  pages, manuals = {}, {}
  for _, path in ipairs(processes.find(folder .. "/docs", "%.html$")) do
    pages[path:match "[^/]+$"] = read_page(path)
  end
  for _, path in ipairs(processes.find(folder .. "/docs/man", "[^/]$")) do
    manuals[path:match "[^/]+$"] = read_manual(path)
  end
end)

teardown(function() processes.remove(folder) end)

describe("make docs", function()
  it("has a page for each chapter of the guide, each module and the programs, and an index that leads there", function()
    local expected = { ["index.html"] = true, ["programs.html"] = true }
    for _, path in ipairs(processes.find("lua/doc", "%.md$")) do
      expected[path:match "([%w_]+)%.md$" .. ".html"] = true
    end
    each_module(function(_, module) expected[module .. ".html"] = true end)
    local there, linked = {}, { ["index.html"] = true }
    for name in pairs(pages) do there[name] = true end
    assert.same(expected, there)
    for _, element in ipairs(pages["index.html"].elements) do
      if element.attributes.href then linked[element.attributes.href] = true end
    end
    for name in pairs(expected) do assert(linked[name], "the index does not lead to " .. name) end
  end)

  it("gives each public name a place", function()
    local count = 0
    each_module(function(entries, module)
      local anchors = pages[module .. ".html"].anchors
      for _, entry in ipairs(entries) do
        local of_part = entry.class and entry.class:find "^p2pd[%l.]*$" and entry.name:find "%."
        local place = of_part and entry.class .. "." .. entry.name:match "[%w_]+$" or entry.name
        assert(anchors[place], ("%s.html has no %s"):format(module, place))
        for _, field in ipairs(entry.kind == "class" and entry.fields or {}) do
          local name = field.name:match "^[%a_][%w_]*"
          assert(not name or anchors[entry.name .. "." .. name], ("%s.%s"):format(entry.name, name))
        end
        count = count + 1
      end
    end)
    assert(count > 250)
  end)

  it("leaves out nothing that lua/meta says: neither of pages nor of manual pages", function()
    each_module(function(entries, module)
      local places = {
        [module .. ".html"] = plain(pages[module .. ".html"].text),
        [module .. "(3lua)"] = plain(manuals[module .. ".3lua"].text),
      }
      local function said(entry, text)
        for name, there in pairs(places) do
          assert(there:find(plain(text), 1, true), ("%s lacks of %s: %s"):format(name, entry.name, text))
        end
      end
      for _, entry in ipairs(entries) do
        said(entry, table.concat(entry.about, "\n"))
        for _, list in ipairs { entry.params, entry.returns, entry.fields } do
          for _, item in ipairs(list) do
            said(entry, (item.name == "#" and "" or item.name) .. item.type)
            said(entry, item.text)
          end
        end
      end
    end)
  end)

  it("links only to what is there, and nothing to the outside", function()
    local count, types = 0, 0
    for name, page in pairs(pages) do
      for _, element in ipairs(page.elements) do
        local href = element.attributes.href
        assert(not element.attributes.src and element.name ~= "script", name)
        if href and element.name == "link" then
          assert.equal("file", luv.fs_stat(folder .. "/docs/" .. href).type)
        elseif href then
          local file, anchor = href:match "^([%w_.-]*)#?(.*)$"
          local target = pages[file == "" and name or file]
          assert(target, ("%s leads to nothing: %s"):format(name, href))
          assert(anchor == "" or target.anchors[anchor], ("%s leads to no place: %s"):format(name, href))
          count = count + 1
          if element.text:find "^p2pd%.%u" then types = types + 1 end
        end
      end
    end
    assert(count > 2000 and types > 400)
    local style = processes.read(folder .. "/docs/style.css")
    assert(not style:find "url%(" and not style:find "@import")
  end)

  it("links types in signatures, names in the guide, and chapters", function()
    local function leads(name, href, text)
      for _, element in ipairs(pages[name].elements) do
        if element.attributes.href == href and element.text == text then return end
      end
      error(("%s has no link %s to %s"):format(name, text, href))
    end
    leads("p2pd.node.html", "p2pd.pipe.html#p2pd.Pipe", "p2pd.Pipe")
    leads("p2pd.strategy.html", "strategies.html", ":help strategies")
    leads("strategies.html", "p2pd.strategy.html#ctx:candidates", "ctx:candidates")
    leads("punching.html", "nat.html", "The words for routers")
    leads("strategies.html", "p2pd.strategy.html", "lua/meta/strategy.lua")
    leads("reports.html", "p2pd.node.html#p2pd.Node.last_report", "node.last_report")
  end)

  it("tells of all commands and options, as they are by --help", function()
    local anchors, manual, count = pages["programs.html"].anchors, manuals["p2pd-lua.1"].text, 0
    local html = plain(pages["programs.html"].text)
    for name, options in pairs(commands()) do
      local heading = name == "" and "\nOPTIONS\n" or ("\n   %s\n"):format(name)
      local _, from = manual:find(heading, 1, true)
      assert(from, "p2pd-lua(1) lacks " .. name)
      local section = manual:sub(from, manual:find("\n ? ? ?%S", from))
      assert(name == "" or anchors[(name:gsub(" ", "-"))], "programs.html lacks " .. name)
      for _, option in ipairs(options) do
        assert(section:find("%f[%S]" .. option:gsub("%-", "%%-") .. "%f[^%w-]"), ("p2pd-lua(1): %s has no %s")
          :format(name, option))
        if option:find "^%-%-%w" and name ~= "" then
          assert(anchors[name:gsub(" ", "-") .. option], ("programs.html: %s has no %s"):format(name, option))
        end
        assert(html:find(option, 1, true))
        count = count + 1
      end
    end
    assert(count > 80)
  end)

  it("names the variables of the environment that the code asks for", function()
    local section = manuals["p2pd-lua.1"].text:match "\nENVIRONMENT\n(.-)\n%u"
    for _, place in ipairs { "lua/p2pd", "scripts", "bindings", "core" } do
      for _, path in ipairs(processes.find(place, "%.[clu]+a?$")) do
        for name in processes.read(path):gmatch "getenv%s?%(?\"([%u%d_]+)" do
          assert(PRIVATE[name] or section:find("%f[%w_]" .. name .. "%f[^%w_]"), path .. ": " .. name)
        end
      end
    end
  end)

  it("makes manual pages that are shown without a complaint", function()
    local count = 0
    for name, manual in pairs(manuals) do
      assert.equal("", manual.complaints, name)
      assert(manual.text:find "^%S+%(%w+%)" and manual.text:find "\nNAME\n +%S+ %- %S", name)
      count = count + 1
    end
    assert.equal(#processes.find("lua/meta", "%.lua$") + 1, count)
  end)

  it("holds nothing of the machine where it was made, and is the same when it is made again", function()
    local again = folder .. "/again"
    local text, status = make(again)
    assert.equal(0, status, text)
    for _, path in ipairs(processes.find(folder .. "/docs", "[^/]$")) do
      local made = processes.read(path)
      assert.equal(made, processes.read(again .. path:sub(#(folder .. "/docs") + 1)))
      for _, place in ipairs { luv.cwd(), folder, processes.absolute(BUILD), os.getenv "HOME" .. "/" } do
        assert(not made:find(place, 1, true), ("%s holds %s"):format(path, place))
      end
    end
  end)

  it("refuses what it does not know, and says where that is", function()
    local function refused(text, words)
      local ok, message = pcall(annotations.parse, "---@meta p2pd.x\n" .. text)
      assert(not ok and message:find(words, 1, true), message)
    end
    refused("---@genric T\n", "@genric")
    refused("---@class p2pd.X\n---@operator add: p2pd.X\n", "add: p2pd.X")
    assert(not pcall(annotations.parse, "local x = {}\n"))
  end)
end)
