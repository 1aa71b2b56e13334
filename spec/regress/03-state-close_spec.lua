local processes = require "spec.support.processes"

describe("stock Lua", function()
  local function lua(code)
    local path = os.tmpname()
    processes.write(path, ("package.path, package.cpath = %q, %q\n%s"):format(package.path, package.cpath, code))
    local pipe <close> = assert(io.popen(("timeout 20 lua5.4 %s 2>&1"):format(path)))
    local text = pipe:read "a"
    os.remove(path)
    return text
  end

  it("starts no task while it closes", function()
    local text = lua [[
      local p2pd, luv = require "p2pd", require "luv"
      luv.fs_stat("/", function() io.write(tostring(pcall(p2pd.spawn, print))) end)
    ]]
    assert.equal("false", text)
  end)

  it("keeps its tasks and its loop when the modules are loaded anew", function()
    local text = lua [[
      local p2pd = require "p2pd"
      local kept = p2pd.spawn(function() p2pd.sleep(0.02) return "kept" end)
      for name in pairs(package.loaded) do
        if name == "luv" or name:match "^p2pd" then package.loaded[name] = nil end
      end
      local again = require "p2pd"
      collectgarbage()
      collectgarbage()
      again.run(function() io.write(again.sleep(0.05) or "", kept:wait()) end)
    ]]
    assert.equal("kept", text)
  end)
end)
