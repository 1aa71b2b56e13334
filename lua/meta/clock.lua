---@meta p2pd.clock

--- What time it is, by servers on the network (NTP, RFC 5905). The machine's clock is never set: what is known is how
--- far it is off. One time serves the whole program.
---@class p2pd.clock
local clock = {}

---@class p2pd.ClockOptions
---@field servers? p2pd.Server[] those of the settings unless given; five are asked at once, more as these fail or stall
---@field timeout? number seconds for all of it; 2 unless given
---@field clock_error? number seconds by which this program sees a wrong time, as in the settings
---@field max_age? number seconds: what was measured within them is returned at once, whichever servers it came from
---@field on_server? fun(server: p2pd.ClockServer) called as each one answers or fails

---@class p2pd.ClockReading
---@field offset number seconds by which this clock, its `clock_error` included, is ahead of the true time
---@field error number seconds by which that may be wrong, as long as most of those that agree are right
---@field agreeing integer how many servers agree: from three on, one that lies cannot have its way
---@field servers p2pd.ClockServer[] those that were asked, in the order of the list

---@class p2pd.ClockServer
---@field host string
---@field port integer
---@field ok boolean whether it told the time
---@field ip? string which of its addresses did
---@field offset? number seconds by which this clock is ahead of its
---@field error? number seconds by which that may be wrong: half of the round trip, and what it says of itself
---@field rtt? number seconds there and back: the least of `samples`
---@field samples? integer how often it answered
---@field stratum? integer how many servers it is from a clock that needs none
---@field agrees? boolean whether it is one of the majority
---@field message? string why it did not
---@field code? p2pd.Code EPROTO: it refuses, or has no time; ESKIPPED: another name has its address; ECANCELED:
---  the others agreed sooner

--- Asks several servers for the time, and goes by it from then on: by what most of them agree on, so that those that
--- lie or are wrong do not count. Ends when four have answered and three agree, 0.1 s after three agree, or when there
--- is nobody left to ask. Fails with EPROTO (they contradict each other, or have no time), ETIMEDOUT, ECONNREFUSED,
--- EAI_NONAME and their like when nobody answers, ENOENT (there are no servers).
---@param options? p2pd.ClockOptions
---@return p2pd.ClockReading? reading
---@return string? message
---@return p2pd.Code? code
function clock.measure(options) end

--- The time now: seconds since 1970, corrected by what was measured last, or the machine's before that. It does not
--- run backward, and nobody who sets the machine's clock moves it. The error grows with time, by 15 millionths.
---@return number seconds
---@return number? error nil when nothing was measured
function clock.now() end

--- How far this machine's clock is ahead of the true time now, also when somebody has set it meanwhile. Fails with
--- ENOENT when nothing was measured.
---@param clock_error? number seconds to add to what the machine says
---@return number? offset seconds
---@return number|string error_or_message seconds by which that may be wrong
---@return p2pd.Code? code
function clock.offset(clock_error) end

return clock
