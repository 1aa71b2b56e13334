-- meta: what is public is documented, what is documented is there, and what the texts say about the code holds.
local p2pd = require "p2pd"
local core = require "p2pd.core"
local luv = require "luv"
local context = require "p2pd.context"
local report = require "p2pd.report"
local labs = require "spec.support.lab"
local run = require "spec.support.run"

local BUILD = os.getenv "P2PD_BUILD" or "build"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

local function files(folder, pattern)
  local found = {}
  for name in luv.fs_scandir_next, assert(luv.fs_scandir(folder)) do
    if name:find(pattern) then found[#found + 1] = folder .. "/" .. name end
  end
  table.sort(found)
  return found
end

local function keys(map)
  local list = {}
  for key in pairs(map) do list[#list + 1] = key end
  table.sort(list)
  return list
end

-- lua/meta --------------------------------------------------------------------------------------------------------

-- Each documented function, by the name of its table and its own: parameters, and the comment directly above.
local function documented()
  local names = {}
  for _, path in ipairs(files("lua/meta", "%.lua$")) do
    local comment = {}
    for line in read(path):gmatch "[^\n]*" do
      local owner, name, parameters = line:match "^function ([%w_]+)[.:]([%w_]+)%((.*)%) end$"
      if owner then
        names[owner] = names[owner] or {}
        names[owner][name] = { parameters = parameters, comment = table.concat(comment, "\n"), path = path }
      end
      if line:find "^%-%-%-" then comment[#comment + 1] = line else comment = {} end
    end
  end
  return names
end

-- The fields of a documented class, a set.
local function fields(class)
  local found = {}
  for _, path in ipairs(files("lua/meta", "%.lua$")) do
    local inside = false
    for line in read(path):gmatch "[^\n]*" do
      local opened = line:match "^%-%-%-@class ([%w_.]+)"
      if opened then inside = opened == class end
      if not line:find "^%-%-%-" then inside = false end
      local field = inside and line:match "^%-%-%-@field ([%w_]+)"
      if field then found[field] = true end
    end
  end
  return found
end

local function functions_of(object)
  local found = {}
  for name, value in pairs(object) do
    if type(name) == "string" and name:sub(1, 2) ~= "__" and type(value) == "function" then found[name] = true end
  end
  return found
end

-- What a node or the pipeline calls and a script has no use for. Not part of what is promised.
local internal = {
  watch = { "follow" },
  pipe = { "admit", "commit" },
  report = {
    "burst", "dial", "enter", "events", "failure", "finish", "hide", "leave", "note", "plan", "signal",
  },
}

local nothing = function() return nil, "ENOTSUP: not here", "ENOTSUP" end
local no_means = {
  dial = nothing, send = nothing, request = nothing, reply = nothing,
  prefixes = function() return {} end, loopback_only = function() return true end,
  expect = function() return { wait = nothing, close = function() end } end,
  converse = function() return { receive = nothing, close = function() end } end,
  puncher = function() return { close = function() end } end,
  relay = function() return { close = function() end } end,
}

local function new_context(role, means, ip)
  ip = ip or "30.0.2.7"
  local entry = { external = ip, internal = ip, port = 1, nat = "open", delta = "na" }
  local address = { signal = { 0 }, ipv4 = { entry }, ipv6 = {}, node_id = "peer", machine_id = "machine" }
  local own = { signal = {}, ipv4 = {}, ipv6 = {}, node_id = "own", machine_id = "another" }
  return context.new {
    peer = address, own = own, role = role, report = report.new(),
    means = setmetatable(means or {}, { __index = no_means }),
  }
end

local function remove(folder)
  for name, kind in luv.fs_scandir_next, assert(luv.fs_scandir(folder)) do
    local path = folder .. "/" .. name
    if kind == "directory" then remove(path) else os.remove(path) end
  end
  luv.fs_rmdir(folder)
end

local function with_folder(f)
  local folder = assert(luv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/p2pd-meta-XXXXXX"))
  local guard <close> = setmetatable({}, { -- luacheck: ignore
    __close = function()
      remove(folder)
    end,
  })
  return f(folder)
end

local function new_node(folder)
  return assert(p2pd.node {
    bind = "127.0.0.1", key = folder .. "/key.pem", listen = false, on_notice = function() end,
    settings = { mqtt = {}, stun = {}, turn = {}, ntp = {}, names = {} },
  })
end

-- The tables in which the methods of public objects are found.
local function at_run_time()
  local found = {
    p2pd = p2pd, address = p2pd.address, pipeline = p2pd.pipeline, settings = p2pd.settings,
    task = debug.getregistry()["p2pd.task"].__index, pipe = core.pipe.methods,
    group = getmetatable(p2pd.group()).__index, channel = getmetatable(p2pd.channel()).__index,
    report = getmetatable(report.new()).__index,
    lab = require "p2pd.lab", net = require("p2pd.lab").methods, host = require("p2pd.lab.host").methods,
    stun = require "p2pd.stun", socket = core.stun.methods.socket, connection = core.stun.methods.connection,
    clock = require "p2pd.clock", nat = require "p2pd.nat", nic = require "p2pd.nic",
    netcheck = require "p2pd.netcheck", reach = require "p2pd.reach",
    portmap = require "p2pd.portmap", mapping = require("p2pd.portmap").methods,
    turn = require "p2pd.turn", allocation = require("p2pd.turn").methods, punch = require "p2pd.punch",
    timeline = require "p2pd.timeline", console = require "p2pd.console", opened = require("p2pd.console").methods,
  }
  found.watch = require("p2pd.pipeline.watching").methods
  found.watcher = debug.getregistry()["p2pd.nic_watcher"].__index
  p2pd.pipeline.run({
    name = "look",
    connect = function(ctx)
      found.ctx, found.arrival = getmetatable(ctx).__index, getmetatable(assert(ctx:expect())).__index
      found.puncher = getmetatable(assert(ctx:puncher { ip = "30.0.2.7" })).__index
      found.relay = getmetatable(assert(ctx:relay())).__index
    end,
  }, new_context "connect")
  with_folder(function(folder)
    local node <close> = new_node(folder)
    found.node = getmetatable(node).__index
  end)
  return found
end

describe("lua/meta", function()
  it("has each public function that is there, and none that is not", run(function()
    local known, there = documented(), at_run_time()
    assert.same(keys(there), keys(known))
    for owner, object in pairs(there) do
      local expected = functions_of(object)
      for _, name in ipairs(internal[owner] or {}) do
        assert(expected[name], ("%s:%s is called internal, but is not there"):format(owner, name))
        expected[name] = nil
      end
      assert.same(keys(expected), keys(known[owner]), owner)
    end
  end))

  it("names the parameters of each function, and says what it does", function()
    for owner, functions in pairs(documented()) do
      for name, about in pairs(functions) do
        local where = ("%s: %s.%s"):format(about.path, owner, name)
        assert(about.comment:find "^%-%-%- ?%u", where .. " does not say what it does")
        local expected, found = {}, {}
        for parameter in about.parameters:gmatch "[%w_.]+" do expected[#expected + 1] = parameter end
        for parameter in about.comment:gmatch "@param ([%w_.]+)" do found[#found + 1] = parameter end
        assert.same(expected, found, where)
      end
    end
  end)

  it("is what :help prints", function()
    local help = require "p2pd.repl.help"
    local function plain(_, text) return text end
    for owner, functions in pairs(documented()) do
      for name, about in pairs(functions) do
        local text = assert(help.about(owner .. "." .. name, plain, 10000))
        local first = about.comment:match "^%-%-%- ?([^\n]+)"
        assert(text:find(first, 1, true), ("%s.%s: %s"):format(owner, name, text))
      end
    end
    for _, path in ipairs(files("lua/doc", "%.md$")) do assert(help.about(path:match "(%w+)%.md$", plain, 80)) end
  end)

  it("is Lua that loads", function()
    for _, path in ipairs(files("lua/meta", "%.lua$")) do
      assert(loadfile(path))
      assert(read(path):find "^%-%-%-@meta p2pd", path)
    end
  end)

  it("knows the fields of the library's parts, and the options that the code takes", function()
    assert.same({
      "address", "clock", "lab", "nat", "netcheck", "nic", "pipeline", "portmap", "punch", "reach", "settings", "stun",
      "timeline", "turn",
    }, keys(fields "p2pd"))
    local source = read "lua/p2pd/node.lua"
    for class, variable in pairs {
      ["p2pd.NodeOptions"] = "node_options", ["p2pd.ConnectOptions"] = "connect_options",
    } do
      local taken = {}
      for name in source:match("local " .. variable .. " = (%b{})"):gmatch "([%w_]+) = \"" do taken[name] = true end
      assert.same(keys(taken), keys(fields(class)), class)
    end
    local strategy = {}
    for name in pairs(fields "p2pd.Strategy") do strategy[name] = true end
    local code = read "lua/p2pd/strategy.lua" .. read "lua/p2pd/context/opening.lua"
    for name in code:match("local strategy_fields = (%b{})"):gmatch "([%w_]+) = \"" do
      assert(strategy[name], name)
      strategy[name] = nil
    end
    assert.same({}, strategy)
    local dial = {}
    for name in code:match("local dial_options = (%b{})"):gmatch "([%w_]+) = \"" do dial[name] = true end
    assert.same(keys(dial), keys(fields "p2pd.DialOptions"))
  end)

  it("knows the lists of the settings", function()
    assert.same(keys(assert(p2pd.settings.from {})), keys(fields "p2pd.Settings"))
  end)

  it("knows the fields of an address", function()
    local vectors = require "cjson".decode(read "spec/vectors/address_valid.json")
    local text = "0,1-[1,0,8.8.8.8,192.168.21.21,58959,3,2,0]-0-zmUGXPOFxUBuToh-easdasd"
    local parsed = assert(p2pd.address.parse(text))
    assert.same(keys(parsed), keys(fields "p2pd.Address"))
    assert.same(keys(parsed.ipv4[1]), keys(fields "p2pd.Interface"))
    assert(#keys(vectors) > 0)
  end)
end)

-- Texts -----------------------------------------------------------------------------------------------------------

local texts = files("lua/doc", "%.md$")
table.insert(texts, "README.md")

-- The fenced blocks of a language, in their order.
local function blocks(path, language)
  local found = {}
  for block in ("\n" .. read(path)):gmatch("\n```" .. language .. "\n(.-)\n```") do found[#found + 1] = block end
  return found
end

local function define(path, name)
  local text = read(path):gsub("\\\n", " ")
  local value = text:match("#define " .. name .. "%s+(%b())") or text:match("#define " .. name .. "%s+(%d+)")
  return load("return " .. assert(value, name))()
end

local function written(path, pattern)
  return math.tointeger((assert(read(path):match(pattern), pattern)))
end

local function strangers(pattern)
  return written("lua/p2pd/strangers.lua", pattern)
end

local program = luv.fs_realpath(BUILD .. "/p2pd-lua")

-- What a command prints, and its exit status.
local function output_of(command)
  local stream = assert(io.popen(command .. " 2>&1"))
  local text = stream:read "a"
  return text, select(3, stream:close())
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

-- Runs a command in the folder as a user's who has no servers in his settings; its libraries are those of the build.
local function run_quietly(folder, command)
  local settings = folder .. "/p2pd-lua/settings.lua"
  luv.fs_mkdir(folder .. "/p2pd-lua", 448) -- 0700
  write(settings, "return { mqtt = {}, stun = {}, turn = {}, ntp = {} }")
  luv.fs_chmod(settings, 384) -- 0600
  local variables = ("-u P2PD_LUA XDG_CONFIG_HOME='%s' XDG_DATA_HOME='%s' LUA_CPATH='%s/?.so;;'"):format(folder, folder,
    luv.fs_realpath(BUILD))
  return output_of(("cd '%s' && env %s timeout 20 %s"):format(folder, variables, command))
end

describe("the guide and the README", function()
  it("link to what is there", function()
    local count = 0
    for _, path in ipairs(texts) do
      local folder = path:match "^(.*)/" or "."
      for target in read(path):gmatch "%]%(([^)#]+)[^)]*%)" do
        assert(not target:find "^%a+:", path .. " links to the outside: " .. target)
        assert(luv.fs_stat(folder .. "/" .. target), path .. " links to nothing: " .. target)
        count = count + 1
      end
    end
    assert(count > 10)
  end)

  it("have no blocks but Lua, which is run below, and what is shown of terminals and wires", function()
    for _, path in ipairs(texts) do
      local open = false
      for words in ("\n" .. read(path)):gmatch "\n```([^\n]*)" do
        open = not open
        assert(words == "" or open and words == "lua", ("%s: a block of '%s'"):format(path, words))
      end
      assert(not open, path .. ": a block has no end")
    end
  end)

  it("have pages of the guide that are read in one go", function()
    for _, name in ipairs { "reports", "security", "embedding" } do
      local _, lines = read("lua/doc/" .. name .. ".md"):gsub("\n", "\n")
      assert(lines < 100, name)
    end
  end)

  it("name the codes of core/err.h with their meanings, and libuv's by libuv's names", function()
    local text, own, listed = read "lua/doc/errors.md", {}, {}
    for name, sentence in read("core/err.h"):gmatch "X%((E%w+), %-%d+, \"(.-)\"%)" do own[name] = sentence end
    own.EBUDGET = "the budget around a strategy is spent" -- Lua's alone
    local first, second = text:match "## Codes of our own(.-)\n## Codes of the system(.*)"
    for name, sentence in first:gmatch "\n| `(E%w+)` | (.-) |" do listed[name] = sentence end
    assert.same(own, listed)
    local system = { EOF = true, EAI_NONAME = true, EAI_AGAIN = true }
    for name in read("/usr/include/uv.h"):gmatch "XX%((E%w+)," do system[name] = true end
    for cell in second:gmatch "\n| (`.-) |" do
      for name in cell:gmatch "`([%w_]+)`" do assert(system[name], name .. " is no code of libuv's") end
    end
    local alias = read "lua/meta/p2pd.lua":match "@alias p2pd.Code\n(.-)\n\n"
    for name, sentence in pairs(own) do
      assert(alias:find(("\"%s\" %s\n"):format(name, sentence), 1, true), "p2pd.Code lacks " .. name)
    end
  end)

  it("name every code that the Lua files make", function()
    local text = read "lua/doc/errors.md"
    for _, path in ipairs(core.source.list()) do
      if path:find "^lua/p2pd/.*%.lua$" and not path:find "repl" or path:find "^scripts/" then
        for code in read(path):gmatch "\"(E[A-Z0-9][A-Z0-9_]+)\"" do
          assert(text:find("`" .. code .. "`", 1, true), ("%s: %s is in no table of errors.md"):format(path, code))
        end
      end
    end
  end)

  it("have the numbers of the code", function()
    local KIB = 1024
    for _, claim in ipairs {
      { "lua/doc/pipes.md", "more than %d KiB wait", define("core/pipe.h", "PIPE_HIGH_WATER") // KIB },
      { "lua/doc/pipes.md", "until less than %d KiB do", define("core/pipe.h", "PIPE_LOW_WATER") // KIB },
      { "lua/doc/pipes.md", "at most %d seconds", define("core/pipe.h", "PIPE_LINGER_MS") // 1000 },
      { "lua/doc/pipes.md", "takes about %d KiB", define("core/pipe_flow.c", "SAVE_SIZE") // KIB },
      { "lua/doc/pipes.md", "handshakes under way | %d;", define("core/listener.c", "CROWD") },
      { "lua/doc/pipes.md", "from accept to commit | %d s", written("core/listener.c", "patience_ms = (%d+)") // 1000 },
      { "lua/doc/pipes.md", "key is proven | %d KiB", define("core/tls.h", "TLS_HANDSHAKE_LIMIT") // KIB },
      { "lua/doc/pipes.md", "%d in the listener", written("core/listener.c", "untaken = (%d+)") },
      { "lua/doc/pipes.md", "at one time | %d |", define("core/listener.h", "LISTENER_ARRIVALS") },
      { "lua/doc/pipes.md", "(%d to", define("core/derive.h", "DERIVE_PORT_FIRST") },
      { "lua/doc/pipes.md", "to %d)", define("core/derive.h", "DERIVE_PORT_LAST") },
      { "lua/doc/signaling.md", "at most %d bytes", define("core/seal.h", "SEAL_MAX_MESSAGE") },
      { "lua/doc/signaling.md", "leaves %d for the body", define("core/seal.h", "SEAL_MAX_MESSAGE") - 171 },
      { "lua/doc/signaling.md", "beyond %d seconds", define("core/inbox.h", "INBOX_WINDOW_MS") // 1000 },
      { "lua/doc/signaling.md", "(%d a second", define("core/bucket.h", "BUCKET_MESSAGES_PER_S") },
      { "lua/doc/signaling.md", "second, %d at once", define("core/bucket.h", "BUCKET_MESSAGES_BURST") },
      { "lua/doc/signaling.md", "has %d entries", define("core/addr.h", "ADDR_BROKERS") },
      { "lua/doc/signaling.md", "has %d requests for reverse", strangers "REQUESTS, PER = { reverse = (%d+)" },
      { "lua/doc/signaling.md", "and %d of each other kind", strangers "OTHER_REQUESTS = (%d+)" },
      { "lua/doc/signaling.md", "one), %d are answered at one time", strangers "MAX_ANSWERING = (%d+)" },
      { "lua/doc/security.md", "at the port | %d;", define("core/listener.c", "CROWD") },
      { "lua/doc/security.md", "one takes %d s", written("core/listener.c", "patience_ms = (%d+)") // 1000 },
      { "lua/doc/security.md", "and %d KiB at most", define("core/tls.h", "TLS_HANDSHAKE_LIMIT") // KIB },
      { "lua/doc/security.md", "opened | %d a second", define("core/bucket.h", "BUCKET_MESSAGES_PER_S") },
      { "lua/doc/security.md", "at most %d bytes", define("core/seal.h", "SEAL_MAX_MESSAGE") },
      { "lua/doc/security.md", "| %d for reverse", strangers "REQUESTS, PER = { reverse = (%d+)" },
      { "lua/doc/security.md", "reverse in %d seconds", strangers "PER = { reverse = %d+ }, (%d+)" },
      { "lua/doc/security.md", "%d of each other kind", strangers "OTHER_REQUESTS = (%d+)" },
      { "lua/doc/security.md", "answered at one time | %d,", strangers "MAX_ANSWERING = (%d+)" },
      { "lua/doc/security.md", "conversations | %d |", written("lua/p2pd/signaling.lua", "MAX_TALKS = (%d+)") },
      { "lua/doc/security.md", "by dialing %d in", strangers "SYNS, SYNS_EACH = (%d+)" },
      { "lua/doc/security.md", "by punching 2,%03d in", strangers "BURST = (%d+)" - 2000 },
      { "lua/doc/security.md", "more than %d one at a time", strangers "SPRAY = (%d+)" },
      { "lua/doc/punching.md", "at most 2,%03d SYNs in a minute", strangers "BURST = (%d+)" - 2000 },
      { "lua/doc/punching.md", "of more than %d SYNs one", strangers "SPRAY = (%d+)" },
      { "lua/doc/punching.md", "with %d SYNs a burst", written("lua/p2pd/context/punching.lua", "FEW = (%d+)") },
      { "lua/doc/punching.md", "ask %d times", strangers "OTHER_REQUESTS = (%d+)" },
    } do
      local path, text = claim[1], claim[2]:format(claim[3])
      assert(read(path):gsub("%s+", " "):find(text, 1, true), ("%s does not say '%s'"):format(path, text))
    end
  end)

  it("name the counters of signaling", function()
    local listed, there = { accepted = true }, {}
    for name in read("lua/doc/signaling.md"):gmatch "\n| `(%l+)` | " do listed[name] = true end
    for name in ("kind id re from talk more age"):gmatch "%w+" do listed[name] = nil end
    for name in read("core/inbox.h"):gmatch "X%((%l+), \"" do there[name] = true end
    assert.same(keys(there), keys(listed))
  end)

  it("draw what goes over the wire as the headers do", function()
    for header, path in pairs { ["core/seal.h"] = "lua/doc/signaling.md", ["core/pipe.h"] = "lua/doc/pipes.md" } do
      local text, count = read(path), 0
      for line in read(header):gmatch "[^\n]+" do
        local drawn = line:match "^ %*%s+(|.*|)" or line:match "^ %*%s+(%+%-.*%+)"
        if drawn then
          assert(text:find(drawn, 1, true), path .. " lacks " .. drawn)
          count = count + 1
        end
      end
      assert(count >= 6)
    end
  end)
end)

describe("the README", function()
  it("has a script of ten lines that works", function()
    local script = blocks("README.md", "lua")[1]
    local lines = 0
    for _ in script:gmatch "[^\n]+" do lines = lines + 1 end
    assert.equal(10, lines)
    with_folder(function(folder)
      write(folder .. "/hello.lua", script)
      local text, status = run_quietly(folder, ("'%s' hello.lua"):format(program))
      assert(text:find "direct%s+%S+:%d+%s+hello %w+\n$", text)
      assert.equal(0, status, text)
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
    local text, status = output_of(("timeout 60 '%s' demo </dev/null"):format(program))
    assert.equal(0, status, text)
    assert.equal(shape(shown .. "\n"), shape(text))
  end)

  it("lists the options of the built-in programs", function()
    local programs, listed, there = { "listen", "connect", "netcheck", "demo", "strategies" }, {}, {}
    for option, of in read("README.md"):gmatch "\n| `(%-%-[%w-]+)[^`]*` | ([%w, ]+) |" do
      for name in (of == "all" and table.concat(programs, ", ") or of):gmatch "%w+" do
        listed[name .. " " .. option] = true
      end
    end
    for _, name in ipairs(programs) do
      local text, status = output_of(("timeout 20 '%s' %s --help"):format(program, name))
      assert.equal(0, status, text)
      for option in text:gmatch "\n  (%-%-[%w-]+)" do there[name .. " " .. option] = true end
    end
    assert.same(keys(there), keys(listed))
  end)

  it("names in its table of the API what lua/meta has", function()
    local known, rows = documented(), 0
    local owners = {
      ["`p2pd`"] = "p2pd", node = "node", pipe = "pipe", ["task, group"] = "task", channel = "channel",
      ["`p2pd.address`"] = "address", ["`p2pd.pipeline`"] = "pipeline", ["strategy, ctx"] = "ctx", report = "report",
      ["`p2pd.settings`"] = "settings", ["`p2pd.lab`"] = "lab", ["`p2pd.clock`"] = "clock", ["`p2pd.nat`"] = "nat",
      ["`p2pd.nic`"] = "nic", ["`p2pd.portmap`"] = "portmap", ["`p2pd.stun`"] = "stun",
      ["`p2pd.netcheck`"] = "netcheck", ["`p2pd.reach`"] = "reach", ["`p2pd.punch`"] = "punch",
      ["`p2pd.turn`"] = "turn", ["`p2pd.timeline`"] = "timeline",
    }
    for part, names, link in read("README.md"):gmatch "\n| ([^|]-) | ([^|]-) | %[[%w.]+%]%((lua/meta/%w+%.lua)%) |" do
      local owner = assert(owners[part], part)
      local class = { pipe = "p2pd.Pipe", task = "p2pd.Task" }
      for name in names:gmatch "`([%w_]+)`" do
        local there = known[owner][name] or owner == "task" and known.group[name]
          or class[owner] and fields(class[owner])[name]
        assert(there, ("README: %s has no %s"):format(part, name))
      end
      assert(luv.fs_stat(link), link)
      rows = rows + 1
    end
    assert.equal(#keys(owners), rows)
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
        local ctx = new_context("connect", { dial = function(options) dialed = options return pipe end }, "8.8.8.8")
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
        local text, ended = run_quietly(folder, command .. " it_spec.lua")
        assert.equal(status, ended, text)
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
    local ctx = new_context("connect", {
      request = function(fields_) return { kind = fields_.kind, from = here } end,
      dial = function(options) dialed = options return pipe end,
    })
    assert.equal(pipe, p2pd.pipeline.run(ask, ctx))
    assert.equal("30.0.2.7", dialed.ip)
    assert.equal(4242, dialed.port)
    local answered
    ctx = new_context("respond", {
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
      local ctx = new_context(role, {
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
    local pipe, _, code = p2pd.pipeline.run(shuffled { fails, fails, fails }, new_context "connect")
    assert.is_nil(pipe)
    assert.equal("EIO", code)
    assert.equal(3, tried)
  end))
end)
