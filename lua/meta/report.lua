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
---@field notes? table<string, any> what the strategy left by `ctx:note`
---@field dials? p2pd.Dial[] each address that was dialed
---@field traceback? string where it threw

---@class p2pd.Dial
---@field to string "192.0.2.7:4242"
---@field scope? string
---@field started_ms number milliseconds after the attempt's start
---@field ms? number
---@field ok boolean
---@field code? p2pd.Code

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
