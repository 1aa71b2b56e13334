-- default: what a node uses unless told otherwise. The ways that need nobody else, the quickest first; and when these
-- have failed, or after some time, a relay beside them. Copy it, change it, and use it:
--
--   p2pd-lua strategies default > mine.lua && p2pd-lua connect ADDRESS --pipeline mine.lua
local p2pd = require "p2pd"

local pipeline = p2pd.pipeline

local RELAY_AFTER = 2.4 -- seconds that the other ways get before a relay is used, which takes a while to get ready

return pipeline.stagger(RELAY_AFTER) {
  pipeline.stagger(pipeline.patience) { "direct", "reverse", "punch" },
  "relay",
}
