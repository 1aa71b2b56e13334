-- lab: networks with every kind of NAT, on one machine: `require "p2pd.lab"`.
local luv = require "luv"
local process = require "p2pd.process"
local task = require "p2pd.task"
local files = require "p2pd.lab.files"
local host = require "p2pd.lab.host"
local lines = require "p2pd.lab.lines"
local needs = require "p2pd.lab.needs"
local router_options = require "p2pd.lab.options"
local state = require "p2pd.lab.state"
local timeline = require "p2pd.lab.timeline"
local topology = require "p2pd.lab.topology"

local M = {}

local SHOWN = 100         -- lines of the timeline, in an error
local PATIENCE = 30     -- seconds that a lab may take to come up, or a request to be answered
local FAREWELL = 3      -- seconds that a lab may take to go by itself
local ATTEMPTS = 5      -- to get a name whose last lab is just being cleaned up after

-- The first process of the lab's pid namespace: it starts the keeper, takes in the orphans, and leaves nothing behind.
-- Where it stands in /proc is read before the namespace has a /proc of its own. $0 is the program, $1 the folder in
-- which the lab begins, $2 the one that it gets.
local FIRST_PROCESS = [[
set -e
read -r P2PD_LAB_STAT </proc/self/stat
export P2PD_LAB_STAT
mount -t proc proc /proc
mount -t tmpfs -o mode=700 lab "$1/inside"
exec 3<&0
"$0" -E lab keeper <&3 3<&- &
exec 3<&- >&-
wait $! || :
for mine in "$2"/first."${P2PD_LAB_STAT%% *}".*; do
  [ -e "$mine" ] || exit 0
  umount -l "$2/inside"
  rm -f "$mine" "$2/socket" "$2/log"
  rmdir "$2/inside" "$2"
  rmdir "${2%/*}" "${2%/*/*}" 2>/dev/null || : # as state.tidy does
done
]]

local lab = {}
lab.__index = lab
lab.__name = "p2pd.lab"

M.methods = lab -- for spec/meta_spec.lua

local count = 0

local function own_name()
  count = count + 1
  return ("lua-%d-%d"):format(luv.os_getpid(), count)
end

-- The program and the folder of labs, which everything needs.
local function new(name)
  local self = setmetatable({ name = name }, lab)
  local ok, message, code = needs.outside()
  if not ok then return nil, message, code end
  self.program, message, code = needs.program()
  if not self.program then return nil, message, code end
  self.folder, message, code = state.folder()
  if not self.folder then return nil, message, code end
  return self
end

-- Beginning -----------------------------------------------------------------------------------------------------------

