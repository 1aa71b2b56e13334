-- The frames of a console: whatever bytes come, in whatever pieces, the same frames come out of them, and no more is
-- kept than a frame may have.
local frames = require "p2pd.repl.frames"
local luv = require "luv"
local streams = require "spec.support.console_streams"

-- What the bytes are, by the format alone: the frames, and the code of what is wrong with them.
local function read_whole(bytes)
  local found, place, limit = {}, 1, frames.FIRST
  while #bytes - place + 1 >= 5 do
    local length, kind = (">I4"):unpack(bytes, place), bytes:sub(place + 4, place + 4)
    if not ("HLZIKCTPpOEFkX"):find(kind, 1, true) or #found == 0 and kind ~= "H" and kind ~= "X" then
      return found, "EFORMAT"
    end
    if length > limit then return found, "EMSGSIZE" end
    if #bytes - place + 1 < 5 + length then break end
    found[#found + 1] = kind .. bytes:sub(place + 5, place + 4 + length)
    place, limit = place + 5 + length, frames.LARGEST
  end
  return found, nil
end

-- The same by a reader that gets pieces, of sizes that `size` gives.
local function read_pieces(bytes, size)
  local reader, found, place = frames.reader(), {}, 1
  while place <= #bytes do
    local length = size()
    reader:feed(bytes:sub(place, place + length - 1))
    place = place + length
    for kind, payload in reader.pop, reader do found[#found + 1] = kind .. payload end
    local kept = 0
    for i, part in ipairs(reader.parts) do kept = kept + #part - (i == 1 and reader.place or 0) end
    assert.are.equal(reader.size, kept)
    assert(kept <= 4 + frames.LARGEST, "it keeps " .. kept)
    if reader.wrong then assert.are.equal(0, kept) end
  end
  assert.is_nil(reader:pop())
  return found, reader.wrong and reader.wrong:match "^E%u+"
end

local function always(n) return function() return n end end

local function same(bytes, size, what)
  local wanted, wrong = read_whole(bytes)
  local found, problem = read_pieces(bytes, size)
  if table.concat(wanted, "\0") ~= table.concat(found, "\0") or #wanted ~= #found or wrong ~= problem then
    error(("%s: %q is %d frames and %s, but was read as %d and %s"):format(what, bytes:sub(1, 2000), #wanted, wrong,
      #found, problem))
  end
end

describe("frames", function()
  it("come out of any pieces", function()
    for _, bytes in ipairs { streams.of_client(), streams.of_program() } do
      local _, wrong = read_whole(bytes)
      assert.is_nil(wrong)
      for at = 1, #bytes do
        local first = true
        same(bytes, function()
          local size = first and at or #bytes
          first = false
          return size
        end, "split at " .. at)
      end
      for size = 1, 12 do same(bytes, always(size), "pieces of " .. size) end
    end
  end)

  it("are read alike when anything has happened to them", function()
    local luck = streams.luck(20261)
    for round = 1, 20000 do
      local bytes = luck(2) == 1 and streams.of_client() or streams.of_program()
      bytes = streams.mutate(bytes, luck, luck(4))
      same(bytes, luck(3) == 1 and always(#bytes + 1) or function() return luck(40) end, "round " .. round)
    end
    for round = 1, 5000 do -- no format at all
      local bytes = {}
      for i = 1, luck(60) do bytes[i] = string.char(luck(8) == 1 and luck(256) - 1 or (luck(3) == 1 and 72 or 0)) end
      same(table.concat(bytes), always(luck(7)), "junk " .. round)
    end
  end)

  it("may be as long as they may be, and not a byte longer", function()
    local hello = frames.greeting {}
    for more, wrong in pairs { [0] = false, [1] = "EMSGSIZE" } do
      local bytes = hello .. frames.encode("O", ("x"):rep(frames.LARGEST + more)) .. frames.encode "F"
      for _, size in ipairs { 1000, 65536, #bytes } do
        local found, problem = read_pieces(bytes, always(size))
        assert.are.same({ wrong and 1 or 3, wrong }, { #found, problem or false })
      end
      local first = frames.encode("H", ("x"):rep(frames.FIRST + more))
      assert.are.equal(wrong, select(2, read_pieces(first, always(#first))) or false)
    end
  end)

  it("cost as much as they are long", function()
    local function seconds(count)
      local reader, pieces = frames.reader(), frames.encode("F"):rep(count)
      reader:feed(frames.greeting {} .. pieces)
      local began, popped = luv.hrtime(), 0
      for _ in reader.pop, reader do popped = popped + 1 end
      assert.are.equal(count + 1, popped)
      return (luv.hrtime() - began) / 1e9
    end
    seconds(1000)
    assert(seconds(200000) < 2) -- 1 MB; that each takes a copy of the rest would be 100 GB
  end)
end)
