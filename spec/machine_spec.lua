-- What machines may do to a node: it says what is wrong.
-- check: alone
local luv = require "luv"
local processes = require "spec.support.processes"
local program = require "spec.support.program"
local texts = require "spec.support.texts"

local has = texts.has

local SLOW = os.getenv "P2PD_SANITIZED" and 5 or 1 -- times that everything may take longer

describe("a machine", function()
  local own, settings

  setup(function()
    own = program.folder()
    settings = own:write("settings.lua", "return { mqtt = {}, stun = {}, ntp = {} }\n")
    luv.fs_chmod(settings, 384)
  end)
  teardown(function() processes.remove(tostring(own)) end)

  local function listen(key, ...)
    return { program.path, "listen", "--key", key, "--bind", "127.0.0.1", ... }
  end

  local function fails(options, code, part)
    local it = program.run(options)
    assert.equal(1, it.status, it.err)
    has(it.err, "p2pd-lua listen: " .. code .. ": ")
    has(it.err, part)
    assert.is_nil(it.err:find("traceback", 1, true))
  end

  -- Runs the command of a shell in namespaces of its own; skips the test where that is not allowed.
  local function apart(flags, script, ...)
    local root = luv.getuid() == 0
    local command = { "/usr/bin/env", "unshare", (root and "-" or "-r") .. flags, "/bin/sh", "-c", script, ... }
    local probe = table.move(command, 1, 5, 1, {})
    probe[6] = "true"
    if not processes.which "unshare" or program.run(probe).status ~= 0 then
      pending("namespaces of one's own are not allowed here")
    end
    return command
  end

  it("may have no room for the key: nothing is left of it", function()
    local full = tostring(own) .. "/full"
    assert(luv.fs_mkdir(full, 448))
    local script = ([[mount -t tmpfs -o size=4k none %s && head -c 4096 /dev/zero >%s/fill || exit 77
      "$0" "$@"; status=$?; ls -A %s; exit $status]]):format(full, full, full)
    local it = program.run(apart("m", script, table.unpack(listen(full .. "/key.pem", "--settings", settings))))
    if it.status == 77 then pending("nothing can be mounted here") end
    assert.equal(1, it.status, it.err)
    has(it.err, "ENOSPC: cannot write the key file " .. full .. "/key.pem: no space left on device")
    assert.equal("fill\n", it.out)
  end)

  it("may have no place for the key", function()
    fails(listen("/proc/none/key.pem", "--settings", settings), "ENOENT", "/proc/none")
    fails(listen("/dev/null", "--settings", settings), "EINVAL", "no regular file")
    fails(listen(tostring(own), "--settings", settings), "EINVAL", "no regular file")
    fails(listen(settings, "--settings", settings), "EFORMAT", "settings.lua")
  end)

  it("may have a settings file that others can write, that cannot be read, or that is none", function()
    local key, path = tostring(own) .. "/key.pem", own:write("bad.lua", "return { mqtt = {} }")
    for _, mode in ipairs { 438, 420 | 16, 420 | 2 } do -- 0666, 0664, 0646
      luv.fs_chmod(path, mode)
      fails(listen(key, "--settings", path), "EACCES", "others may write it")
    end
    luv.fs_chmod(path, 384)
    fails(listen(key, "--settings", tostring(own)), "EINVAL", "it is no file")
    fails(listen(key, "--settings", "/dev/zero"), "EINVAL", "it is no file")
    fails(listen(key, "--settings", tostring(own) .. "/none.lua"), "ENOENT", "none.lua")
    fails(listen(key, "--settings", own:write("loop.lua", "while true do end")), "EINVAL", "runs for too long")
    local deep = own:write("deep.lua", "return " .. ("{"):rep(300) .. ("}"):rep(300))
    fails(listen(key, "--settings", deep), "EINVAL", "deep.lua")
    assert.is_nil((luv.fs_stat(key)))
    local command = listen(key, "--settings", path)
    if luv.getuid() == 0 then
      if not processes.which "setpriv" then pending("setpriv is needed to be another user than root") end
      luv.fs_chmod(tostring(own), 493)
      for i, word in ipairs { "/usr/bin/env", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups" } do
        table.insert(command, i, word)
      end
    else
      luv.fs_chmod(path, 0)
    end
    if program.run(table.move(command, 1, 6, 1, { [7] = "-v" })).status ~= 0 and luv.getuid() == 0 then
      pending("the program cannot be run by another user from where it was built")
    end
    fails(command, "EACCES", "permission denied")
  end)

  it("may have no network at all", function()
    local key = tostring(own) .. "/key.pem"
    local began = luv.hrtime()
    local it = program.run(apart("n", '"$0" "$@"', program.path, "listen", "--settings", settings, "--key", key))
    assert.equal(1, it.status)
    has(it.err, "p2pd-lua listen: EADDRNOTAVAIL: no network interface is up")
    it = program.run(apart("n", '"$0" "$@"', program.path, "connect", "--settings", settings, "--key", key,
      "0-[1,0,8.8.8.8,192.168.1.2,4000,5,6,0]-0-efi8aXby8oz2Ac23ZTNq42xGYmC7QEHyHeSiyowiVAoU-b"))
    assert.equal(1, it.status)
    has(it.err, "EADDRNOTAVAIL: no network interface is up")
    assert.is_true((luv.hrtime() - began) / 1e9 < 4 * SLOW)
  end)

  it("may have loopback alone, and built-in brokers that no packet reaches", function()
    local key = tostring(own) .. "/key.pem"
    local child <close> = program.start(apart("n", 'ip link set lo up || exit 77; exec "$0" "$@"',
      program.path, "listen", "--json", "--key", key))
    program.await(function() return child.err:find '"address"' or child.status end)
    if child.status == 77 then pending("ip is not installed") end
    has(child.err, "no broker can be reached")
    assert.matches("127%.0%.0%.1,127%.0%.0%.1", child.err)
    child:kill "sigterm"
    assert.equal(143, child:wait())
  end)
end)