local function spawn(self, begun, path)
  local log, message, code = files.open_log(begun .. "/log")
  if not log then return nil, message, code end
  local options = {
    "unshare", "--fork", "--pid", "--kill-child", "--mount", "--net", "--uts", "--ipc",
    env = needs.environment(), cwd = "/", session = true, input = true, output = "stream", errors = log,
  }
  if luv.getuid() ~= 0 then table.move({ "--user", "--map-root-user" }, 1, 2, #options + 1, options) end
  table.move({ "sh", "-c", FIRST_PROCESS, self.program, begun, path }, 1, 6, #options + 1, options)
  self.process, message, code = process.start(options)
  luv.fs_close(log)
  if not self.process then return nil, message, code end
  self.keeper = lines.wrap(self.process.output, self.process.input)
  return true
end

-- The keeper ended before it could say why.
local function explain(begun)
  local said = files.last_words(begun .. "/log") or "it says nothing"
  if said:find "^unshare: unshare failed" or said:find "^unshare: write failed" then
    return nil, needs.refusal(said), "EPERM"
  end
  return nil, "EIO: the lab did not come up: " .. said, "EIO"
end

local function await_keeper(self, begun, path, options)
  self.keeper:send { folder = begun, path = path, program = self.program, view = self.view, options = options }
  local answer, message, code = self.keeper:recv(PATIENCE)
  if answer and answer.ok then return true end
  if answer then return nil, answer.message, answer.code, answer.taken end
  if code == "ETIMEDOUT" then return nil, "ETIMEDOUT: the lab did not come up: " .. message, code end
  return explain(luv.fs_stat(begun) and begun or path)
end

-- Whatever leaves the scope of a beginning before it is up ends what has begun.
local function abandon(self)
  if self.up then return end
  if self.keeper then self.keeper:close() end
  if self.process then self.process:wait() end
  if self.begun and luv.fs_stat(self.begun) then state.abandon(self.begun) end
  state.tidy(self.folder)
end

-- What the last lab of that name left is cleaned up, where it has surely ended.
local function vacate(self)
  local found = state.look(self.folder, self.name)
  if not found then return true end
  if found.life == "unknown" then
    local _, message, code = state.reach(self.name, found.identity)
    if message then return nil, ("%s; if it has ended, remove %s"):format(message, found.path), code end
  elseif found.life == "alive" and not (found.leaving and state.await_end(found.identity, FAREWELL)) then
    return nil, ("EBUSY: a lab '%s' runs already; `p2pd-lua lab down %s` ends it"):format(self.name, self.name), "EBUSY"
  end
  return state.clean(found)
end

-- One attempt. The last result says that the name was taken in between.
local function begin(self, options)
  local path = self.folder .. "/" .. self.name
  local vacant, why, what = vacate(self)
  if not vacant then return nil, why, what end
  self.process, self.keeper, self.begun = nil, nil, nil -- of the last attempt
  local _ <close> = setmetatable({}, { __close = function() abandon(self) end })
  local message, code
  self.begun, message, code = state.begin(self.folder, self.view)
  if not self.begun then return nil, message, code end
  local ok, taken
  ok, message, code = coroutine.wrap(spawn)(self, self.begun, path)
  if ok then ok, message, code, taken = await_keeper(self, self.begun, path, options) end
  if not ok then return nil, message, code, taken end
  local found = state.look(self.folder, self.name)
  self.identity, self.up = found and found.identity, true
  if self.identity then return self end
  return nil, "EIO: the lab is gone", "EIO"
end

--- Makes a lab: see p2pd.LabOptions.
function M.up(options)
  options = options or {}
  if type(options) ~= "table" then error("the options of a lab are a table, not a " .. type(options), 2) end
  local unknown = topology.unknown(options)
  if unknown then error(unknown, 2) end
  local asked = {}
  for key, value in pairs(options) do asked[key] = value end
  asked.name = asked.name or own_name()
  local plan, message, code = topology.plan(asked)
  if not plan then return nil, message, code end
  local ok, self
  ok, message, code = lines.can_carry(asked)
  if not ok then return nil, message, code end
  self, message, code = new(asked.name)
  if not self then return nil, message, code end
  self.view, message, code = needs.view()
  if not self.view then return nil, message, code end
  ok, message, code = needs.check(plan)
  if not ok then return nil, message, code end
  local made, taken
  for attempt = 1, ATTEMPTS do
    made, message, code, taken = begin(self, asked)
    if not taken then break end
    task.sleep(0.02 * attempt)
  end
  if not made then return nil, message, code end
  self.owned = true
  if asked.stay then self:stay() end
  return self
end

--- Finds a lab that runs.
function M.attach(name)
  if not topology.is_name(name) then
    return nil, ("EINVAL: '%s' cannot be a lab's name"):format(tostring(name)), "EINVAL"
  end
  local self, message, code = new(name)
  if not self then return nil, message, code end
  local found = state.look(self.folder, name)
  if found and found.life == "unknown" then
    local ok
    ok, message, code = state.reach(name, found.identity)
    if not ok then return nil, message, code end
  elseif found and found.life == "alive" and not found.leaving then
    self.identity = found.identity
    return self
  end
  local names = M.list() or {}
  return nil, ("ENOENT: no lab '%s' runs; %s"):format(name, #names > 0 and "there is " .. table.concat(names, ", ")
    or ("`p2pd-lua lab up %s` makes one"):format(name)), "ENOENT"
end

--- The names of the labs that run.
function M.list()
  local folder, message, code = state.folder()
  if not folder then return nil, message, code end
  local names = {}
  for i, found in ipairs(state.list(folder)) do names[i] = found.name end
  state.tidy(folder)
  return names
end

-- Asking --------------------------------------------------------------------------------------------------------------

local unanswered = { ECONNREFUSED = true, ENOENT = true, EOF = true }

-- Why nobody answers. A lab comes and goes in steps, and of one that was ended by force the folder stays.
local function silence(self)
  local found = state.look(self.folder, self.name)
  if found and found.life == "alive" and not found.leaving then
    return nil, ("EAGAIN: the lab '%s' is just coming up, or going"):format(self.name), "EAGAIN"
  end
  return nil, ("ECLOSED: the lab '%s' has gone"):format(self.name), "ECLOSED"
end

local function ask(self, question)
  if self.closed then return nil, "ECLOSED: the lab is down", "ECLOSED" end
  local can, why, what = lines.can_carry(question)
  if not can then return nil, why, what end
  local path, directory = state.socket(self.folder .. "/" .. self.name)
  if not path then return silence(self) end
  local connected, message, code = lines.connect(path)
  luv.fs_close(directory)
  local _ <close> = connected
  local answer
  if connected then answer, message, code = connected:ask(question, PATIENCE) end
  if unanswered[code] then return silence(self) end
  if not answer then return nil, message, code end
  if not answer.ok then return nil, answer.message, answer.code end
  answer.ok, answer.id = nil, nil
  return answer
end

--- A host.
function lab:host(name)
  local told, message, code = ask(self, { ["do"] = "host", name = name })
  if not told then return nil, message, code end
  return host.new(self, name, told)
end

--- What there is.
function lab:status()
  return ask(self, { ["do"] = "status" })
end

local function done(answer, message, code)
  if answer then return true end
  return nil, message, code
end

--- Changes a router while it runs.
function lab:set(router, options)
  if type(options) ~= "table" then error("a router's options are a table, not a " .. type(options), 2) end
  local unknown = router_options.unknown_change(options)
  if unknown then error(unknown, 2) end
  return done(ask(self, { ["do"] = "set", router = router, options = options }))
end

--- Pulls a router's cable out.
function lab:cut(router)
  return self:set(router, { up = false })
end

--- Puts it back.
function lab:mend(router)
  return self:set(router, { up = true })
end

--- Ends a server at once, and starts it again.
function lab:restart(server)
  return done(ask(self, { ["do"] = "restart", server = server }))
end

--- What a router has counted.
function lab:stats(router)
  local answer, message, code = ask(self, { ["do"] = "stats", router = router })
  if not answer then return nil, message, code end
  return answer.stats
end

--- What the routers did, as text.
function lab:timeline(since)
  local answer, message, code = ask(self, { ["do"] = "timeline", since = since })
  if not answer then return nil, message, code end
  return timeline.render(answer.events), answer.now
end

local function last_lines(text, most)
  local starts = { 1 }
  for place in text:gmatch "\n()" do starts[#starts + 1] = place end
  if #starts - 1 <= most then return text end
  return ("(%d lines before)\n"):format(#starts - 1 - most) .. text:sub(starts[#starts - most])
end

-- Adds the timeline to an error, which may be one of busted's.
local function with_timeline(self, err)
  local text = "\nThe lab's timeline:\n" .. last_lines(self:timeline() or "(it is gone)", SHOWN)
  if type(err) == "table" and type(err.message) == "string" then
    err.message = err.message .. text
    return err
  end
  return type(err) == "string" and err .. text or err
end

--- Runs a function; an error in it gets the timeline.
function lab:guard(f, ...)
  local results = table.pack(pcall(f, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  local err = results[2]
  if not task.is_cancelled(err) then err = with_timeline(self, err) end
  error(err, 0)
end

-- Ending --------------------------------------------------------------------------------------------------------------

--- Lets the lab outlive this process.
function lab:stay()
  if not self.owned then return end
  self.owned = false
  self.keeper:send { stay = true }
  -- What was sent has gone out before the handles are closed: closing cancels nothing that fits into the pipe.
  self.keeper:close()
  self.process:release()
end

--- Ends the lab, and waits until nothing is left of it.
function lab:down()
  if self.closed then return true end
  local _, message, code = ask(self, { ["do"] = "down" })
  self.closed = true
  if self.owned then self.keeper:close() end
  if not state.await_end(self.identity, FAREWELL) then
    if state.life(self.identity) == "alive" then luv.kill(self.identity.pid, "sigkill") end
    if not state.await_end(self.identity, FAREWELL) then
      return nil, message or "EIO: the lab does not end", code or "EIO"
    end
  end
  if self.owned then self.process:wait() end
  self.owned = false
  local found = state.look(self.folder, self.name)
  if found and found.identity and found.life == "dead" then state.clean(found) end
  state.tidy(self.folder)
  return true
end

--- Ends the lab where it is this program's own; else it goes on.
function lab:close()
  if self.owned then self:down() end
end

lab.__close = lab.close

function lab:__tostring()
  return ("lab %s%s"):format(self.name, self.closed and " (down)" or "")
end

return M
