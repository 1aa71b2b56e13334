-- keeper: the process that a lab is. It runs in namespaces of its own, of which the network's is the internet; makes
-- all else; and answers at the lab's socket. With it, or with the shell that is its parent and the first process of
-- their pid namespace, the kernel ends every process in there and frees all namespaces, however that happens.
local luv = require "luv"
local task = require "p2pd.task"
local child = require "p2pd.lab.child"
local files = require "p2pd.lab.files"
local lines = require "p2pd.lab.lines"
local plumbing = require "p2pd.lab.plumbing"
local requests = require "p2pd.lab.requests"
local servers = require "p2pd.lab.servers"
local state = require "p2pd.lab.state"
local topology = require "p2pd.lab.topology"

local M = {}

local PATIENCE = 10 -- seconds that each step may take
local FAREWELL = 1  -- seconds in which the last words are to go out

local keeper = {}
keeper.__index = keeper

-- Processes -----------------------------------------------------------------------------------------------------------

function keeper:log_of(name)
  return ("%s/log/%s"):format(self.inside, (name:gsub(" ", "-")))
end

function keeper:start(name, argv, options)
  local all = table.move(argv, 1, #argv, 1, options or {})
  all.name, all.log = name, self:log_of(name)
  return child.start(all)
end

function keeper:run(name, argv)
  local all = table.move(argv, 1, #argv, 1, {})
  all.name, all.log, all.cwd = name, self:log_of(name), self.inside
  return child.run(all)
end

--- Runs a batch of `ip`, in the namespace of that process or in the keeper's own.
function keeper:ip(name, batch, pid)
  local written, message, code = files.write(("%s/%s.batch"):format(self.inside, name), batch)
  if not written then return nil, message, code end
  local argv = { "ip", "-batch", name .. ".batch" }
  if pid then argv = { "nsenter", "--target", tostring(pid), "--net", "ip", "-batch", name .. ".batch" } end
  return self:run(name, argv)
end

-- Runs functions side by side until all have ended; the first failure is what it returns.
local function together(functions)
  local tasks <close> = task.group()
  for i, f in ipairs(functions) do functions[i] = tasks:spawn(f) end
  for _, running in ipairs(functions) do
    local ok, message, code = running:wait()
    if not ok then return nil, message, code end
  end
  return true
end

-- Bringing up ---------------------------------------------------------------------------------------------------------

-- What a host has in place of the machine's: the files are left as they are where the machine has none.
function keeper:host_files(host)
  local names = { "127.0.0.1 localhost " .. host.name, "::1 localhost " .. host.name }
  if self.plan.servers then
    for _, name in ipairs(servers.NAMES) do names[#names + 1] = servers.address(name) .. " " .. name end
  end
  local contents = {
    ["machine-id"] = ("%032x\n"):format(host.number), ["hosts"] = table.concat(names, "\n") .. "\n",
    ["resolv.conf"] = "# No name server is in the lab.\n",
  }
  local binds, folder = {}, self:folder_of(host)
  for name in pairs(contents) do
    if luv.fs_stat("/etc/" .. name) then binds[#binds + 1] = { folder .. "/" .. name, "/etc/" .. name } end
  end
  return contents, binds
end

function keeper:folder_of(node)
  return ("%s/%ss/%s"):format(self.inside, node.kind, node.name)
end

function keeper:start_host(host)
  local folder = self:folder_of(host)
  local contents, binds = self:host_files(host)
  local script, more = plumbing.host(host, binds)
  files.make_folder(folder, contents)
  files.make_folder(folder, more)
  files.make_folder(folder .. "/run")
  files.make_folder(folder .. "/home/.config/p2pd-lua", {
    ["settings.lua"] = self.plan.servers and servers.settings { clock_error = host.clock_error } or nil,
  })
  return self:hold(host, {
    "unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c", script, self.program,
  })
end

function keeper:start_router(router)
  local script, contents = plumbing.router(self.plan, router)
  files.make_folder(self:folder_of(router), contents)
  return self:hold(router, { "unshare", "--net", "sh", "-c", script, self.program })
end

function keeper:hold(node, argv)
  local name = node.kind .. " " .. node.name
  local holder, message, code = self:start(name, argv, { talks = true, cwd = self:folder_of(node) })
  if not holder then return nil, message, code end
  self.holders[name] = holder
  return holder:await("ready", PATIENCE)
end

function keeper:make_internet()
  for name, value in pairs(plumbing.internet_sysctls()) do
    local ok, message, code = files.write("/proc/sys/net/" .. name, tostring(value))
    if not ok then return nil, message, code end
  end
  local ok, message, code = self:ip("servers", plumbing.servers(servers.addresses()))
  if not ok then return nil, message, code end
  for _, server in ipairs(self.servers) do
    if server.where == "internet" then
      ok, message, code = self:start_server(server)
      if not ok then return nil, message, code end
    end
  end
  return true
end

function keeper:connect_all()
  local pids = {}
  for name, holder in pairs(self.holders) do pids[name] = holder.pid end
  return self:ip("links", plumbing.links(self.plan, pids))
end

--- Asks a router's program.
function keeper:ask(router, question)
  local answer, message, code = self.holders["router " .. router.name]:ask(question, PATIENCE)
  if not answer then return nil, message, code end
  if not answer.ok then return nil, answer.message, answer.code end
  return answer
end

--- Tells a router's program what it is to be: what the plan says, or other options and another outer side. When it has
--- answered, it works.
function keeper:configure(router, options, wan)
  return self:ask(router, {
    ["do"] = "configure", options = options or router.options, external = (wan or router.wan).external,
    inside = topology.inside(self.plan, router),
  })
end

function keeper:finish_router(router)
  self.holders["router " .. router.name].lines:write "go"
  return self:configure(router)
end

function keeper:finish_host(host)
  local holder = self.holders["host " .. host.name]
  holder.lines:write "go"
  return holder:await("up", PATIENCE)
end

-- Servers -------------------------------------------------------------------------------------------------------------

function keeper:enter_router(name)
  return { "nsenter", "--target", tostring(self.holders["router " .. name].pid), "--net" }
end

function keeper:start_server(server)
  local argv = server.argv
  if server.where ~= "internet" then
    argv = self:enter_router(server.where)
    if server.setup then
      local path = ("%s/%s.nft"):format(self.inside, server.name)
      files.write(path, server.setup)
      local nft = table.move({ "nft", "-f", path }, 1, 3, #argv + 1, table.move(argv, 1, #argv, 1, {}))
      local ok, message, code = self:run(server.name .. "-nft", nft)
      if not ok then return nil, message, code end
    end
    argv = table.move(server.argv, 1, #server.argv, #argv + 1, argv)
  end
  local running, message, code = self:start(server.name, argv, { cwd = self.server_folder })
  self.running[server.name] = running
  return running, message, code
end

function keeper:await_server(server)
  local enter = server.where ~= "internet" and self:enter_router(server.where) or nil
  local running = self.running[server.name]
  local answers = running:while_it_runs(PATIENCE, function() return server.ready(PATIENCE, enter) end)
  if answers then return true end
  return nil, running:failure(running:runs() and "does not answer" or "has ended")
end

--- Ends a server at once, and starts it again.
function keeper:restart(server)
  self.running[server.name]:kill()
  local ok, message, code = self:start_server(server)
  if not ok then return nil, message, code end
  return self:await_server(server)
end

function keeper:plan_servers()
  self.server_folder = files.make_folder(self.inside .. "/servers")
  local list, message, code = servers.plan(servers.asked(self.plan, self.server_folder))
  if not list then return nil, message, code end
  self.servers = list
  for _, server in ipairs(list) do
    for name, text in pairs(server.files) do files.write(self.server_folder .. "/" .. name, text) end
    self.server[server.name] = server
  end
  return true
end

-- The whole -----------------------------------------------------------------------------------------------------------

local function each(list, f)
  local functions = {}
  for _, item in ipairs(list) do
    functions[#functions + 1] = function() return f(item) end
  end
  return functions
end

local function joined(...)
  local all = {}
  for _, list in ipairs { ... } do table.move(list, 1, #list, #all + 1, all) end
  return all
end

function keeper:bring_up()
  local plan = self.plan
  local function method(name)
    return function(item) return self[name](self, item) end
  end
  local ok, message, code = self:plan_servers()
  if not ok then return nil, message, code end
  local in_routers = {}
  for _, server in ipairs(self.servers) do
    if server.where ~= "internet" then in_routers[#in_routers + 1] = server end
  end
  for _, step in ipairs {
    function()
      return joined({ function() return self:make_internet() end }, each(plan.routers, method "start_router"),
        each(plan.hosts, method "start_host"))
    end,
    function() return { function() return self:connect_all() end } end,
    function() return joined(each(plan.routers, method "finish_router"), each(plan.hosts, method "finish_host")) end,
    function() return each(in_routers, method "start_server") end,
    function() return each(self.servers, method "await_server") end,
  } do
    ok, message, code = together(step())
    if not ok then return nil, message, code end
  end
  return true
end

-- Takes the lab's name: of two that want it one gets it.
local function claim(begun)
  local identity = state.identity(os.getenv "P2PD_LAB_STAT", luv.fs_readlink "/proc/self/ns/pid", begun.view)
  assert(files.write(begun.folder .. "/" .. state.file_of(identity), ""))
  return luv.fs_rename(begun.folder, begun.path)
end

-- Listens at the lab's socket; each client has a task.
function keeper:serve()
  local path, directory = state.socket(self.path)
  local socket = luv.new_pipe(false)
  local ok, message, code = socket:bind(path)
  if not ok then return nil, message, code end
  socket:listen(64, function()
    local stream = luv.new_pipe(false)
    socket:accept(stream)
    local client = lines.wrap(stream)
    task.spawn(function()
      local _ <close> = client
      for question in function() return (client:recv()) end do client:send(requests.answer(self, question)) end
    end)
  end)
  luv.fs_close(directory)
  return true
end

--- Ends the lab, and this process, at once.
function keeper:leave()
  self.finished = true
  self.changed:signal()
end

-- Whoever made the lab holds the other end of standard input: when that end has gone, so does the lab, unless it was
-- told to stay.
function keeper:watch_owner()
  local question = self.owner:recv()
  if not question then self:leave() end
end

local function run(self)
  local begun = self.owner:recv()
  if not begun then return end
  local function answer(ok, message, code, taken)
    self.owner:send { ok = ok or false, message = message, code = code, taken = taken }
  end
  local ok, message, code = claim(begun)
  if not ok then return answer(nil, message, code, luv.fs_stat(begun.path) ~= nil) end
  self.path, self.inside, self.program = begun.path, begun.path .. "/inside", begun.program
  files.make_folder(self.inside .. "/log")
  self.plan, message, code = topology.plan(begun.options)
  if not self.plan then return answer(nil, message, code) end
  task.spawn(self.watch_owner, self)
  task.spawn(function()
    local ran, up, why, what = pcall(self.bring_up, self)
    if not ran then up, why, what = nil, "EIO: " .. tostring(up), "EIO" end
    if up then up, why, what = self:serve() end
    self.began = luv.hrtime()
    answer(up, why, what)
    if not up then self:leave() end
  end)
  while not self.finished do self.changed:wait() end
end

-- Whether a lab's first process started this one.
local function is_at_home()
  return os.getenv "P2PD_LAB_STAT" and luv.guess_handle(0) == "pipe" and luv.guess_handle(1) == "pipe"
end

--- The program `lab keeper`: returns its exit status.
function M.run()
  if not is_at_home() then
    io.stderr:write "p2pd-lua lab keeper: EINVAL: this is a part of each lab; `p2pd-lua lab up` starts it\n"
    return 2
  end
  local input, output = luv.new_pipe(false), luv.new_pipe(false)
  input:open(0)
  output:open(1)
  local self = setmetatable({
    owner = lines.wrap(input, output), holders = {}, servers = {}, server = {}, running = {}, events = {},
    changed = task.condition(), finished = false,
  }, keeper)
  local ok, message = pcall(run, self)
  if not ok then self.owner:send { ok = false, message = "EIO: " .. tostring(message), code = "EIO" } end
  self.owner:flush(FAREWELL)
  os.exit(ok and 0 or 1, false)
end

return M
