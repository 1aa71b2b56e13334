-- requests: what a lab's keeper does when it is asked: one table in, one table out.
local luv = require "luv"
local nat = require "p2pd.lab.nat"
local plumbing = require "p2pd.lab.plumbing"
local servers = require "p2pd.lab.servers"
local topology = require "p2pd.lab.topology"

local M = {}

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

local function runs(process)
  return process ~= nil and not process.status
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

local function readdress(keeper, router, address)
  local old = table.move(router.wan.external, 1, #router.wan.external, 1, {})
  local ok, message, code = topology.readdress(router, address)
  if not ok then return nil, message, code end
  local pid = keeper.holders["router " .. router.name].pid
  ok, message, code = keeper:ip("address", plumbing.readdress(router, old, router.wan.external), pid)
  if not ok or router.front or router.translates then return ok, message, code end
  return keeper:ip("route", ("route replace %s via %s\n"):format(router.lan.prefix, router.wan.address))
end

-- What nothing can be done about while the lab runs.
local fixed = { "addresses", "ipv6", "portmap" }

-- The options with others laid over them: texts as `lab set` takes them, other values as a table of options does.
local function laid_over(options, changes)
  local keys = {}
  for key in pairs(changes) do
    if key ~= "address" then keys[#keys + 1] = key end
  end
  table.sort(keys)
  local changed = options
  for _, key in ipairs(keys) do
    local set, message, code
    if type(changes[key]) == "string" then
      set, message, code = nat.set(changed, key, changes[key])
    else
      local copy = { [key] = changes[key] }
      for name, old in pairs(changed) do
        if name ~= key then copy[name] = old end
      end
      set, message, code = nat.router(copy)
    end
    if not set then return nil, message, code end
    changed = set
  end
  for _, key in ipairs(fixed) do
    if changed[key] ~= options[key] then
      return nil, ("EINVAL: '%s' cannot change while the lab runs"):format(key), "EINVAL"
    end
  end
  if nat.translates(changed) ~= nat.translates(options) then
    return nil, "EINVAL: whether a router translates cannot change while the lab runs", "EINVAL"
  end
  if changes.carrier then
    return nil, "EINVAL: a carrier's router is set by its own name, as in a-carrier", "EINVAL"
  end
  return changed
end

--- Lays options over those that a router has.
function answers.set(keeper, question)
  local router, message, code = router_of(keeper, question.router)
  if not router then return nil, message, code end
  local options, ok
  options, message, code = laid_over(router.options, question.options)
  if not options then return nil, message, code end
  if question.options.address then
    ok, message, code = readdress(keeper, router, question.options.address)
    if not ok then return nil, message, code end
  end
  router.options = options
  ok, message, code = keeper:configure(router)
  if not ok then return nil, message, code end
  local said = {}
  for key, value in pairs(question.options) do
    said[#said + 1] = ("%s=%s"):format(key, type(value) == "table" and "…" or tostring(value))
  end
  table.sort(said)
  tell(keeper, router.name, "set %s", table.concat(said, " "))
  return {}
end

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

-- The events of all routers, and the lab's own, by time. Times count from when the lab was up.
function answers.timeline(keeper, question)
  local now, events = luv.hrtime(), {}
  for _, router in ipairs(keeper.plan.routers) do
    local answer, message, code = keeper:ask(router, { ["do"] = "trace" })
    if not answer then return nil, message, code end
    for _, event in ipairs(answer.events) do
      event.router = router.name
      events[#events + 1] = event
    end
  end
  table.move(keeper.events, 1, #keeper.events, #events + 1, events)
  local wanted = {}
  for place, event in ipairs(events) do
    event.place, event.at = place, (event.ns - keeper.began) / 1e9
    if event.at >= (question.since or 0) then wanted[#wanted + 1] = event end
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
    return { ok = false, message = ("EINVAL: '%s' is no request"):format(tostring(question["do"])), code = "EINVAL" }
  end
  local ran, answer, message, code = pcall(how, keeper, question)
  if not ran then answer, message, code = nil, "EIO: " .. tostring(answer), "EIO" end
  answer = answer or { message = message, code = code }
  answer.ok = code == nil
  return answer
end

return M
