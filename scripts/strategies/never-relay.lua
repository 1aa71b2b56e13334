-- never-relay: the default pipeline without its relay, for those who pay for one, or want no third party to see how
-- much they say to whom. It goes over the other ways twice, since nothing waits behind them. A node that uses it does
-- not come to other nodes' relays either.
local p2pd = require "p2pd"

local named, only, retry = p2pd.pipeline.named, p2pd.pipeline.only, p2pd.pipeline.retry

return named("never-relay", retry(2, only({ "direct", "reverse", "punch" }, "default")))
