-- frames: what the two ends of a console say to each other, over a stream of bytes. Nothing of it is run by its reader.
--
--     0          4      5
--     +----------+------+------------------------+
--     | length   | kind | payload, length bytes  |     length: big-endian, at most LARGEST
--     +----------+------+------------------------+
--
--   from the side that attaches                          from the program
--     H  greeting, width=N, colours=0|1                    H  greeting, pid=N, program=VERSION
--     L  columns of the terminal, "\n", a line             P  the prompt for a first line, p for one that goes on
--     Z  the input ends within a line that goes on         O  output, E the same of errors
--     I  Ctrl-C; with how many bytes it cleared            F  ends a line that was left open
--     K  a key was pressed                                 K  a key is wanted, k no longer
--     C  number, text, its last word                       C  number, names, each ended by "\n"
--     T  text that is typed                                T  "" if hints are off; or "1" if the line can take it,
--                                                             else "0", and the hint if there is one
--                                                          X  the end, with what there is to say of it
--
-- A greeting is GREETING, the version, and lines of key=value. It is each side's first frame, so what comes after it is
-- of a version that both know.
local M = {}

M.GREETING, M.VERSION = "p2pd-lua console ", 2
M.LARGEST = 512 * 1024 -- bytes; a typed line has at most half of that
M.FIRST = 1024         -- bytes of a greeting

local HEAD = 5
local KINDS = "^[HLZIKCTPpOEFkX]$"

---@param kind string
---@param payload? string
function M.encode(kind, payload)
  payload = payload or ""
  return (">I4"):pack(#payload) .. kind .. payload
end

function M.greeting(fields)
  local lines = { M.GREETING .. M.VERSION }
  for key, value in pairs(fields) do lines[#lines + 1] = ("%s=%s"):format(key, value) end
  return M.encode("H", table.concat(lines, "\n"))
end

--- The fields of a greeting.
---@param payload string
---@return table<string, string>? fields, string? message, string? code
function M.read_greeting(payload)
  local version = payload:sub(1, #M.GREETING) == M.GREETING and payload:match("^%d+", #M.GREETING + 1)
  if not version then return nil, "EFORMAT: the other side speaks another protocol", "EFORMAT" end
  if tonumber(version) ~= M.VERSION then
    return nil, ("EPROTO: the other side speaks version %s of the console's protocol, this program version %d")
      :format(version:sub(1, 9), M.VERSION), "EPROTO"
  end
  local fields = {}
  for key, value in payload:gmatch "\n(%w+)=([^\n]*)" do fields[key] = value end
  return fields
end

-- Reading -------------------------------------------------------------------------------------------------------------

local reader = {}
reader.__index = reader

function M.reader()
  return setmetatable({ parts = {}, place = 0, size = 0, wanted = HEAD, limit = M.FIRST }, reader)
end

function reader:feed(bytes)
  if self.wrong or bytes == "" then return end
  self.parts[#self.parts + 1] = bytes
  self.size = self.size + #bytes
end

-- All that has come, as one text; what is read of it are the bytes up to `place`.
local function joined(self)
  if #self.parts > 1 then
    self.parts[1] = self.parts[1]:sub(self.place + 1)
    self.parts, self.place = { table.concat(self.parts) }, 0
  end
  return self.parts[1]
end

--- The next frame, or nil when it has not come as a whole. After a frame that breaks the rules none comes, and `wrong`
--- says why.
---@return string? kind, string? payload
function reader:pop()
  if self.wrong or self.size < self.wanted then return nil end
  local text = joined(self)
  local body = self.place + HEAD
  local length, kind = (">I4"):unpack(text, self.place + 1), text:sub(body, body)
  if not kind:find(KINDS) or not self.greeted and kind ~= "H" and kind ~= "X" then
    self.wrong = "EFORMAT: the other side speaks another protocol"
  elseif length > self.limit then
    self.wrong = ("EMSGSIZE: a frame of %d bytes, more than %d"):format(length, self.limit)
  end
  if self.wrong then
    self.parts, self.size = {}, 0
    return nil
  end
  if self.size < HEAD + length then
    self.wanted = HEAD + length
    return nil
  end
  self.place, self.size, self.wanted = body + length, self.size - HEAD - length, HEAD
  if self.size == 0 then self.parts, self.place = {}, 0 end
  self.greeted, self.limit = true, M.LARGEST
  return kind, text:sub(body + 1, body + length)
end

return M
