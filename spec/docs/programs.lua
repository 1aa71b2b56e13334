-- programs: the programs as Markdown, from what they say of themselves: `p2pd-lua --help`, and that of each command.
local tools = require "spec.docs.tools"

local M = {}

local code, prose = tools.code, tools.prose

-- Where the texts of a list begin: options and commands stand left of it.
local function column_of(lines)
  for _, line in ipairs(lines) do
    local column = line:match "^  %S.-%s%s+()%S"
    if column then return column end
  end
end

local function add_list(out, lines)
  local column = assert(column_of(lines), "a list of --help without texts: " .. lines[1])
  for _, line in ipairs(lines) do
    local left, right = line:sub(3, column - 1), line:sub(column)
    assert(left:find "^%S.*%s$" and right:find "^%S", "a line of --help that is laid out in its own way: " .. line)
    out[#out + 1] = ("- **%s** – %s"):format(code(left:match "^(.-)%s*$"), prose(right))
  end
end

-- "Exit status:" begins a paragraph; what stands apart at the end of a line is typed.
local function add_text(out, lines)
  local text = prose(table.concat(lines, "\n")):gsub("\nExit status:", "\n\nExit status:")
  out[#out + 1] = text:gsub("%f[^\n%z](%S[^\n]-:)  (%S[^\n]*)", function(words, command)
    return ("%s %s"):format(words, code((command:gsub("\\(%p)", "%1"))))
  end)
end

local function add_usage(out, lines)
  for place, line in ipairs(lines) do
    out[#out + 1] = "    " .. (place == 1 and line:match "^usage: (.*)$" or line:match "^%s+(%S.*)$")
  end
end

-- Paragraphs and lists, which begin where the indentation changes or a line is empty.
local function blocks_of(help)
  local blocks, last = {}, nil
  for line in (help .. "\n"):gmatch "([^\n]*)\n" do
    local kind = line == "" and "none" or line:find "^usage:" and "usage" or line:find "^  " and "list" or "text"
    if last and last.kind == "usage" and kind == "list" then kind = "usage" end
    if not last or last.kind ~= kind then
      last = { kind = kind }
      blocks[#blocks + 1] = last
    end
    last[#last + 1] = line
  end
  return blocks
end

local adders = { list = add_list, text = add_text, usage = add_usage, none = function() end }

local function converted(blocks)
  local out = {}
  for _, block in ipairs(blocks) do
    out[#out + 1] = ""
    adders[block.kind](out, block)
  end
  return table.concat(out, "\n") .. "\n"
end

-- The names that a list of commands begins with: below a line that says so, or those of `lab`.
local function commands_of(blocks, is_list)
  local names = {}
  for place, block in ipairs(blocks) do
    if is_list(blocks[place - 1], block) then
      for _, line in ipairs(block) do names[#names + 1] = line:match "^  ([%l-]+)" end
    end
  end
  return names
end

--- What there is: the help of the program itself as `options`, and the commands: { name =, text = } in their order.
--- Paths are shown as for a user whose home is `~`.
---@param program string
---@return { usage: string, options: string, list: string, commands: { name: string, text: string }[] }
function M.all(program)
  local function help_of(words)
    local text = tools.output(("env -i HOME='~' PATH=/usr/bin:/bin %s %s --help"):format(tools.quoted(program), words))
    return blocks_of(text)
  end
  local commands = {}
  local function add(name, blocks)
    commands[#commands + 1] = { name = name, text = converted(blocks) }
  end
  local own = help_of ""
  local function is_programs(before, block)
    return block.kind == "list" and before.kind == "text" and before[1]:find "^Built%-in programs"
  end
  local names = commands_of(own, is_programs)
  assert(#names > 0, "--help lists no programs")
  for _, name in ipairs(names) do
    local blocks = help_of(name)
    add(name, blocks)
    if blocks[1][1]:find "%f[%w]COMMAND%f[%W]" then
      local inner = commands_of(blocks, function(_, block) return block.kind == "list" and block[1]:find "^  %l" end)
      assert(#inner > 0, name .. " --help lists no commands")
      for _, command in ipairs(inner) do add(name .. " " .. command, help_of(name .. " " .. command)) end
    end
  end
  local options, list = {}, nil
  for place, block in ipairs(own) do
    if block.kind ~= "usage" and is_programs(own[place - 1] or block, block) then
      list = block
    elseif block.kind ~= "usage" and not (block.kind == "text" and block[1]:find "^Built%-in programs") then
      options[#options + 1] = block
    end
  end
  return {
    usage = converted { own[1] }, options = converted(options), list = converted { list }, commands = commands,
  }
end

return M
