require "p2pd"
local core = require "p2pd.core"
local luv = require "luv"
local servers = require "p2pd.servers"
local settings = require "p2pd.settings"

local function with_file(text, check, mode)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  luv.fs_chmod(path, mode or 384) -- 0600
  local ok, message = pcall(check, path)
  os.remove(path)
  if not ok then error(message, 0) end
end

local function refused(text, pattern, code)
  with_file(text, function(path)
    local got, message, got_code = settings.read(path)
    assert.is_nil(got)
    assert.equal(code or "EINVAL", got_code)
    assert.matches(pattern, message)
    assert.matches("^" .. got_code .. ": ", message)
  end)
end

describe("settings", function()
  it("take the built-in lists where none is given", function()
    local got = assert(settings.from { mqtt = {} })
    assert.same({}, got.mqtt)
    assert.equal(servers.stun, got.stun)
  end)

  it("have a clock error of none unless one is given", function()
    assert.equal(0, assert(settings.from {}).clock_error)
    assert.equal(-2.5, assert(settings.from { clock_error = -2.5 }).clock_error)
  end)

  it("keep the brokers in the order of the protocol's list", function()
    local cjson = require "cjson"
    local file = assert(io.open "spec/vectors/servers.json")
    local list = cjson.decode(file:read "a").mqtt
    file:close()
    assert.equal(#list, #servers.mqtt)
    for i, entry in ipairs(list) do
      assert.equal(i - 1, entry.offset)
      local ip = entry.ip4 ~= cjson.null and entry.ip4 or entry.ip6
      assert.equal(core.address.ip(ip).text, core.address.ip(servers.mqtt[i].host).text)
      assert.equal(entry.port, servers.mqtt[i].port)
    end
  end)

  it("come from a file that returns a table", function()
    with_file("local port = 1000 + 883 return { mqtt = {{ host = 'a.example', port = port, tls = true }} }",
      function(path)
        assert.same({ { host = "a.example", port = 1883, tls = true } }, assert(settings.read(path)).mqtt)
      end)
  end)

  it("name what is wrong in them, and where", function()
    refused("return { mqt = {} }", "unknown setting 'mqt'")
    refused("return { mqtt = 3 }", "mqtt is no list")
    refused("return { mqtt = { 'x' } }", "mqtt%[1%] is no table")
    refused("return { mqtt = {{ host = 'x', port = 0 }} }", "mqtt%[1%].port is not from 1 to 65535")
    refused("return { mqtt = {{ host = 'x', port = 1.5 }} }", "port is not from 1")
    refused("return { mqtt = {{ host = 'x' }} }", "mqtt%[1%].port is nil, not a number")
    refused("return { stun = {{ host = '', port = 1 }} }", "stun%[1%].host is no host name")
    refused("return { stun = {{ host = 'x', port = 1, tls = true }} }", "unknown field 'tls'")
    refused("return { clock_error = '1' }", "clock_error is 1, not a number of seconds")
    refused("return { clock_error = 0/0 }", "clock_error is .?nan, not a number of seconds")
    refused("return { clock_error = 1e300 }", "clock_error is 1e%+300, not a number of seconds")
    refused("return 7", "does not return a table")
    refused("return {", "<eof>")
  end)

  it("can do nothing but return a table", function()
    refused("os.execute 'true' return {}", "global 'os'")
    refused("while true do end", "runs for too long")
    refused("\27Lua", "binary chunk")
  end)

  it("are refused when others may write them, or when they are huge or no file", function()
    with_file("return {}", function(path)
      local got, message, code = settings.read(path)
      assert.is_nil(got)
      assert.equal("EACCES", code)
      assert.matches("chmod go%-w", message)
    end, 438) -- 0666
    refused(("-"):rep(300 * 1024), "larger than 256 KiB", "EFBIG")
    assert.equal("ENOENT", select(3, settings.read "/nonexistent/settings.lua"))
    assert.equal("EINVAL", select(3, settings.read "/"))
  end)

  it("throw at the caller when the argument is of the wrong kind", function()
    assert.has_error(function() settings.load(7) end, "settings are a table or the path of a file")
  end)
end)
