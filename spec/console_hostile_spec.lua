-- A console's two ends, when the other one is broken, hostile or dies: the real programs, and all that bytes can do.
local consoles = require "spec.support.console"
local frames = require "p2pd.repl.frames"
local luv = require "luv"
local program = require "spec.support.program"
local prompts = require "spec.support.prompt"
local streams = require "spec.support.console_streams"
local texts = require "spec.support.texts"

local CTRL_C, TAB, ENTER = "\3", "\t", "\r"
local encode, has = frames.encode, texts.has
local SANITIZED = os.getenv "P2PD_SANITIZED" ~= nil
local MOST_MEMORY = 60 -- MiB

-- Whoever connects to the program and says something. `answer` is what came back.
local function connect(path)
  local self = { answer = "" }
  assert(program.await(function() -- so few may wait for it that it is refused when they come faster
    local connected
    self.stream = luv.new_pipe(false)
    self.stream:connect(path, function(failure) connected = failure or true end)
    program.await(function() return connected end)
    if connected == true then return true end
    self.stream:close()
  end))
  return self
end

local function listen_to(self)
  self.stream:read_start(function(failure, bytes)
    self.answer, self.ended = self.answer .. (bytes or ""), self.ended or failure or not bytes
  end)
end

local function bounded(pid)
  if SANITIZED then return end -- whose memory is another
  local peak = consoles.peak(pid)
  assert(peak < MOST_MEMORY, ("%.0f MiB"):format(peak))
end

