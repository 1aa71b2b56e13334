-- console_streams: what the two ends of a console say, and what may become of that on a bad way: the same for the same
-- seed.
local frames = require "p2pd.repl.frames"

local M = {}

local encode = frames.encode

--- A function that gives integers from 1 to n.
---@param seed integer
function M.luck(seed)
  local state = seed
  return function(n)
    state = (state * 6364136223846793005 + 1442695040888963407)
    return (state >> 33) % n + 1
  end
end

--- What somebody says who attaches: all kinds of frames.
---@param lines? string[]
function M.of_client(lines)
  local parts = { frames.greeting { width = 80, colours = 1 } }
  for _, line in ipairs(lines or { "1 + 1", "x = {" }) do parts[#parts + 1] = encode("L", "80\n" .. line) end
  return table.concat(parts) .. encode "Z" .. encode("C", (">I4s4s4"):pack(1, "p2pd.sl", "sl"))
    .. encode("T", "p2pd.sleep(") .. encode("I", "3") .. encode "K"
end

--- What a program says. `mark` is in all that it says of itself, and in nothing that lines have printed.
---@param mark? string
function M.of_program(mark)
  mark = mark or ""
  return frames.greeting { pid = "1" .. mark, program = "0" .. mark } .. encode("P", mark .. "p2pd> ")
    .. encode("O", "printed\n") .. encode("E", "failed\n") .. encode "F"
    .. encode("C", (">I4"):pack(1) .. mark .. "\nname\n") .. encode("T", "1" .. mark) .. encode "K" .. encode "k"
    .. encode("p", mark .. ".. ") .. encode("X", mark .. "it ends")
end

-- Where the frames of an unharmed stream begin, and its end.
local function borders(bytes)
  local places, place = {}, 1
  while place + 4 <= #bytes do
    places[#places + 1] = place
    place = place + 5 + (">I4"):unpack(bytes, place)
  end
  places[#places + 1] = #bytes + 1
  return places
end

local kinds = "HLZIKCTPpOEFkXA\0"
local lengths = {
  0, 1, 4, 5, 1023, 1024, 1025, 65536, frames.LARGEST, frames.LARGEST + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
}

local function splice(bytes, from, to, new)
  return bytes:sub(1, from - 1) .. new .. bytes:sub(to)
end

local OF_BYTES = 4 -- the first ones of these, which need not know where frames are
local ways = {
  function(bytes, luck) -- a byte
    local at = luck(#bytes)
    return splice(bytes, at, at + 1, string.char(luck(256) - 1))
  end,
  function(bytes, luck) -- the end is lost
    return bytes:sub(1, luck(#bytes))
  end,
  function(bytes, luck) -- a part is lost
    local at = luck(#bytes)
    return splice(bytes, at, at + luck(12), "")
  end,
  function(bytes, luck) -- something comes in between
    local at = luck(#bytes)
    local new = {}
    for i = 1, luck(12) do new[i] = string.char(luck(256) - 1) end
    return splice(bytes, at, at, table.concat(new))
  end,
  function(bytes, luck, places) -- a frame twice
    local i = luck(#places - 1)
    return splice(bytes, places[i], places[i], bytes:sub(places[i], places[i + 1] - 1))
  end,
  function(bytes, luck, places) -- a frame at another place
    local i, j = luck(#places - 1), luck(#places - 1)
    local frame = bytes:sub(places[i], places[i + 1] - 1)
    return i < j and splice(splice(bytes, places[j], places[j], frame), places[i], places[i + 1], "")
      or splice(splice(bytes, places[i], places[i + 1], ""), places[j], places[j], frame)
  end,
  function(bytes, luck, places) -- another kind
    local at, kind = places[luck(#places - 1)] + 4, luck(#kinds)
    return splice(bytes, at, at + 1, kinds:sub(kind, kind))
  end,
  function(bytes, luck, places) -- another length
    local at = places[luck(#places - 1)]
    return splice(bytes, at, at + 4, (">I4"):pack(lengths[luck(#lengths)]))
  end,
  function(bytes, luck, places) -- another payload, in order
    local i = luck(#places - 1)
    local new = {}
    for j = 1, luck(40) do new[j] = string.char(luck(256) - 1) end
    return splice(bytes, places[i], places[i + 1], encode(bytes:sub(places[i] + 4, places[i] + 4), table.concat(new)))
  end,
}

--- Does that many things to the bytes.
---@param bytes string
---@param luck fun(n: integer): integer
---@param times integer
function M.mutate(bytes, luck, times)
  local places = borders(bytes)
  for i = 1, times do
    if bytes == "" then break end
    bytes = ways[i == 1 and luck(#ways) or luck(OF_BYTES)](bytes, luck, places) -- where frames begin is known once
  end
  return bytes
end

return M
