-- punch: what is fired at whom and when, so that two routers open for each other: `require "p2pd.punch"`. Pure: nothing
-- is sent, and chance is a seed. What fires it is ctx:puncher.
local punch = require("p2pd.core").punch

return {
  tactic = punch.tactic, plan = punch.plan, predict = punch.predict, between = punch.between, wanted = punch.wanted,
}
