-- meta: what is public is documented, what is documented is there, and what the texts say about the code holds.
local p2pd = require "p2pd"
local annotations = require "p2pd.repl.annotations"
local core = require "p2pd.core"
local luv = require "luv"
local report = require "p2pd.report"
local contexts = require "spec.support.contexts"
local processes = require "spec.support.processes"
local run = require "spec.support.run"

local BUILD = os.getenv "P2PD_BUILD" or "build"

local read = processes.read

local function keys(map)
  local list = {}
  for key in pairs(map) do list[#list + 1] = key end
  table.sort(list)
  return list
end

-- lua/meta --------------------------------------------------------------------------------------------------------

-- All that is described, with the path of each.
local function entries()
  local all = {}
  for _, path in ipairs(processes.find("lua/meta", "%.lua$")) do
    for _, entry in ipairs((annotations.parse(read(path)))) do
      entry.path = path
      all[#all + 1] = entry
    end
  end
  return all
end

-- Each documented function, by the name of its table and its own.
local function documented()
  local names = {}
  for _, entry in ipairs(entries()) do
    local owner, name = entry.name:match "^([%w_]+)[.:]([%w_]+)$"
    if entry.kind == "function" then
      names[owner] = names[owner] or {}
      names[owner][name] = entry
    end
  end
  return names
end

-- The fields of a documented class, a set.
local function fields(class)
  local found = {}
  for _, entry in ipairs(entries()) do
    for _, item in ipairs(entry.name == class and entry.fields or {}) do
      found[item.name:match "^[%w_]+" or item.name] = true
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
  }, contexts.new "connect")
  processes.with_folder(function(folder)
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
        assert((about.about[1] or ""):find "^%u", where .. " does not say what it does")
        local expected, found = {}, {}
        local inside = about.signature:match "%((.*)%)$"
        for parameter in inside:gmatch "[%w_.]+" do expected[#expected + 1] = parameter end
        for i, item in ipairs(about.params) do found[i] = item.name:gsub("%?$", "") end
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
        assert(text:find(about.about[1], 1, true), ("%s.%s: %s"):format(owner, name, text))
      end
    end
    for _, path in ipairs(processes.find("lua/doc", "%.md$")) do
      assert(help.about(path:match "(%w+)%.md$", plain, 80))
    end
  end)

  it("is Lua that loads", function()
    for _, path in ipairs(processes.find("lua/meta", "%.lua$")) do
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

local texts = processes.find("lua/doc", "%.md$")
table.insert(texts, "README.md")

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
  it("lists the options of the built-in programs", function()
    local programs, listed, there = { "listen", "connect", "netcheck", "demo", "strategies" }, {}, {}
    for option, of in read("README.md"):gmatch "\n| `(%-%-[%w-]+)[^`]*` | ([%w, ]+) |" do
      for name in (of == "all" and table.concat(programs, ", ") or of):gmatch "%w+" do
        listed[name .. " " .. option] = true
      end
    end
    for _, name in ipairs(programs) do
      local text, status = processes.output_of(("timeout 20 '%s' %s --help"):format(program, name))
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
