local run = require "spec.support.run"
local strangers = require "p2pd.strangers"
local task = require "p2pd.task"

local IP, OTHER = "30.1.2.3", "30.1.2.4"

describe("strangers", function()
  it("may ask to be dialed thrice a minute, and for other things 120 times; each for itself", run.virtual(function()
    local here = strangers.new()
    for _ = 1, 3 do assert.is_true(here:may_ask("a", "reverse")) end
    assert.is_false(here:may_ask("a", "reverse"))
    assert.is_true(here:may_ask("b", "reverse"))
    for _ = 1, 120 do assert.is_true(here:may_ask("a", "punch")) end
    assert.is_false(here:may_ask("a", "punch"))
    task.sleep(61)
    assert.is_true(here:may_ask("a", "reverse"))
  end))

  it("are answered side by side, and no one of them leaves no room for others", run.virtual(function()
    local here, ends = strangers.new(), {}
    local function enter_all(peer)
      local count = 0
      while true do
        local leave = here:enter(peer)
        if not leave then return count end
        count = count + 1
        ends[#ends + 1] = leave
      end
    end
    assert.same({ 128, 64, 32 }, { enter_all "a", enter_all "b", enter_all "c" })
    for _, leave in ipairs(ends) do leave() end
    assert.same({ {}, 0 }, { here.answering, here.answered })
  end))

  it("are not remembered without bound", run.virtual(function()
    local here = strangers.new()
    for i = 1, 2000 do here:may_ask(tostring(i), "reverse") end
    assert.is_true(here.peers <= 256)
    for i = 1, 2000 do
      local lease = here:burst(("30.1.%d.%d"):format(i // 200, i % 200), 1)
      if lease then lease:close(1) end
    end
    local count = 0
    for _ in pairs(here.bursts) do count = count + 1 end
    assert.is_true(count <= 256)
  end))

  it("get 2048 SYNs a minute sent to an address, whoever asks; what was not sent is given back", run.virtual(function()
    local here = strangers.new()
    local first = assert(here:burst(IP, 1024))
    first:close(1000)
    first:close(0) -- once is enough
    local second = assert(here:burst(IP, 2000))
    assert.equal(1048, second.syns)
    second:close(1048)
    local none, message, code = here:burst(IP, 1)
    assert.is_nil(none)
    assert.equal("EAGAIN", code)
    assert.truthy(message:find(IP, 1, true))
    assert(here:burst(OTHER, 1)):close(1)
    task.sleep(61)
    assert.equal(2048, assert(here:burst(IP, 5000)).syns)
  end))

  it("wait where others that are under way may give something back", run.virtual(function()
    local here = strangers.new()
    local first = assert(here:burst(IP, 150))
    for _ = 1, 12 do assert(here:burst(IP, 150)) end
    assert(here:burst(IP, 98))
    local began = task.now()
    local waiting = task.spawn(function() return assert(here:burst(IP, 100)).syns, task.now() end)
    task.sleep(1)
    first:close(50)
    local syns, at = waiting:wait()
    assert.equal(100, syns)
    assert.near(1, at - began, 1e-6)
  end))

  it("cost nothing once they have proven to be there", run.virtual(function()
    local here = strangers.new()
    assert(here:burst(IP, 2048)):close(2048, true)
    assert.equal(2048, assert(here:burst(IP, 2048)).syns)
  end))

  it("are sprayed one at a time, and others go on beside it", run.virtual(function()
    local here = strangers.new()
    local spray = assert(here:burst(IP, 1024))
    local began, second = task.now(), nil
    local waiting = task.spawn(function() second = assert(here:burst(OTHER, 1024)) return task.now() end)
    task.sleep(1)
    assert.is_nil(second)
    assert(here:burst(OTHER, 16)):close(16)
    spray:close(1024)
    assert.near(1, waiting:wait() - began, 1e-6)
    second:close(0)
  end))

  it("are sprayed one at a time, also when both waited for what others give back", run.virtual(function()
    local here = strangers.new()
    local small = {}
    for i = 1, 14 do small[i] = assert(here:burst(IP, 150)) end -- all that there is
    local under_way, most = 0, 0
    local function spray()
      local lease = assert(here:burst(IP, 300))
      under_way = under_way + 1
      most = math.max(most, under_way)
      task.sleep(1)
      under_way = under_way - 1
      lease:close(0)
    end
    local tasks <close> = task.group()
    for _ = 1, 2 do tasks:spawn(spray) end
    task.sleep(1)
    for _, lease in ipairs(small) do lease:close(0) end
    for _, one in ipairs(tasks) do one:wait() end
    assert.equal(1, most)
  end))

  it("that are dialed in vain twice with all SYNs are not dialed again within the minute", run.virtual(function()
    local here = strangers.new()
    local dials = 0
    local function in_vain() dials = dials + 1 task.sleep(8) return nil, "ETIMEDOUT: no", "ETIMEDOUT" end
    for _ = 1, 2 do here:dial(IP, in_vain) end
    local _, _, code = here:dial(IP, in_vain)
    assert.same({ "EAGAIN", 2 }, { code, dials })
  end))
end)
