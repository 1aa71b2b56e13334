-- guide: each block of Lua in README and guide runs, given what the text around it takes for granted, and does what is
-- said there; so do the sessions that are shown.
local p2pd = require "p2pd"
local luv = require "luv"
local context = require "p2pd.context"
local contexts = require "spec.support.contexts"
local labs = require "spec.support.lab"
local processes = require "spec.support.processes"
local run = require "spec.support.run"

local BUILD = os.getenv "P2PD_BUILD" or "build"

local read, write, with_folder = processes.read, processes.write, processes.with_folder

local texts = processes.find("lua/doc", "%.md$")
table.insert(texts, "README.md")

-- The fenced blocks of a language, in their order.
local function blocks(path, language)
  local found = {}
  for block in ("\n" .. read(path)):gmatch("\n```" .. language .. "\n(.-)\n```") do found[#found + 1] = block end
  return found
end

local program = luv.fs_realpath(BUILD .. "/p2pd-lua")

-- Runs a command in the folder as a user's who has no servers in his settings; its libraries are those of the build.
-- What it says besides what it prints is given apart: a node whose port another program has just now says so.
local function run_quietly(folder, command)
  local settings = folder .. "/p2pd-lua/settings.lua"
  luv.fs_mkdir(folder .. "/p2pd-lua", 448) -- 0700
  write(settings, "return { mqtt = {}, stun = {}, turn = {}, ntp = {} }")
  luv.fs_chmod(settings, 384) -- 0600
  local variables = ("-u P2PD_LUA XDG_CONFIG_HOME='%s' XDG_DATA_HOME='%s' LUA_CPATH='%s/?.so;;'"):format(folder, folder,
    luv.fs_realpath(BUILD))
  local said = folder .. "/said"
  local text, status = processes.output_of(("{ cd '%s' && env %s timeout 20 %s; } 2>'%s'"):format(folder, variables,
    command, said))
  return text, status, read(said)
end

describe("the README", function()
  it("has a script of ten lines that works", function()
    local script = blocks("README.md", "lua")[1]
    local lines = 0
    for _ in script:gmatch "[^\n]+" do lines = lines + 1 end
    assert.equal(10, lines)
    with_folder(function(folder)
      write(folder .. "/hello.lua", script)
      local text, status, said = run_quietly(folder, ("'%s' hello.lua"):format(program))
      assert(text:find "^direct%s+%S+:%d+%s+hello %w+\n$", text .. said)
      assert.equal(0, status, text .. said)
    end)
  end)

  it("shows a session as the demo prints it", function()
    -- Without what differs from run to run; so do the order of packets that cross, and whether one comes in yet.
    local function shape(text)
      local packets = {}
      text = text:gsub("(demo:   )[-+x] (%w+)[^\n]*", "%1%2"):gsub("%-[%w]+%-%x+\n", "-ID\n"):gsub("[%d.]+", "0")
      text = text:gsub("demo:   0 (%w+ %w+ tcp) 0:0 > 0:0 S[^\n]*\n", function(packet)
        packets[#packets + 1] = packet
        return ""
      end)
      table.sort(packets)
      return text .. table.concat(packets, "\n")
    end
    local shown = read("README.md"):match "\n%$ p2pd%-lua demo\n(.-)\n```"
    local text, status = processes.output_of(("timeout 60 '%s' demo </dev/null"):format(program))
    assert.equal(0, status, text)
    assert.equal(shape(shown .. "\n"), shape(text))
  end)
end)

-- Each block of Lua in README and guide is a chunk that runs, given what the text around it takes for granted.
describe("the blocks of Lua", function()
  -- What a text takes for granted: p2pd, a node and the address of another one, which greets, and the reader's own
  -- things. Nodes are on loopback and have keys of their own; naps are short.
  local function stage(folder)
    local opened, count = {}, 0
    local function keep(thing, ...)
      if thing then opened[#opened + 1] = thing end
      return thing, ...
    end
    local here = setmetatable({}, { __index = p2pd })
    function here.sleep(seconds) p2pd.sleep(math.min(seconds, 0.02)) end
    function here.node(options)
      local own = { settings = { mqtt = {}, stun = {}, turn = {}, ntp = {} }, bind = "127.0.0.1" }
      for key, value in pairs(options or {}) do own[key] = value end
      count = count + 1
      own.key = ("%s/%d.pem"):format(folder, count)
      local node, message, code = p2pd.node(own)
      if not node then return nil, message, code end
      local connect = node.connect
      function node:connect(...) return keep(connect(self, ...)) end
      return keep(node)
    end
    local greeter = here.node()
    p2pd.spawn(function()
      for pipe in greeter:accept() do
        pipe:send "hello\n"
        pipe:close()
      end
    end)
    local said, address = {}, greeter:address()
    local function idle() end
    return setmetatable({
      p2pd = here, node = here.node { listen = false }, address = address, addresses = { address }, home = address,
      office = address, greet = idle, serve = idle, work = idle, try_later = idle,
      require = function(name) return name == "p2pd" and here or require(name) end,
      print = function(...)
        local words = table.pack(...)
        for i = 1, words.n do words[i] = tostring(words[i]) end
        said[#said + 1] = table.concat(words, " ")
      end,
    }, {
      __index = _G,
      __close = function()
        for i = #opened, 1, -1 do opened[i]:close() end
      end,
    }), said
  end

  -- What a block that returns something returns: a strategy, a pipeline that connects, or settings.
  local function judge(value, env)
    assert.equal("table", type(value))
    if not value.name then return assert(p2pd.settings.from(value)) end
    assert(context.check(value))
    if value.children then assert(env.node:connect(env.address, { pipeline = value })) end
  end

  local function run_here(block, name)
    with_folder(function(folder)
      local back <close> = setmetatable({ folder = luv.cwd() }, { -- luacheck: ignore
        __close = function(self) luv.chdir(self.folder) end,
      })
      for _, other in ipairs(blocks("lua/doc/strategies.md", "lua")) do
        local file = other:match "^%-%- (%l+%.lua)\n"
        if file then write(folder .. "/" .. file, other) end
      end
      luv.chdir(folder)
      local env <close>, said = stage(folder)
      local value = assert(load(block, "=" .. name, "t", env))()
      if value ~= nil then judge(value, env) end
      local connect = rawget(env, "connect") -- one end of a strategy, without what is around it
      if connect then
        local dialed, pipe = nil, { close = function() end }
        local ctx = contexts.new("connect", { dial = function(options) dialed = options return pipe end }, "8.8.8.8")
        assert.equal(pipe, p2pd.pipeline.run(connect, ctx))
        assert(dialed)
      end
      for words in block:gmatch "print(%b()%s*%-%->[^\n]+)" do
        assert.equal(words:match "%-%->%s*(.+)$", table.remove(said, 1), name)
      end
    end)
  end

  -- Those that are whole programs, by what they say of themselves.
  local function run_alone(command, status)
    return function(block)
      with_folder(function(folder)
        write(folder .. "/it_spec.lua", block)
        local text, ended, said = run_quietly(folder, command .. " it_spec.lua")
        assert.equal(status, ended, text .. said)
        for words in block:gmatch "print%b()%s*%-%->%s*([^\n]+)" do assert.equal(words .. "\n", text) end
      end)
    end
  end

  local obstacle = labs.obstacle(labs.users()[1])
  local ways = {
    { "%f[%w]describe%(", run_alone("busted --lua=lua5.4", 0) },
    { "%f[%w]p2pd%.run%(", run_alone("lua5.4", 0) },
    { "%f[%w]lab%.up%(", not obstacle and run_alone(("'%s'"):format(program), 0) or function()
      pending("no namespaces here: " .. obstacle)
    end },
  }

  for _, path in ipairs(texts) do
    for place, block in ipairs(blocks(path, "lua")) do
      local name = ("%s, block %d"):format(path, place)
      local way
      for _, each in ipairs(ways) do
        if not way and block:find(each[1]) then way = each[2] end
      end
      it("run: " .. name, way and function() way(block) end or run(function() run_here(block, name) end))
    end
  end
end)

describe("the guide's examples", function()
  local function loaded(text, name, ...)
    return assert(load(text, "=" .. name, "t", setmetatable(..., { __index = _G })))
  end

  it("of tasks do what they say", run(function()
    local said, printed = {}, {}
    local block = blocks("lua/doc/tasks.md", "lua")[1]
    for line in block:gmatch "%-%->%s*([^\n]+)" do said[#said + 1] = line end
    loaded(block, "tasks.md", { print = function(...) printed[#printed + 1] = table.concat({ ... }, " ") end })()
    assert.same({ "hello world" }, said)
    assert.same(said, printed)
  end))

  it("of strategies work: ask.lua asks, dials what it was told, and answers", run(function()
    local ask = loaded(blocks("lua/doc/strategies.md", "lua")[1], "ask.lua", {})()
    assert(context.check(ask))
    local here = "0-[1,0,30.0.2.7,30.0.2.7,4242,1,1,0]-0-someone-somewhere"
    local dialed, pipe = nil, { close = function() end }
    local ctx = contexts.new("connect", {
      request = function(fields_) return { kind = fields_.kind, from = here } end,
      dial = function(options) dialed = options return pipe end,
    })
    assert.equal(pipe, p2pd.pipeline.run(ask, ctx))
    assert.equal("30.0.2.7", dialed.ip)
    assert.equal(4242, dialed.port)
    local answered
    ctx = contexts.new("respond", {
      reply = function(message, fields_) answered = { message, fields_.kind } return 1 end,
    })
    local message = { kind = "ask", id = ("0"):rep(32), from = here }
    p2pd.pipeline.respond(ask, ctx, message)
    assert.same({ message }, answered)
  end))

  it("of conversations work: meet.lua fires at the port that it was told, and again if that was in vain", run(function()
    local meet
    for _, block in ipairs(blocks("lua/doc/strategies.md", "lua")) do
      if block:find "^%-%- meet%.lua" then meet = loaded(block, "meet.lua", {})() end
    end
    assert(context.check(meet))
    local there = { ip = "30.0.2.7", nat = "port-restricted", delta = "random", value = 0, ports = { 5000 } }
    local pipe = { close = function() end }
    local asked, answered = {}, {}
    -- The second burst comes through.
    local function try(role, ...)
      local fired, heard, opened = {}, 0, false
      local ctx = contexts.new(role, {
        facts = function() return { nat = "port-restricted", delta = "random", value = 0 } end,
        hold = function()
          return { external_ip = "30.0.2.7", external_port = 6000, local_port = 4000, close = function() end }
        end,
        puncher = function()
          return {
            listen = function(_, port) return port end,
            fire = function(_, shots)
              fired[#fired + 1] = ("%d > %d"):format(shots[1].local_port, shots[1].remote_port)
            end,
            wait = function()
              if #fired < 2 then return nil, "ECANCELED: nothing is under way", "ECANCELED" end
              if opened then p2pd.sleep(60) end
              opened = true
              return {}
            end,
            close = function() end,
          }
        end,
        adopt = function() return pipe end,
        send = function() return 1 end,
        request = function(fields_) asked[#asked + 1] = fields_.side.ports[1] return { side = there } end,
        reply = function(_, fields_) answered[#answered + 1] = fields_.side.ports[1] return 1 end,
        converse = function()
          return {
            receive = function()
              heard = heard + 1
              if role == "respond" and heard == 1 then return { try = 2, side = there } end
              return nil, "ETIMEDOUT: nothing was said", "ETIMEDOUT"
            end,
            close = function() end,
          }
        end,
      })
      assert.equal(pipe, p2pd.pipeline[role == "connect" and "run" or "respond"](meet, ctx, ...))
      assert.same({ "4000 > 5000", "4000 > 5000" }, fired)
    end
    try "connect"
    try("respond", { kind = "meet", id = ("0"):rep(32), try = 1, side = there })
    assert.same({ { 6000, 6000 }, { 6000, 6000 } }, { asked, answered })
  end))

  it("of pipelines are pipelines", run(function()
    local found = blocks("lua/doc/strategies.md", "lua")
    local whole, shuffled = nil, nil
    for _, block in ipairs(found) do
      if block:find "^local p2pd.*\nreturn seq" then whole = loaded(block, "pipeline", {})() end
      if block:find "local function shuffled" then shuffled = loaded(block .. "\nreturn shuffled", "shuffled", {})() end
    end
    assert(context.check(whole))
    assert(context.check(p2pd.pipeline.restrict(whole, { "reverse" })))
    local tried = 0
    local fails = { name = "fails", connect = function() tried = tried + 1 return nil, "EIO: no", "EIO" end }
    local pipe, _, code = p2pd.pipeline.run(shuffled { fails, fails, fails }, contexts.new "connect")
    assert.is_nil(pipe)
    assert.equal("EIO", code)
    assert.equal(3, tried)
  end))
end)
