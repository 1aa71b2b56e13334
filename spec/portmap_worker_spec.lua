-- What p2pd.portmap makes of what the process that asks routers says.
local luv = require "luv"
local p2pd = require "p2pd"
local program = require "spec.support.program"
local run = require "spec.support.run"

-- The process that asks may say anything, when what a router sent has got hold of it.
describe("what the asking process says", function()
  local program_path, worker = require "p2pd.program_path", require "p2pd.portmap.worker"
  local own = program_path.own
  local folder

  before_each(function() folder = program.folder() end)

  after_each(function()
    program_path.own = own
    getmetatable(folder).__close()
  end)

  local function says(script)
    local path = folder:write("p2pd-lua", "#!/bin/sh\n" .. script .. "\n")
    luv.fs_chmod(path, 493) -- 0755
    function program_path.own() return path end
    return worker.ask({ request = "upnp_find", location = "http://192.168.1.1:5000/x" }, 1)
  end

  it("is bounded in length, in time, and to what it may be", run(function()
    for script, expected in pairs {
      ["yes"] = "EFORMAT: it says too much", ["head -c 5000 /dev/zero"] = "EFORMAT: it says too much",
      ["kill -XCPU $$"] = "ETIMEDOUT: it took too long",
      ["exec sleep 9"] = "ETIMEDOUT: it took too long", ["exec >&-; exec sleep 9"] = "ETIMEDOUT: it took too long",
      ["exit 3"] = "EFORMAT: what it answers broke the process that read it (status 3)",
      ["kill -SEGV $$"] = "EFORMAT: what it answers broke the process that read it (status 139)",
      ["true"] = "EFORMAT: the process that asks the router says what it should not",
      ["echo '{'"] = "EFORMAT: the process that asks the router says what it should not",
      ["echo 7"] = "EFORMAT: the process that asks the router says what it should not",
      [ [[echo '{"message":{},"code":7}']] ] = "EIO: ?",
      [ [[echo '{"message":"EIO: a\u001bb","code":"EIO"}']] ] = "EIO: a?b",
    } do
      local began = p2pd.now()
      local answer, message, code = says(script)
      assert.same({ nil, expected, expected:match "^%u+" }, { answer, message, code }, script)
      assert.is_true(p2pd.now() - began < 1.5, script)
    end
  end))

  it("counts only where each field is what it should be", run(function()
    local good = assert(says [[echo '{"external_ip":"30.2.1.2","external_port":7,"lifetime":60,"name":"x\u0000y",
      "service":{"control":"http://192.168.1.1:80/c","type":"urn:a:b"},"id":"12","more":1}']])
    assert.same({
      external_ip = "30.2.1.2", external_port = 7, lifetime = 60, name = "x?y", id = "12",
      service = { control = "http://192.168.1.1:80/c", type = "urn:a:b" },
    }, good)
    local none = assert(says [[echo '{"external_ip":"30.2.1","external_port":70000,"lifetime":-1,"name":7,
      "service":{"control":"http://192.168.1.2:80/c","type":"urn:a:b"},"id":"1;2","epoch":1.5}']])
    assert.same({}, none)
    for _, control in ipairs {
      "http://name/x", "https://192.168.1.1/x", "http://192.168.1.1", "http://192.168.1.1@x/",
    } do
      assert.same({}, assert(says(([[echo '{"service":{"control":"%s","type":"t"}}']]):format(control))), control)
    end
  end))
end)
