-- matrix_asked: what is asked of a matrix, as options of commands: which pairs, how often, in what networks.
local luv = require "luv"
local cli = require "p2pd.cli"
local ends = require "p2pd.lab.matrix_end"
local matrix_pairs = require "p2pd.lab.matrix_pairs"

local M = {}

local MOST_JOBS = 32
local DELAY_MS = 10   -- of each host's link, one way: hosts are 40 ms apart there and back, servers 20 ms
local TIMEOUT = 20    -- seconds of an attempt, as of node:connect

-- A message without its code.
local function plain(text)
  return (text:gsub("^%u+: ", ""))
end

-- Checks of options' values, each with a sentence for what is wrong.
local function parsed_by(parse)
  return function(text)
    local list, message = parse(text)
    if list then return list end
    return nil, plain(message)
  end
end

local function one_of(name, list)
  return function(text)
    for _, word in ipairs(list) do
      if word == text then return text end
    end
    return nil, ("%s is one of %s, not '%s'"):format(name, table.concat(list, ", "), text)
  end
end

local function names(text)
  local list = {}
  for name in text:gmatch "[^,]+" do list[#list + 1] = name end
  return list
end

local pairs_options = {
  { "--kinds", "LIST", "these NATs with each other, as open,symmetric/random (all of 27 kinds)",
    check = parsed_by(matrix_pairs.kinds) },
  { "--pairs", "LIST", "these pairs, as symmetric/random:open,… (who connects first)",
    check = parsed_by(matrix_pairs.pairs) },
  { "--repeat", "N", "try each pair so often (1)", range = { 1, 10000, whole = true } },
}

-- In what networks, and with how many labs.
local conditions_options = {
  { "--uninvited", "WORD", "what a SYN that nobody asked for gets: drop, reset, unreachable (drop)",
    check = one_of("--uninvited", { "drop", "reset", "unreachable" }) },
  { "--loss", "SHARE", "of the packets on each host's link, each way, as 0.02 (0)", range = { 0, 1 } },
  { "--noise", "N", "connections of other people a second, at each router (0)", range = { 0, 100000 } },
  { "--delay", "MS", "of each host's link, one way: the servers are 2 × and the hosts 4 × that away (10)",
    range = { 0, 60000 } },
  { "--turn", nil, "the hosts' settings name the lab's TURN server (that is so unless told otherwise)" },
  { "--no-turn", nil, "they name none" },
  { "--timeout", "SECONDS", "an attempt takes at most so long (20)", range = { 0.001, 86400 } },
  { "--jobs", "N", "labs at one time (one for each processor); 1 to measure times",
    range = { 1, MOST_JOBS, whole = true } },
}

--- A command's options: the pairs before its own, the networks after them.
---@param own table[]
---@return table[]
function M.options(own)
  local list = table.move(pairs_options, 1, #pairs_options, 1, {})
  table.move(own, 1, #own, #list + 1, list)
  return table.move(conditions_options, 1, #conditions_options, #list + 1, list)
end

-- What is wrong with these options together, as a sentence.
local function contradiction(values)
  if values.resume and not values.json then return "--resume goes on with a file that --json names" end
  if values.json and values.json == values.html then return "--json and --html are one file" end
  if values.kinds and values.pairs then return "--kinds and --pairs say both which pairs there are" end
  if values.turn and values["no-turn"] then return "--turn and --no-turn at once" end
end

--- Says what is wrong with the options together, if anything is.
---@param program { name: string, usage: string }
---@return integer? status
function M.objection(program, values)
  local wrong = contradiction(values)
  return wrong and cli.usage(program, wrong) or nil
end

--- Says why a command could not do its work.
---@param name string as of "lab matrix"
---@return integer status
function M.fail(name, message, code)
  io.stderr:write(("p2pd-lua %s: %s\n"):format(name, message))
  return code == "EINVAL" and cli.USAGE or cli.FAILED
end

--- The conditions, with a pipeline that can be used.
---@return p2pd.lab.MatrixConditions? conditions, string? message, string? code
function M.conditions(values)
  local conditions = {
    uninvited = values.uninvited or "drop", loss = values.loss or 0, noise = values.noise or 0,
    delay_ms = values.delay or DELAY_MS, turn = not values["no-turn"], timeout = values.timeout or TIMEOUT,
    pipeline = values.pipeline and (luv.fs_realpath(values.pipeline) or values.pipeline),
    strategies = values.strategies and names(values.strategies),
  }
  local pipeline, message, code = ends.pipeline(conditions)
  if pipeline then return conditions end
  return nil, message, code == "ENOENT" and "EINVAL" or code
end

--- Each pair once, then each once more.
---@return {from: string, to: string, round: integer}[]
function M.runs(pairs_asked, rounds)
  local runs = {}
  for round = 1, rounds do
    for _, pair in ipairs(pairs_asked) do
      runs[#runs + 1] = { from = pair.from, to = pair.to, round = round }
    end
  end
  return runs
end

--- The pairs that are asked for: all unless told otherwise.
---@return {from: string, to: string}[]
function M.pairs(values)
  return values.pairs or matrix_pairs.all(values.kinds or matrix_pairs.KINDS)
end

return M
