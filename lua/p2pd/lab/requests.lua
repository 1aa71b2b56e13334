-- requests: what a lab's keeper does when it is asked: one table in, one table out.
local luv = require "luv"
local plumbing = require "p2pd.lab.plumbing"
local router_options = require "p2pd.lab.options"
local servers = require "p2pd.lab.servers"
local topology = require "p2pd.lab.topology"

local M = {}

local SLACK_NS = 1000000 -- cjson writes 14 digits of a number

local answers = {}

local function unknown(what, name, known)
  local names = {}
  for key in pairs(known) do names[#names + 1] = key end
  table.sort(names)
  return nil, ("EINVAL: the lab has no %s '%s' (it has: %s)"):format(what, tostring(name),
    #names > 0 and table.concat(names, ", ") or "none"), "EINVAL"
end

local function router_of(keeper, name)
  local router = keeper.plan.router[name]
  if router then return router end
  return unknown("router", name, keeper.plan.router)
end

-- What the keeper itself did, for the timeline; the routers' events have the same clock (uv_hrtime).
local function tell(keeper, router, text, ...)
  keeper.events[#keeper.events + 1] = { ns = luv.hrtime(), router = router, text = text:format(...) }
end

local function ipv4_of(keeper, server)
  local router = keeper.plan.router[server.where]
  return router and router.lan.address or servers.address(server.name)
end

local function runs(child)
  return child ~= nil and child:runs()
end

function answers.status(keeper)
  local status = { name = keeper.plan.name, routers = {}, hosts = {}, servers = {} }
  for i, router in ipairs(keeper.plan.routers) do
    status.routers[i] = {
      name = router.name, options = router.options, external = router.wan.external, lan = router.lan.prefix,
      carrier = router.front, runs = runs(keeper.holders["router " .. router.name]),
    }
  end
  for i, host in ipairs(keeper.plan.hosts) do
    local links = {}
    for place, link in ipairs(host.links) do
      links[place] = { device = link.device, router = link.router, ipv4 = link.address, ipv6 = link.address6 }
    end
    status.hosts[i] = { name = host.name, links = links }
  end
  for i, server in ipairs(keeper.servers) do
    status.servers[i] = {
      name = server.name, where = server.where, ipv4 = ipv4_of(keeper, server),
      runs = runs(keeper.running[server.name]),
    }
  end
  return status
end

-- What is needed to run something on a host.
function answers.host(keeper, question)
  local host = keeper.plan.host[question.name]
  if not host then return unknown("host", question.name, keeper.plan.host) end
  local names = {}
  for i, each in ipairs(keeper.plan.hosts) do names[i] = each.name end
  return {
    pid = keeper.holders["host " .. host.name].pid, folder = keeper:folder_of(host), hosts = table.concat(names, " "),
  }
end

-- Setting -------------------------------------------------------------------------------------------------------------

-- What nothing can be done about while the lab runs.
local fixed = { "addresses", "ipv6", "portmap" }

-- What a router is to be: its options, with others laid over them, and its outer side. Nothing has changed yet.
local function candidate(router, changes)
  local keys = {}
  for key in pairs(changes) do
    if key ~= "address" then keys[#keys + 1] = key end
  end
  table.sort(keys)
  local to_be = { router = router, changes = changes, options = router.options, wan = router.wan }
  local message, code
  for _, key in ipairs(keys) do
    to_be.options, message, code = router_options.set(to_be.options, key, changes[key])
    if not to_be.options then return nil, message, code end
  end
  for _, key in ipairs(fixed) do
    if to_be.options[key] ~= router.options[key] then
      return nil, ("EINVAL: '%s' cannot change while the lab runs"):format(key), "EINVAL"
    end
  end
  if router_options.translates(to_be.options) ~= router.translates then
    return nil, "EINVAL: whether a router translates cannot change while the lab runs", "EINVAL"
  end
  if changes.address ~= nil then
    to_be.wan, message, code = topology.readdressed(router, changes.address)
    if not to_be.wan then return nil, message, code end
  end
  return to_be
end

-- One for the router, and one for its carrier's where that is to change.
local function candidates(keeper, router, changes)
  local own, of_carrier = router_options.apart(changes)
  local list, front = {}, keeper.plan.router[router.front or ""]
  if of_carrier and not front then
    return nil, ("EINVAL: router '%s' has no carrier; none comes while the lab runs"):format(router.name), "EINVAL"
  end
  for _, each in ipairs { { router, own }, { front, of_carrier } } do
    if next(each[2] or {}) ~= nil then
      local message, code
      list[#list + 1], message, code = candidate(each[1], each[2])
      if message then return nil, message, code end
    end
  end
  return list
end

local function readdress(keeper, to_be)
  local router = to_be.router
  local pid = keeper.holders["router " .. router.name].pid
  local ok, message, code = keeper:ip("address", plumbing.readdress(router.wan, to_be.wan), pid)
  if not ok or router.front or router.translates then return ok, message, code end
  return keeper:ip("route", ("route replace %s via %s\n"):format(router.lan.prefix, to_be.wan.address))
end

-- Makes the router what it is to be. What it refuses leaves it as it was.
local function apply(keeper, to_be)
  local router = to_be.router
  local ok, message, code = keeper:configure(router, to_be.options, to_be.wan)
  if not ok or to_be.wan == router.wan then return ok, message, code end
  return readdress(keeper, to_be)
end

local function commit(keeper, to_be)
  local router, said = to_be.router, {}
  router.options, router.wan = to_be.options, to_be.wan
  local inner = keeper.plan.router[router.inner or ""]
  if inner then inner.options.carrier = to_be.options end
  for key, value in pairs(to_be.changes) do
    said[#said + 1] = ("%s=%s"):format(key, type(value) == "table" and "…" or tostring(value))
  end
  table.sort(said)
  if #said > 0 then tell(keeper, router.name, "set %s", table.concat(said, " ")) end
end

--- Lays options over those that a router has: all of them or none.
function answers.set(keeper, question)
  local router, message, code = router_of(keeper, question.router)
  if not router then return nil, message, code end
  local nobody_knows = router_options.unknown_change(question.options)
  if nobody_knows then return nil, "EINVAL: " .. nobody_knows, "EINVAL" end
  local list
  list, message, code = candidates(keeper, router, question.options)
  if not list then return nil, message, code end
  for place, to_be in ipairs(list) do
    local ok
    ok, message, code = apply(keeper, to_be)
    if not ok then
      for i = 1, place do keeper:configure(list[i].router) end -- as they were
      return nil, message, code
    end
  end
  for _, to_be in ipairs(list) do commit(keeper, to_be) end
  return {}
end

-- Asking --------------------------------------------------------------------------------------------------------------

function answers.stats(keeper, question)
  local router, message, code = router_of(keeper, question.router)
  if not router then return nil, message, code end
  return keeper:ask(router, { ["do"] = "stats" })
end

function answers.restart(keeper, question)
  local server = keeper.server[question.server]
  if not server then return unknown("server", question.server, keeper.server) end
  tell(keeper, nil, "restart %s", server.name)
  local ok, message, code = keeper:restart(server)
  if not ok then return nil, message, code end
  return {}
end

-- The events of all routers, and the lab's own, by time. Times count from when the lab was up. A router that cannot be
-- asked any more is left out.
function answers.timeline(keeper, question)
  local now, events, since = luv.hrtime(), {}, question.since or -math.huge
  if type(since) ~= "number" then
    return nil, ("EINVAL: 'since' is a number of seconds, not '%s'"):format(tostring(since)), "EINVAL"
  end
  local since_ns = question.since and math.max(0, keeper.began + question.since * 1e9 - SLACK_NS) or nil
  for _, router in ipairs(keeper.plan.routers) do
    local answer, message = keeper:ask(router, { ["do"] = "trace", since = since_ns })
    if not answer then answer = { events = { { ns = now, text = "is left out: " .. message } } } end
    for _, event in ipairs(answer.events) do
      event.router = router.name
      events[#events + 1] = event
    end
  end
  table.move(keeper.events, 1, #keeper.events, #events + 1, events)
  local wanted = {}
  for place, event in ipairs(events) do
    event.place, event.at = place, (event.ns - keeper.began) / 1e9
    if event.at >= since then wanted[#wanted + 1] = event end
  end
  table.sort(wanted, function(a, b)
    if a.ns ~= b.ns then return a.ns < b.ns end
    return a.place < b.place -- of two at one time the first stays the first
  end)
  return { events = wanted, now = (now - keeper.began) / 1e9 }
end

function answers.down(keeper)
  keeper:leave()
  return {}
end

--- Answers a question.
---@return table answer `ok`, and `message` and `code` when that is false
function M.answer(keeper, question)
  local how = answers[question["do"]]
  if not how then
    local message = ("EINVAL: '%s' is no request"):format(tostring(question["do"]))
    return { ok = false, id = question.id, message = message, code = "EINVAL" }
  end
  local ran, answer, message, code = pcall(how, keeper, question)
  if not ran then answer, message, code = nil, "EIO: " .. tostring(answer), "EIO" end
  answer = answer or { message = message, code = code }
  answer.ok, answer.id = code == nil, question.id
  return answer
end

return M
