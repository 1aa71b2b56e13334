-- An NTP server whose clock is wrong, as a process of its own: lua5.4 lying_ntp.lua ADDRESS PORT OFFSET
-- OFFSET is what it adds to the true time, in seconds. Prints its port (PORT may be 0), ends with its standard input.
local luv = require "luv"

local ADDRESS, PORT, OFFSET = arg[1], tonumber(arg[2]), tonumber(arg[3])
local SINCE_1900 = 2208988800 -- seconds until 1970 (RFC 5905, section 6)

-- RFC 5905, section 7.3:
--
--    0                   1                   2                   3
--   +---+-----+-----+---------------+---------------+---------------+
--   |LI | VN  |Mode |    Stratum    |     Poll      |   Precision   |
--   +---+-----+-----+---------------+---------------+---------------+
--   |          Root Delay, Root Dispersion, Reference ID            |
--   |  Reference, Origin, Receive, Transmit Timestamp (8 bytes each) |
--   +---------------------------------------------------------------+
local LAYOUT = ">B B B b I4 I4 c4 I8 c8 I8 I8"
local CLIENT, SERVER = 3, 4
local STRATUM, PRECISION = 2, -20

local function timestamp()
  local seconds, microseconds = luv.gettimeofday()
  local now = seconds + SINCE_1900 + microseconds / 1e6 + OFFSET
  return (now // 1 | 0) << 32 | ((now % 1) * 4294967296 // 1 | 0)
end

local function answer(request)
  local now, version, poll = timestamp(), request:byte() & 0x38, request:byte(3)
  local origin = request:sub(41, 48) -- what it sent as its transmit timestamp
  return LAYOUT:pack(version | SERVER, STRATUM, poll, PRECISION, 0, 0, "LIAR", now, origin, now, now)
end

local socket = luv.new_udp()
assert(socket:bind(ADDRESS, PORT))
socket:recv_start(function(_, request, from)
  if request and #request >= 48 and request:byte() & 7 == CLIENT then
    socket:try_send(answer(request), from.ip, from.port)
  end
end)
print(socket:getsockname().port)
io.stdout:flush()

local input = luv.new_pipe()
input:open(0)
input:read_start(function(_, data)
  if not data then os.exit(0) end
end)
luv.run()
