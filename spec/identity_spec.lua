local cjson = require "cjson"
local core = require "p2pd.core"

local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."

local function vectors(name)
  local file <close> = assert(io.open(("%s/vectors/%s.json"):format(here, name)))
  return cjson.decode(file:read("a"))
end

local function unhex(text)
  return (text:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local output = pipe:read("a")
  return pipe:close(), output
end

-- A private key as the openssl program writes it, from its secret and its public point (SEC 1, RFC 5915).
local function pem_of(secret)
  local der = "\x30\x31\x02\x01\x01\x04\x20" .. unhex(secret) .. "\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
  local name = os.tmpname()
  do
    local file <close> = assert(io.open(name, "wb"))
    file:write(der)
  end
  local ok, text = run(("openssl ec -inform DER -in %s"):format(name))
  os.remove(name)
  assert(ok, text)
  return text:match("%-%-%-%-%-BEGIN.*")
end

describe("identity", function()
  local folder

  before_each(function()
    local ok, name = run("mktemp -d")
    assert(ok)
    folder = name:gsub("%s+$", "")
  end)

  after_each(function() run(("rm -rf '%s'"):format(folder)) end)

  local function write(name, text, mode)
    local path = folder .. "/" .. name
    do
      local file <close> = assert(io.open(path, "wb"))
      file:write(text)
    end
    assert(run(("chmod %s '%s'"):format(mode or "600", path)))
    return path
  end

  it("is made at first use and stays the same", function()
    local path = folder .. "/a/b/key.pem"
    local first <close> = assert(core.identity.open { path = path })
    assert.is_true(first:made())
    local id, public = first:id(), first:public()
    assert.equal(33, #public)
    assert.equal(path, first:path())
    local second <close> = assert(core.identity.open { path = path })
    assert.is_false(second:made())
    assert.equal(id, second:id())
    assert.equal(public, second:public())
    assert.equal("identity " .. id, tostring(second))
    local _, modes = run(("stat -c %%a '%s' '%s/a' '%s/a/b'"):format(path, folder, folder))
    assert.equal("600\n700\n700\n", modes)
  end)

  it("is a key that the openssl program reads", function()
    local identity <close> = assert(core.identity.open { path = folder .. "/key.pem" })
    local ok, text = run(("openssl ec -in '%s/key.pem' -text -noout -conv_form compressed"):format(folder))
    assert(ok, text)
    local digits = text:match("pub:(.-)ASN1 OID"):gsub("[%s:]", "")
    assert.equal(identity:public(), unhex(digits))
    assert(text:find("prime256v1", 1, true))
  end)

  it("is read from a key that the openssl program made", function()
    for i, command in ipairs {
      "openssl ecparam -name prime256v1 -genkey -noout", "openssl ecparam -name prime256v1 -genkey",
      "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    } do
      local path = ("%s/key%d.pem"):format(folder, i)
      assert(run(("(umask 077; %s -out '%s')"):format(command, path)))
      local identity <close> = assert(core.identity.open { path = path })
      assert.is_false(identity:made())
    end
  end)

  it("is refused when others can read it", function()
    local path = folder .. "/key.pem"
    assert(core.identity.open { path = path }):close()
    assert(run(("chmod 644 '%s'"):format(path)))
    local identity, message, code = core.identity.open { path = path }
    assert.is_nil(identity)
    assert.equal("EPERM", code)
    assert(message:find(path, 1, true) and message:find("chmod 600", 1, true), message)
  end)

  it("is refused when it is something else, and left alone", function()
    local path = write("key.pem", "my notes")
    local identity, message, code = core.identity.open { path = path }
    assert.is_nil(identity)
    assert.equal("EFORMAT", code)
    assert(message:find(path, 1, true) and message:find("P-256", 1, true), message)
    local file <close> = assert(io.open(path))
    assert.equal("my notes", file:read("a"))
  end)

  it("can be locked by one at a time", function()
    local options = { path = folder .. "/key.pem", lock = true }
    local first = assert(core.identity.open(options))
    local second, message, code = core.identity.open(options)
    assert.is_nil(second)
    assert.equal("EBUSY", code)
    assert(message:find("another process", 1, true), message)
    assert(core.identity.open { path = options.path }):close()
    first:close()
    assert(core.identity.open(options)):close()
  end)

  it("closes once and for all", function()
    local identity = assert(core.identity.open { path = folder .. "/key.pem" })
    identity:close()
    identity:close()
    for _, method in ipairs { "id", "public", "path", "made" } do
      local value, message, code = identity[method](identity)
      assert.is_nil(value)
      assert.equal("ECLOSED", code)
      assert(message:find("^ECLOSED: "), message)
    end
    assert.equal("ECLOSED", (select(3, identity:unseal("x"))))
    assert.equal("ECLOSED", (select(3, identity:seal("x", "x"))))
    assert.equal("identity (closed)", tostring(identity))
  end)

  it("throws for wrong arguments", function()
    for _, bad in ipairs { { pth = "x" }, { path = 7 }, { lock = "yes" }, "x" } do
      assert.has_error(function() core.identity.open(bad) end)
    end
    assert.has_error(function() core.identity.random(0) end)
    assert.has_error(function() core.identity.random(65) end)
  end)

  it("has machine ids as the vectors do not show them raw", function()
    local id = core.identity.machine_id()
    assert(id:find("^%x+$") and #id == 64 and id == id:lower())
    assert.equal(id, core.identity.machine_id())
    local file <close> = io.open("/etc/machine-id")
    local raw = file and file:read("l")
    if raw and #raw > 0 and raw ~= "uninitialized" then
      assert.is_nil(id:find(raw, 1, true))
      local _, digest = run(("printf %%s '%s' | openssl dgst -sha256 -hmac p2pd"):format(raw))
      assert.equal(digest:match("(%x+)%s*$"), id)
    end
  end)

  it("makes random ids", function()
    local seen = {}
    for _ = 1, 100 do
      local id = core.identity.random(16)
      assert(#id == 32 and id:find("^%x+$") and not seen[id])
      seen[id] = true
    end
  end)

  it("opens the vectors of sealed messages, and refuses what was changed in them", function()
    local vector = vectors("seal")
    local path = write("recipient.pem", pem_of(vector.recipient_secret))
    local recipient <close> = assert(core.identity.open { path = path })
    assert.equal(vector.recipient, recipient:id())
    assert.equal(unhex(vector.recipient_public), recipient:public())
    local opened = 0
    for _, case in ipairs(vector.vectors) do
      local message, text, code = recipient:unseal(unhex(case.sealed))
      if case.status == "OK" then
        assert(message, text)
        assert.equal(vector.sender, message.from)
        assert.equal(vector.time_ms / 1000, message.time)
        assert.equal(vector.id, message.id)
        assert.equal(unhex(vector.body), message.body)
        opened = opened + 1
      else
        assert.is_nil(message, case.note)
        assert.equal(case.status, code, case.note)
      end
    end
    assert.equal(1, opened)
    assert.equal("EMSGSIZE", (select(3, recipient:unseal(("x"):rep(vector.too_long)))))
  end)

  it("seals to one reader", function()
    local alice <close> = assert(core.identity.open { path = folder .. "/alice.pem" })
    local bob <close> = assert(core.identity.open { path = folder .. "/bob.pem" })
    local sealed = assert(alice:seal(bob:id(), "hello\0world"))
    local message = assert(bob:unseal(sealed))
    assert.equal("hello\0world", message.body)
    assert.equal(alice:id(), message.from)
    assert(math.abs(message.time - os.time()) < 5)
    assert.equal("EFOREIGN", (select(3, alice:unseal(sealed))))
    assert.equal("EMSGSIZE", (select(3, alice:seal(bob:id(), ("x"):rep(8192)))))
    assert.equal("EINVAL", (select(3, alice:seal("zmUGXPOFxUBuToh", "hello"))))
  end)
end)
