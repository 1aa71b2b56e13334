---@meta p2pd.report

--- What one attempt did. Each rung (a strategy that is not made of others) is in it once, whether it succeeded,
--- failed, was cancelled, passed over, or never reached. Secrets are not in it.
---@class p2pd.Report
local report = {}

--- What became of one strategy of the attempt.
---@class p2pd.Rung
---@field name string
---@field position string its place in the pipeline: "1.2" is the second child of the whole
---@field ok boolean whether the attempt's pipe came from here
---@field started_ms? number milliseconds after the attempt's start; nil when it was passed over
---@field ms? number milliseconds that it took
---@field code? p2pd.Code why it failed
---@field message? string the same as a sentence, "ECODE: …"
---@field skipped? string why it was passed over
---@field tries? integer how often it was tried, when more than once
---@field earlier? p2pd.RungTry[] the tries before the last one
---@field notes? table<string, any> what the strategy left by `ctx:note`
---@field dials? p2pd.Dial[] each address that was dialed
---@field bursts? p2pd.Burst[] what each puncher sent, and what came back
---@field messages? { ms: number, what: p2pd.MessageWhat }[] what was said to the peer and heard of it; the first 64
---@field unlisted? integer earlier tries, bursts and messages that are not listed, for want of room
---@field traceback? string where it threw

---@class p2pd.Dial
---@field to string "192.0.2.7:4242"
---@field scope? string
---@field started_ms number milliseconds after the attempt's start
---@field ms? number
---@field ok boolean
---@field code? p2pd.Code

---@class p2pd.RungTry
---@field started_ms number milliseconds after the attempt's start
---@field ms number
---@field code? p2pd.Code

---@alias p2pd.MessageWhat
---| "request" by `ctx:request`
---| "reply" the peer's, to that
---| "send" by `ctx:send`
---| "receive" what `ctx:receive` gave
---| "answer" by `ctx:reply`

--- What came of a puncher. All times are milliseconds after the attempt's start.
---@class p2pd.Burst
---@field name? string what the strategy called it
---@field to string the IP address
---@field started_ms number when the puncher was opened
---@field ms? number how long it was open; nil while it is
---@field ok boolean whether a pipe came of it
---@field sent integer SYNs
---@field refused integer
---@field unreachable integer
---@field connected integer
---@field accepted integer
---@field marks? p2pd.PunchEvent[] in their order, 64 at most: connections, what went wrong, and SYNs evenly spread
---@field unlisted? integer events that are not among the marks

--- The report for a person: the pipeline as a tree, what each rung did, and when it started.
---@return string
function report:text() end

---@class p2pd.ReportTable
---@field ok boolean
---@field ms number milliseconds that the attempt took, or has taken until now
---@field strategy? string which rung connected
---@field why? string one sentence: why this way, and no quicker one
---@field code? p2pd.Code
---@field message? string
---@field rungs p2pd.Rung[]

--- The report as a table, fit for JSON.
---@return p2pd.ReportTable
function report:table() end
