-- pour: what goes between pipes and file descriptors without a script in between, and strings that do not mix.
local ends = require "spec.support.ends"
local luv = require "luv"
local processes = require "spec.support.processes"
local run = require "spec.support.run"
local task = require "p2pd.task"
require "p2pd.pipe"

local MIB = 1024 * 1024

describe("pour", function()
  local both, folder

  setup(function()
    both = ends.new()
    folder = both.folder
  end)
  teardown(function() both:close() end)

  local function open() return both:open() end

  -- A descriptor that is closed with its scope.
  local function scoped(fd)
    return setmetatable({ fd = fd }, { __close = function() luv.fs_close(fd) end })
  end

  local function file(name, flags, content)
    if content then processes.write(folder .. "/" .. name, content) end
    return scoped(assert(luv.fs_open(folder .. "/" .. name, flags, 384)))
  end

  local function numbers(count)
    local parts = {}
    for i = 1, count do parts[i] = string.pack(">I4", i * 2654435761 & 0xffffffff) end
    return table.concat(parts)
  end

  it("carries a file into a file", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local bytes = numbers(MIB) -- 4 MiB
    local source <close> = file("source", "r", bytes)
    local target <close> = file("target", "w")
    local receiving = task.spawn(function() return assert(far:recv_to(target.fd)) end)
    assert.equal(#bytes, near:send_from(source.fd))
    assert(near:shutdown())
    assert.equal(#bytes, receiving:wait())
    assert.is_true(processes.read(folder .. "/target") == bytes)
  end))

  it("waits for descriptors that are not ready, and leaves them blocking as they were", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local from, to = assert(luv.pipe({}, {})), assert(luv.pipe({}, {}))
    local from_read <close> = scoped(from.read)
    local to_read <close> = scoped(to.read)
    local to_write <close> = scoped(to.write)
    local sending = task.spawn(function()
      local sent = assert(near:send_from(from_read.fd))
      assert(near:shutdown())
      return sent
    end)
    local receiving = task.spawn(function() return assert(far:recv_to(to_write.fd)) end)
    task.sleep(0.05)
    luv.fs_write(from.write, "first ", -1)
    task.sleep(0.05)
    luv.fs_write(from.write, "second", -1)
    luv.fs_close(from.write)
    assert.equal(12, sending:wait())
    assert.equal(12, receiving:wait())
    assert.equal("first second", luv.fs_read(to_read.fd, 100, -1))
    local flags = processes.read("/proc/self/fdinfo/" .. to_write.fd):match "flags:%s*(%d+)"
    assert.equal(0, tonumber(flags, 8) & 2048) -- O_NONBLOCK is 04000
  end))

  it("gives what lines() has taken to whoever receives next", run(function()
    local near <close>, far = open()
    local _ <close> = far
    assert(near:send "one\ntwo\nrest")
    assert.equal("one", far:lines()())
    assert.equal("two", far:lines()())
    assert(near:send " and more")
    assert(near:shutdown())
    local target <close> = file("held", "w")
    assert.equal(#"rest and more", far:recv_to(target.fd))
    assert.equal("rest and more", processes.read(folder .. "/held"))
  end))

  it("says EPIPE when nobody reads any more", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local to = assert(luv.pipe({}, {}))
    luv.fs_close(to.read)
    local write <close> = scoped(to.write)
    assert(near:send "for nobody")
    local moved, message, code = far:recv_to(write.fd)
    assert.is_nil(moved)
    assert.equal("EPIPE", code)
    assert.truthy(message:find("descriptor " .. write.fd, 1, true))
  end))

  it("can be cancelled, and says when the pipe is closed meanwhile", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local from = assert(luv.pipe({}, {}))
    local read <close> = scoped(from.read)
    local write <close> = scoped(from.write)
    local sending = task.spawn(function() return near:send_from(read.fd) end)
    task.sleep(0.02)
    sending:cancel()
    assert.equal("ECANCELED", select(3, sending:wait()))
    local receiving = task.spawn(function() return far:recv_to(write.fd) end)
    task.sleep(0.02)
    far:close()
    assert.equal("ECLOSED", select(3, receiving:wait()))
    assert.equal("ECLOSED", select(3, far:recv_to(write.fd)))
  end))

  it("has the receiving side to itself, also while it waits for its descriptor", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local to = assert(luv.pipe({ nonblock = true }, {}))
    local read <close> = scoped(to.read)
    local write <close> = scoped(to.write)
    local sending = task.spawn(function()
      assert(near:send(("x"):rep(8 * MIB)))
      return assert(near:shutdown())
    end)
    local receiving = task.spawn(function() return far:recv_to(write.fd) end)
    task.sleep(0.1) -- by then the pipe that nobody reads is full
    assert.equal("EBUSY", select(3, far:recv(1)))
    assert.equal("EBUSY", select(3, far:recv_to(write.fd)))
    local total = 0
    while total < 8 * MIB do
      task.sleep(0)
      total = total + #(luv.fs_read(read.fd, MIB, -1) or "")
    end
    assert.is_true(sending:wait())
    assert.equal(8 * MIB, receiving:wait())
    assert.equal("EOF", select(3, far:recv(1)))
  end))

  it("leaves a socket as it was", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local pair = assert(luv.socketpair("stream", nil, {}, {}))
    local ours <close> = scoped(pair[1])
    local theirs = pair[2]
    local function flags()
      return tonumber(processes.read("/proc/self/fdinfo/" .. ours.fd):match "flags:%s*(%d+)", 8)
    end
    local before = flags()
    assert.equal(0, before & 2048)
    luv.fs_write(theirs, "through a socket", -1)
    luv.fs_close(theirs)
    assert.equal(16, near:send_from(ours.fd))
    assert.equal(before, flags())
    assert.equal("through a socket", far:recv(5))
  end))

  it("refuses what is no descriptor", run(function()
    local near <close>, far = open()
    local _ <close> = far
    assert.equal("EBADF", select(3, near:send_from(9999)))
    assert.has_error(function() near:recv_to "file" end)
  end))

  it("does not mix the strings of two tasks, however long they are", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local senders <close> = task.group()
    for _, letter in ipairs { "a", "b", "c" } do
      senders:spawn(function()
        for _ = 1, 3 do assert(near:send(letter:rep(MIB))) end
      end)
    end
    local text = {}
    for _ = 1, 9 * MIB // 65536 do
      local piece = ""
      while #piece < 65536 do piece = piece .. assert(far:recv(5, 65536 - #piece)) end
      text[#text + 1] = piece
    end
    text = table.concat(text)
    for place = 1, 9 * MIB, MIB do
      local letter = text:sub(place, place)
      assert.is_true(text:sub(place, place + MIB - 1) == letter:rep(MIB))
    end
  end))

  it("goes on with the next string when the one under way is cancelled", run(function()
    local near <close>, far = open()
    local _ <close> = far
    local first = task.spawn(function() return near:send(("a"):rep(64 * MIB)) end)
    local second = task.spawn(function() return near:send "z" end)
    task.sleep(0.05)
    first:cancel()
    first:wait()
    local last, data
    repeat
      last, data = data, far:recv(1)
    until not data or data:sub(-1) == "z"
    assert.equal("z", (data or last):sub(-1))
    assert.is_true(second:wait())
  end))

  it("aborts at once, though the peer goes on sending", run(function()
    local near, far = open()
    local _ <close> = far
    local sending = task.spawn(function()
      while far:send(("x"):rep(65536)) do end
      return true
    end)
    assert(near:recv(5))
    local began = task.now()
    near:abort()
    near:abort()
    assert.is_true(sending:wait())
    assert.is_true(task.now() - began < 2)
    assert.equal("ECLOSED", select(3, near:recv()))
  end))
end)
