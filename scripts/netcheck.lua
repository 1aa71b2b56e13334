-- What stands between this machine and the world, and what would help.
local cli = require "p2pd.cli"
local core = require "p2pd.core"
local luv = require "luv"
local netcheck = require "p2pd.netcheck"
local words = require "p2pd.netcheck_words"

local function is_ip(text)
  if core.address.ip(text) then return text end
  return nil, ("--bind is an IP address, not '%s'"):format(text)
end

local program = {
  name = "netcheck",
  usage = "netcheck [option...]",
  about = "Looks at the network: what each interface is behind, which servers answer and how fast, port mapping,\n"
    .. "IPv6 and the clock; who can be met from here and how; and what would help.",
  bare = true,
  options = {
    { "--watch", nil, "look again whenever the network changes, until Ctrl-C, and tell what is other" },
    { "--timeout", "SECONDS", "seconds that a server gets to answer; 2 unless given", range = { 0.1, 60 } },
    { "--settings", "FILE", "read the servers from FILE instead of ~/.config/p2pd-lua/settings.lua" },
    { "--key", "FILE", "the node's key (made at first use) instead of the user's own" },
    { "--bind", "IP", "look at this address alone", check = is_ip },
    { "--json", nil, "print one JSON object, in one line; with --watch one for each look" },
  },
  epilogue = "Exit status: 0 checked, 1 there is no network (or the check could not be made), 2 usage.",
}

-- A line on the terminal that is written over and over, and is gone at the end; nothing elsewhere.
local function progress_line()
  if luv.guess_handle(2) ~= "tty" then return nil end
  local terminal = luv.new_tty(2, false)
  local width = terminal and terminal:get_winsize() or 80
  if terminal then terminal:close() end
  local function show(text)
    io.stderr:write("\r\27[K", text)
    io.stderr:flush()
  end
  return setmetatable({}, {
    __call = function(_, state) show(words.progress(state, width - 1)) end,
    __close = function() show "" end,
  })
end

local function check_options(values, line)
  return {
    settings = values.settings, key = values.key, bind = values.bind, timeout = values.timeout,
    on_progress = line and function(state) line(state) end,
  }
end

local function failed(message)
  io.stderr:write(("p2pd-lua netcheck: %s\n"):format(message))
  return cli.FAILED
end

local function show(values, result, before)
  if values.json then
    print(netcheck.json(result))
  elseif not before then
    print(words.report(result))
  else
    for _, change in ipairs(words.changes(before, result)) do print(os.date "%H:%M:%S  " .. change) end
  end
  io.stdout:flush()
end

local function main(arguments)
  local values, status = cli.parse(program, arguments)
  if not values then return status end
  local line <close> = progress_line()
  local options = check_options(values, line)
  if values.watch then
    local _, message = netcheck.watch(options, function(result, before)
      if line then io.stderr:write "\r\27[K" end
      show(values, result, before)
    end)
    return failed(message)
  end
  local result, message = netcheck.run(options)
  if line then getmetatable(line).__close() end
  if not result then return failed(message) end
  show(values, result)
  return result.ok and cli.OK or cli.FAILED
end

return main { ... }
