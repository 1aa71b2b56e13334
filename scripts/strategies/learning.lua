-- learning: the four ways, but first the one that did best before between these two networks; the others follow when it
-- has had what it usually takes. Where nothing is known yet it does what the default pipeline does. `:scores` at the
-- prompt tells what it knows.
local p2pd = require "p2pd"

return p2pd.pipeline.learn { "direct", "reverse", "punch", "relay" }
