-- default: what a node uses unless told otherwise. The ways that need nobody else, the quickest first; and when these
-- have failed, or after some time, a relay beside them. Copy it, change it, and use it:
--
--   p2pd-lua strategies default > mine.lua && p2pd-lua connect ADDRESS --pipeline mine.lua
local p2pd = require "p2pd"

local stagger = p2pd.pipeline.stagger

local PATIENCE = 0.25   -- seconds that a way gets before the next is tried beside it (RFC 8305, section 8)
local RELAY_AFTER = 2.4 -- seconds that the other ways get before a relay is used, which takes a while to get ready

local function is_behind_routers(address)
  for _, list in ipairs { address.ipv4, address.ipv6 } do
    for _, entry in ipairs(list) do
      local is_open = entry.external == entry.internal and entry.nat ~= "udp-firewall"
      if entry.nat == "open" or is_open then return false end
    end
  end
  return true
end

-- One who is near, or not behind a router, is dialed first, and gets a while; others are tried by all ways at once. A
-- full cone lets in who knows a port that it has mapped: it may be worth dialing, but is not waited for.
local function patience(ctx, place)
  for _, candidate in ipairs((ctx:candidates())) do
    if candidate.lan then return PATIENCE end
  end
  if not is_behind_routers(ctx.peer) then return PATIENCE end
  return (place == 1 or is_behind_routers(ctx.own)) and 0 or PATIENCE
end

return stagger(RELAY_AFTER) { stagger(patience) { "direct", "reverse", "punch" }, "relay" }