describe("who attaches", function()
  local hello = frames.greeting { width = 80, colours = 1 }

  it("may die at any byte, and say anything", function()
    local there <close> = consoles.listen():begin()
    local it <close> = consoles.start(there)
    local luck, good = streams.luck(20262), streams.of_client { "1 + 1", "print 'x'", "for i = 1, 2 do" }
    local heard, busy = 0, 0
    local function say(bytes)
      local one, written = connect(there.path), nil
      local waits = luck(4) > 1
      if waits then listen_to(one) end
      one.stream:write(bytes, function() written = true end)
      program.await(function() return written end)
      if waits then -- for all that it gets to hear; the others are gone before
        one.stream:shutdown()
        program.await(function() return one.ended end)
        busy = busy + (one.answer:find("EBUSY", 1, true) and 1 or 0)
        heard = heard + (one.answer:find("only a program sends that", 1, true) and 1 or 0)
      end
      one.stream:close()
      luv.run "nowait"
    end
    for at = 1, #good do say(good:sub(1, at)) end
    for _ = 1, 600 do say(streams.mutate(good, luck, luck(4))) end
    assert(heard > 5 and busy < 5, ("%d, %d"):format(heard, busy)) -- they came as far as that
    assert.are.equal("1", it:enter "1")
    assert.is_nil(there.child.status)
    assert.falsy(there.child.err:find("traceback", 1, true), there.child.err)
    bounded(there.child.pid)
  end)

  -- Writes the bytes again and again, without reading unless `reads`, until that goes on no more; and reads then.
  -- Returns the last that is said.
  local function pour(there, bytes, most, reads)
    local one = connect(there.path)
    if reads then listen_to(one) end
    one.stream:write(hello, function() end)
    local left, waiting, moved, failed = most, false, luv.hrtime(), false
    local function more()
      if left == 0 then return end
      left, waiting, moved = left - 1, true, luv.hrtime()
      one.stream:write(bytes, function(failure)
        waiting, failed = false, failure
        if not failure then more() end
      end)
    end
    more()
    assert(program.await(function() return failed or waiting and (luv.hrtime() - moved) / 1e9 > 0.5 end),
      "all of it was taken")
    if not reads then listen_to(one) end
    assert(program.await(function() return one.ended end), "not ended")
    one.stream:close()
    luv.run "nowait"
    return one.answer:sub(-200)
  end

  it("is refused when asking for more than is read", function()
    local there <close> = consoles.listen():begin()
    local it <close> = consoles.start(there)
    local ask = encode("C", (">I4s4s4"):pack(1, "string.", "")):rep(5000)
    has(pour(there, ask, 400), "EMSGSIZE: more was asked than is read")
    has(pour(there, encode("T", "p2pd.sleep("):rep(20000), 400), "EMSGSIZE: more was asked than is read")
    assert.are.equal("1", it:enter "1")
    bounded(there.child.pid)
  end)

  it("is refused when typing more than is read", function()
    local there <close> = consoles.listen():begin()
    local it <close> = consoles.start(there)
    local long = encode("L", "80\n-- " .. ("x"):rep(500 * 1024))
    local sleeping = encode("L", "80\np2pd.sleep(100)")
    has(pour(there, sleeping .. long:rep(8), 100, true), "EMSGSIZE: more was typed than is read")
    has(pour(there, encode("L", "80\n-- "):rep(5000), 400, true), "EMSGSIZE: more was typed than is read")
    -- slowly enough for each to be run: none is, while what the first one has printed waits to be read
    local much = connect(there.path)
    much.stream:write(hello .. encode("L", "80\nprint(('x'):rep(1 << 21))"), function() end)
    for _ = 1, 12 do
      local go_on
      much.stream:write(encode("L", "80\n-- "):rep(100), function() go_on = true end)
      assert(program.await(function() return go_on end))
      program.await(function() return false end, 0.05)
    end
    listen_to(much)
    assert(program.await(function() return much.ended end), "not ended")
    much.stream:close()
    luv.run "nowait"
    has(much.answer:sub(-200), "EMSGSIZE: more was typed than is read")
    assert.are.equal("1", it:enter "1")
    bounded(there.child.pid)
  end)

  it("keeps the program busy for no longer than a line of that length takes", function()
    local there <close> = consoles.listen():begin()
    local one = connect(there.path)
    listen_to(one)
    local parts = { hello }
    for _, text in ipairs {
      ("a"):rep(500000), "'" .. ("\\"):rep(500000) .. "x'", ("('"):rep(250000), ("a."):rep(250000),
    } do
      parts[#parts + 1] = encode("C", (">I4s4s4"):pack(1, text, "")) .. encode("T", text)
    end
    one.stream:write(table.concat(parts) .. encode("L", "80\n6 * 7"), function() end)
    local began = luv.hrtime()
    assert(program.await(function() return one.answer:find("42\27[0m\n", 1, true) end), one.answer)
    assert((luv.hrtime() - began) / 1e9 < (SANITIZED and 15 or 3))
    one.stream:close()
    luv.run "nowait"
  end)
end)

describe("a program with a console", function()
  -- In a shell of a terminal, attaches that often, each time to what `next_words` gives; and after each the terminal is
  -- as it was. Returns all that was shown.
  local function attach_often(count, next_words)
    local there <close> = consoles.fake(next_words, "leave")
    local it <close> = prompts.start {
      env = { NO_COLOR = false },
      command = { "/bin/sh", "-c", ([[
        stty -g > ~/before
        for i in $(seq %d); do
          %s attach %s < /dev/tty; echo "<status $?>"
          stty -g > ~/after; cmp ~/before ~/after || exit 1
        done; echo all]] .. " done"):format(count, program.path, there.path) },
    }
    assert(program.await(function() return it.child.status end, SANITIZED and 300 or 60), it.child.out:sub(-2000))
    local out = it.child.out
    has(out, "all done")
    local ends = select(2, out:gsub("<status [01]>", ""))
    assert.are.equal(count, ends, out:sub(-2000))
    assert.falsy(out:find("traceback", 1, true), out:sub(-2000))
    local _, marked = out:gsub("\27%[%?2004h", "")
    local _, unmarked = out:gsub("\27%[%?2004l", "")
    assert.are.equal(marked, unmarked)
    return out
  end

  it("may die at any byte: the terminal is given back, and shows nothing that the program says of itself", function()
    local mark = "\27]0;mark\7"
    local words, at = streams.of_program(mark), 0
    local out = attach_often(#words, function()
      at = at + 1
      return words:sub(1, at)
    end)
    has(out, "printed\r\n")
    has(out, "\\x1B]0;mark")
    assert.falsy(out:find("\27]0;mark", 1, true))
  end)

  it("may say anything", function()
    local luck = streams.luck(20263)
    attach_often(150, function() return streams.mutate(streams.of_program(), luck, luck(4)) end)
  end)

  local hello = frames.greeting { pid = 1, program = 0 }

  it("has no say in what is typed, by names or hints", function()
    local evil, backwards = "\27]0;mark\7", "\u{202e}txet"
    local there <close> = consoles.fake(hello .. encode("P", "p2pd> "), function(bytes)
      local number = bytes:match "^%z%z..C(....)"
      if number then return encode("C", number .. "abc" .. evil .. "\nother\nabc\rd\nabcd\n") end
      if bytes:match "^....T" then return encode("T", "1" .. backwards) .. encode("T", "1more") end
    end)
    local it <close> = prompts.start { command = { program.path, "attach", there.path }, env = { NO_COLOR = false } }
    it:prompt()
    it:type "ab"
    it:ends "p2pd> ab"
    program.await(function() return it.child.out:find(backwards, 1, true) end, 0.3)
    assert.falsy(it.child.out:find(backwards, 1, true))
    it:type(TAB)
    it:hints("p2pd> abcd", "")
    assert.falsy(it.child.out:find("\27]0;mark", 1, true))
  end)

  it("that floods is left by Ctrl-C, and costs bounded memory", function()
    local flood = encode("O", ("x"):rep(1000) .. "\n"):rep(64)
    local there <close> = consoles.fake(hello .. encode("P", "p2pd> "), function(bytes, stream)
      if not bytes:match "^....[LC]" then return nil end
      local function more()
        if not stream:is_closing() then stream:write(flood, function(failure) if not failure then more() end end) end
      end
      more()
    end)
    local it <close> = prompts.start { command = { program.path, "attach", there.path } }
    it:prompt()
    it:type("st" .. TAB) -- names that never come, with all the rest
    it:type(ENTER)
    it.child:expect "xxxx"
    for _ = 1, 20 do
      it:type(CTRL_C)
      if program.await(function() return it.child.status end, 0.3) then break end
      bounded(it.child.pid)
      it.child.out = it.child.out:sub(-10000)
    end
    assert.are.equal(1, it.child:wait())
    has(it.child.out, "the program does not answer: detached from it")
  end)
end)
