-- A punch in a lab, and what its timeline shows of it: at both ends, in the report, as text, and as a picture.
local cjson = require "cjson"
local lab = require "p2pd.lab"
local labs = require "spec.support.lab"
local luv = require "luv"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local run = require "spec.support.run"
local task = require "p2pd.task"
local timeline = require "p2pd.timeline"
local xml = require "spec.support.xml"

local DELAY_MS = 10
local obstacle = labs.obstacle(labs.users()[1])

local LISTEN = [[
  local p2pd = require "p2pd"
  local luv = require "luv"
  local address = ...
  local node <close> = assert(p2pd.node())
  assert(node:facts(4, 5))
  local file = assert(io.open(address .. ".new", "w"))
  file:write(node:address())
  file:close()
  luv.fs_rename(address .. ".new", address)
  for pipe in node:accept() do
    pipe:recv(5)
    break
  end
]]

local CONNECT = [[
  local cjson = require "cjson"
  local p2pd = require "p2pd"
  local node <close> = assert(p2pd.node { listen = false })
  assert(node:facts(4, 5))
  local pipe <close> = assert(node:connect((...), { strategies = { "direct", "punch" } }))
  print(cjson.encode(node.last_report:table()))
]]

local function marks_of(burst)
  local count = {}
  for _, mark in ipairs(burst.marks or {}) do count[mark.what] = (count[mark.what] or 0) + 1 end
  return count
end

describe("a timeline of a punch in a lab", function()
  it("has its packets and messages", obstacle and function() pending("no namespaces here: " .. obstacle) end
    or run(function()
      local folder <close> = program.folder()
      local net <close> = assert(lab.up {
        routers = {
          a = { nat = "port-restricted/random", delay_ms = DELAY_MS, ipv6 = "none" },
          b = { nat = "port-restricted/random", delay_ms = DELAY_MS, ipv6 = "none" },
        },
      })
      net:guard(function()
        local path = tostring(folder) .. "/address"
        local tasks <close> = task.group()
        tasks:spawn(function() net:host("b"):lua(LISTEN, { path, timeout = 30 }) end)
        local deadline = task.now() + 20
        while not luv.fs_stat(path) and task.now() < deadline do task.sleep(0.02) end
        local ended = assert(net:host("a"):lua(CONNECT, { processes.read(path), timeout = 20 }))
        assert.equal(0, ended.status, ended.err)
        local told = cjson.decode(ended.out)
        local punch = told.rungs[#told.rungs]
        assert.equal("punch", punch.name)
        local burst = punch.bursts[#punch.bursts]
        assert.is_true(burst.ok)
        assert.equal("30.2.2.2", burst.to)
        assert.matches("^ipv4 try %d+$", burst.name)
        assert.is_not_nil(punch.notes[burst.name])
        local count = marks_of(burst)
        assert.is_true(count.sent >= 1 and (count.connected or 0) + (count.accepted or 0) >= 1)
        local last = 0
        for _, mark in ipairs(burst.marks) do
          assert(mark.ms >= last and mark.ms <= told.ms and mark.ms >= burst.started_ms - 1, mark.ms)
          last = mark.ms
        end
        assert.same({ "request", "reply" }, { punch.messages[1].what, punch.messages[2].what })
        assert.is_true(punch.messages[2].ms >= punch.messages[1].ms + 2 * DELAY_MS)
        local text = timeline.text(told)
        print((("\n" .. text):gsub("\n", "\n# ")))
        assert.matches("\n  ipv4 try %d+ .*[*@]", text)
        local drawn = {}
        for _, element in ipairs(xml.elements(timeline.svg(told))) do
          drawn[element.attributes.class or ""] = true
        end
        assert.is_true(drawn.sent and (drawn.connected or drawn.accepted) and drawn.said and drawn.heard)
      end)
    end))
end)
