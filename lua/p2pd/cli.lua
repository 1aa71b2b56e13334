-- cli: what the built-in programs share: options, events in words or JSON, exit statuses.
local cjson = require "cjson"
local core = require "p2pd.core"
local luv = require "luv"
local task = require "p2pd.task"

local M = { OK = 0, FAILED = 1, USAGE = 2, BROKEN = 3 }

local function is_ip(text)
  if core.address.ip(text) then return text end
  return nil, ("--bind is an IP address, not '%s'"):format(text)
end

local common = {
  { "--settings", "FILE", "read the servers from FILE instead of ~/.config/p2pd-lua/settings.lua" },
  { "--key", "FILE", "the node's key (made at first use) instead of the user's own" },
  { "--bind", "IP", "listen on this address alone", check = is_ip },
  { "--json", nil, "tell each event as one JSON object a line on standard error" },
  { "--help", nil, "print this text" },
}

local function print_help(program, options)
  local lines = { "usage: p2pd-lua " .. program.usage, "", program.about, "" }
  for _, option in ipairs(options) do
    local left = option[1] .. (option[2] and " " .. option[2] or "")
    lines[#lines + 1] = ("  %-26s %s"):format(left, option[3])
  end
  if program.epilogue then
    lines[#lines + 1] = ""
    lines[#lines + 1] = program.epilogue
  end
  print(table.concat(lines, "\n"))
end

local function number(text, name, range)
  local value = tonumber(text)
  if value and range.whole then value = math.tointeger(value) end
  if not value or value < range[1] or value > range[2] then
    return nil, ("%s is a %snumber from %g to %g, not '%s'"):format(name, range.whole and "whole " or "", range[1],
      range[2], text)
  end
  return value
end

local help_alone = { common[#common] }

-- The words `key=value` that follow an option.
local function pairs_at(arguments, place)
  local words = {}
  while (arguments[place] or ""):find "^[%w_.]+=" do
    words[#words + 1] = arguments[place]
    place = place + 1
  end
  return words, place
end

--- Says what is wrong with a program's arguments, and how it is used.
---@param program { name: string, usage: string }
---@param message string
---@return integer status
function M.usage(program, message)
  io.stderr:write(("p2pd-lua %s: %s\nusage: p2pd-lua %s\n"):format(program.name, message, program.usage))
  return M.USAGE
end

--- Parses the arguments of a program. Where the program should end instead, returns nil and its exit status.
---
--- An option is { "--name", VALUE or nil, text }, with `range` or `check` for its value; one with `pairs` may come
--- several times and takes the words `key=value` that follow: its value is a list of { VALUE, words… }. A program with
--- `bare` has no options but its own and --help. One with `command` takes a command after its operands (or after
--- "--"), all of which is that command's; one with `pairs` takes words `key=value` there. `optional` is how many of the
--- operands may be missing.
---@param program {name: string, usage: string, about: string, options: table[]?, operands: integer?,
---                optional: integer?, bare: boolean?, command: boolean?, pairs: boolean?, epilogue: string?}
---@param arguments string[]
---@return table? values option values by name without dashes, operands by position; `command`, `pairs`
---@return integer? status
function M.parse(program, arguments)
  local options, known = {}, {}
  for _, list in ipairs { program.options or {}, program.bare and help_alone or common } do
    for _, option in ipairs(list) do
      options[#options + 1] = option
      known[option[1]] = option
    end
  end
  local values, place, only_operands = {}, 1, false
  local operands = program.operands or 0
  local function usage(message) return nil, M.usage(program, message) end
  while arguments[place] do
    local argument = arguments[place]
    local name, value = argument:match "^(%-%-[%w-]+)=(.*)$"
    local option = known[name or argument]
    local is_operand = only_operands or argument:sub(1, 1) ~= "-" or argument == "-"
    if program.command and (argument == "--" or is_operand and #values == operands) then
      values.command = table.move(arguments, argument == "--" and place + 1 or place, #arguments, 1, {})
      break
    elseif program.pairs and is_operand and #values == operands then
      values.pairs, place = pairs_at(arguments, place)
      if #values.pairs == 0 then return usage(("'%s' is no KEY=VALUE"):format(argument)) end
      place = place - 1
    elseif is_operand then
      values[#values + 1] = argument
    elseif argument == "--" then
      only_operands = true
    elseif argument == "--help" or argument == "-h" then
      print_help(program, options)
      return nil, M.OK
    elseif not option then
      return usage(("unknown option '%s'"):format(argument))
    else
      if option[2] and not value then
        place = place + 1
        value = arguments[place]
        if not value then return usage(("%s needs a %s"):format(option[1], option[2])) end
      elseif value and not option[2] then
        return usage(("%s takes no value"):format(option[1]))
      end
      local why
      if option.range then value, why = number(value, option[1], option.range) end
      if option.check then value, why = option.check(value) end
      if why then return usage(why) end
      local key = option[1]:sub(3)
      if option.pairs then
        local words, after = pairs_at(arguments, place + 1)
        table.insert(words, 1, value)
        place, value = after - 1, values[key] or {}
        value[#value + 1] = words
      end
      values[key] = value or true
    end
    place = place + 1
  end
  if #values > operands then return usage(("'%s' is one operand too many"):format(values[operands + 1])) end
  if #values < operands - (program.optional or 0) then return usage "an operand is missing" end
  if program.command and #(values.command or {}) == 0 then return usage "a command is missing" end
  return values
end

--- Returns a function that tells events on standard error: `tell("pipe", fields, "words for a person")`.
---@param json boolean?
function M.teller(json)
  return function(event, fields, words)
    if json then
      fields.event = event
      io.stderr:write(cjson.encode(fields), "\n")
    elseif words then
      io.stderr:write(words, "\n")
    end
  end
end

local function bar(ok, skipped)
  return skipped and "-" or ok and "+" or "x"
end

--- Tells how one rung of an attempt went.
function M.tell_rung(tell, rung)
  local fields = {}
  for _, key in ipairs { "name", "ok", "code", "ms", "message", "skipped", "tries", "notes" } do
    fields[key] = rung[key]
  end
  if fields.ms then fields.ms = math.floor(fields.ms + 0.5) end
  tell("rung", fields, ("%s %-8s %6.1f ms  %s"):format(bar(rung.ok, rung.skipped), rung.name, rung.ms or 0,
    rung.skipped or rung.message or (rung.ok and "connected" or rung.code or "")))
end

--- Tells of a pipe; `why` is the sentence of a report.
function M.tell_pipe(tell, pipe, ms, why)
  tell("pipe", {
    strategy = pipe.strategy, ms = ms and math.floor(ms + 0.5), remote = pipe.remote, peer = pipe.peer, why = why,
  }, ("pipe by %s with %s%s"):format(pipe.strategy, pipe.remote, ms and (" in %.1f ms"):format(ms) or ""))
end

--- Node options from parsed arguments.
function M.node_options(values, tell, more)
  local options = {
    settings = values.settings, key = values.key, bind = values.bind,
    port = values.port,
    on_notice = function(text) tell("notice", { message = text }, "p2pd-lua: " .. text) end,
  }
  for key, value in pairs(more or {}) do options[key] = value end
  return options
end

--- The options of programs that let the user choose strategies.
M.strategies = { "--strategies", "A,B", "only these ways: names, or files of your own (direct,./mine.lua)" }
M.pipeline = { "--pipeline", "NAME", "a pipeline of your own: a Lua file that returns one, or a name" }
M.watch = { "--watch", nil, "use the pipeline anew whenever a file of yours that it is made of changes" }

--- What these options choose: a pipeline from a file or the default one, all of it or some of its strategies.
---@return p2pd.Strategy? pipeline, string? message, string? code
function M.choose(values)
  local pipelines = require "p2pd.pipeline"
  local pipeline, message, code = pipelines.load(values.pipeline or "default")
  if pipeline and values.strategies then
    local names = {}
    for name in values.strategies:gmatch "[^,]+" do names[#names + 1] = name end
    pipeline, message, code = pipelines.restrict(pipeline, names)
  end
  if pipeline and values.watch and #pipelines.origin(pipeline).files == 0 then
    return nil, "EINVAL: --watch is for files of yours, and neither --pipeline nor --strategies names one", "EINVAL"
  end
  return pipeline, message, code
end

--- Gives a node its pipeline anew whenever one of its files changes, and tells of it.
---@return boolean? ok, string? message, string? code
function M.watch_files(tell, node)
  return node:watch(function(news)
    tell("pipeline", {
      files = #news.files > 0 and news.files or nil, message = news.message, code = news.code,
      pipeline = news.pipeline and require("p2pd.strategy").outline(news.pipeline),
    }, "p2pd-lua: " .. news.text)
  end)
end

--- Ends a program that could not do its work.
function M.fail(tell, program, message, code, status)
  tell("failed", { message = message, code = code }, ("p2pd-lua %s: %s"):format(program, message))
  return status or M.FAILED
end

--- Joins a pipe to standard input and output until both directions have ended.
---@param pipe userdata
---@return integer status, string? message, string? code
function M.join(pipe)
  local tasks <close> = task.group()
  local peer_ended = false
  local sending = tasks:spawn(function()
    local sent, message, code = pipe:send_from(0)
    if not sent then return nil, message, code end
    local ok, why, what = pipe:shutdown()
    if ok or peer_ended then return true end -- a peer that has gone does not hear that we end too
    return nil, why, what
  end)
  local received, message, code = pipe:recv_to(1)
  if not received then
    if code == "EPIPE" then pipe:abort() end -- nobody is left to read what the peer goes on sending
    return M.BROKEN, message, code
  end
  peer_ended = true
  if luv.guess_handle(0) == "tty" then return M.OK end -- the person need not end the input by hand
  local ok, why, what = sending:wait()
  if not ok then return M.BROKEN, why, what end
  return M.OK
end

return M
