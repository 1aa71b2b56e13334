-- node: the ends that `make bench` measures, written with the public API alone, as anybody would write them.
--
--   p2pd-lua spec/bench/node.lua MODE FOLDER [ARG...]
--
-- FOLDER holds settings.lua, and the keys that are made. What serves prints "address ADDRESS" first.
local luv = require "luv"
local p2pd = require "p2pd"

local WRITE = 64 * 1024
local MESSAGE = ("m"):rep(64)

local mode, folder = ...
local bind = os.getenv "BENCH_BIND"

local function node(key, more)
  local options = { settings = folder .. "/settings.lua", key = ("%s/%s.pem"):format(folder, key), bind = bind }
  for name, value in pairs(more or {}) do options[name] = value end
  return assert(p2pd.node(options))
end

local function say(...)
  print(...)
  io.stdout:flush()
end

-- Serves each pipe in a task of its own.
local function serve(key, each)
  local own <close> = node(key)
  say("address", own:address())
  for pipe in own:accept() do
    p2pd.spawn(function()
      local _ <close> = pipe
      each(pipe)
    end)
  end
end

local function connect(own, address, strategy)
  return assert(own:connect(address, { strategies = { strategy or "direct" } }))
end

local function elapsed_ms(began)
  return (luv.hrtime() - began) / 1e6
end

local modes = {}

-- Swallows what comes, and says when that was all.
function modes.sink()
  serve("sink", function(pipe)
    local bytes, data = 0, pipe:recv()
    while data do
      bytes = bytes + #data
      data = pipe:recv()
    end
    pipe:send("x" .. bytes)
    pipe:shutdown()
  end)
end

-- Prints MiB/s until the sink has all of it.
function modes.send(address, bytes)
  local own <close> = node("send", { listen = false })
  local pipe <close> = connect(own, address)
  local block = ("b"):rep(WRITE)
  bytes = tonumber(bytes)
  local began = luv.hrtime()
  for _ = 1, bytes // WRITE do assert(pipe:send(block)) end
  pipe:shutdown()
  local answer = assert(pipe:recv())
  local ms = elapsed_ms(began)
  assert(answer == ("x%d"):format(bytes // WRITE * WRITE), "the sink got " .. answer)
  say(("%.1f"):format(bytes / 1048576 / (ms / 1000)))
end

function modes.echoes()
  serve("echoes", function(pipe)
    local data = pipe:recv()
    while data and pipe:send(data) do data = pipe:recv() end
  end)
end

-- Prints round trips of 64 bytes per second.
function modes.echo(address, count)
  local own <close> = node("echo", { listen = false })
  local pipe <close> = connect(own, address)
  count = tonumber(count)
  local began = luv.hrtime()
  for _ = 1, count do
    assert(pipe:send(MESSAGE))
    local got = 0
    while got < #MESSAGE do got = got + #assert(pipe:recv()) end
  end
  say(("%.0f"):format(count / (elapsed_ms(began) / 1000)))
end

-- Keeps pipes; prints when so many are there.
function modes.keep(count)
  local own <close> = node("keep")
  local kept = {}
  say("address", own:address())
  for pipe in own:accept() do
    kept[#kept + 1] = pipe
    if #kept == tonumber(count) then say("kept", #kept) end
  end
end

-- Opens so many pipes, a few at a time, and keeps them until its input ends.
function modes.hold(address, count, width)
  local own <close> = node("hold", { listen = false })
  local held, left = {}, tonumber(count)
  local openers <close> = p2pd.group()
  local began = luv.hrtime()
  for _ = 1, tonumber(width) do
    openers:spawn(function()
      while left > 0 do
        left = left - 1
        local pipe = connect(own, address)
        held[#held + 1] = pipe
      end
    end)
  end
  for _, opener in ipairs(openers) do opener:wait() end
  assert(#held == tonumber(count))
  say("held", #held, ("%.1f"):format(elapsed_ms(began)))
  p2pd.sleep(600)
end

-- Prints in how many milliseconds a node is ready.
function modes.ready()
  local began = luv.hrtime()
  local own <close> = node "ready" -- luacheck: ignore
  say(("%.2f"):format(elapsed_ms(began)))
end

-- Waits to be met, by direct or reverse.
function modes.wait()
  serve("wait", function(pipe) pipe:recv() end)
end

-- Meets the other node so many times, each time as somebody new, and prints the milliseconds until it may send.
function modes.meet(address, strategy, count)
  for i = 1, tonumber(count) do
    local own <close> = node(strategy .. i)
    local began = luv.hrtime()
    local pipe <close> = connect(own, address, strategy)
    say(("%.2f"):format(elapsed_ms(began)))
    assert(pipe.strategy == strategy)
  end
end

assert(modes[mode], "which mode?")(select(3, ...))
