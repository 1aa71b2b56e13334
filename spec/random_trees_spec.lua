-- Random trees of all strategies and combinators, with random delays, failures and cancels: they return what a model
-- says, leak nothing, and report every leaf once.
local pipeline = require "p2pd.pipeline"
local run = require "spec.support.run"
local task = require "p2pd.task"
local world = require "spec.support.world"

local seq, race, stagger = pipeline.seq, pipeline.race, pipeline.stagger
local timeout, retry, when = pipeline.timeout, pipeline.retry, pipeline.when
local only, prefer, budget = pipeline.only, pipeline.prefer, pipeline.budget
local hedge, named = pipeline.hedge, pipeline.named

-- What a tree does, worked out without tasks: a function of the time that it starts at, giving the time that it ends
-- at, the winning rung, and whether it did not apply.
local model = {}

function model.leaf(tree, start)
  if tree.outcome == "skip" then return start, nil, true end
  local connects = tree.outcome == "connect" or tree.outcome == "later" and start >= tree.from
  local ended = start + tree.delay
  if tree.limit and tree.delay > tree.limit then return start + tree.limit end
  return ended, connects and tree or nil
end

local function predict(tree, start)
  return model[tree.kind](tree, start)
end

function model.seq(tree, start)
  local skipped = true
  for _, child in ipairs(tree) do
    local winner, passed
    start, winner, passed = predict(child, start)
    if winner then return start, winner end
    skipped = skipped and passed
  end
  return start, nil, skipped
end

function model.stagger(tree, start)
  local best, winner, last, skipped = math.huge, nil, start, true
  for _, child in ipairs(tree) do
    if start >= best then break end
    local ended, won, passed = predict(child, start)
    if won and ended < best then best, winner = ended, won end
    last, skipped = math.max(last, ended), skipped and passed
    start = won and start + tree.delay or math.min(start + tree.delay, ended)
  end
  if winner then return best, winner end
  return last, nil, skipped
end

model.race = model.stagger

function model.timeout(tree, start)
  local ended, winner, skipped = predict(tree[1], start)
  if ended - start > tree.delay then return start + tree.delay end
  return ended, winner, skipped
end

function model.retry(tree, start)
  for tried = 1, tree.times do
    local winner, skipped
    start, winner, skipped = predict(tree[1], start)
    if winner then return start, winner end
    if skipped then return start, nil, tried == 1 end
  end
  return start
end

function model.when(tree, start)
  if not tree.applies then return start, nil, true end
  return predict(tree[1], start)
end

function model.named(tree, start)
  return predict(tree[1], start)
end

model.budget = model.timeout

function model.hedge(tree, start)
  local ended, winner, skipped = predict(tree[1], start)
  if ended <= start + tree.delay then return ended, winner, skipped end
  local again, second = predict(tree[1], start + tree.delay)
  if winner and (not second or ended <= again) then return ended, winner end
  if second then return again, second end
  return math.max(ended, again)
end

-- A tree without only and prefer is what the model knows: what is left of it, and in the wanted order.

local function pruned(tree, wanted)
  if tree.kind == "leaf" then return (not wanted or wanted[tree.name]) and tree or nil end
  if tree.kind == "only" then return pruned(pruned(tree[1], tree.wanted), wanted) end
  local copy = {}
  for key, value in pairs(tree) do
    if type(key) == "string" then copy[key] = value end
  end
  for _, child in ipairs(tree) do copy[#copy + 1] = pruned(child, wanted) end
  return #copy > 0 and copy or nil
end

local function has(tree, wanted)
  if tree.kind == "leaf" then return wanted[tree.name] end
  for _, child in ipairs(tree) do
    if has(child, wanted) then return true end
  end
end

local function reorder(tree, wanted)
  local first, later = {}, {}
  for i, child in ipairs(tree) do
    reorder(child, wanted)
    table.insert(has(child, wanted) and first or later, child)
    tree[i] = nil
  end
  table.move(first, 1, #first, 1, tree)
  table.move(later, 1, #later, #first + 1, tree)
end

local function ordered(tree)
  for i, child in ipairs(tree) do tree[i] = ordered(child) end
  if tree.kind ~= "prefer" then return tree end
  reorder(tree[1], tree.wanted)
  return tree[1]
end

local function leaves_of(tree, leaves)
  if tree.kind == "leaf" then leaves[#leaves + 1] = tree end
  for _, child in ipairs(tree) do leaves_of(child, leaves) end
  return leaves
end

-- Some of the leaves in a tree, at least one.
local function choose(tree)
  local leaves, wanted = leaves_of(pruned(tree), {}), {}
  wanted[leaves[math.random(#leaves)].name] = true
  for _, leaf in ipairs(leaves) do
    if math.random() < 0.4 then wanted[leaf.name] = true end
  end
  return wanted
end

local outcomes = { "connect", "fail", "fail", "fail", "throw", "skip", "later", "fail" }

local function random_tree(depth, leaves, slow)
  local kinds = {
    "seq", "race", "stagger", "timeout", "retry", "when", "only", "prefer", "budget", "hedge", "named",
    "seq", "stagger",
  }
  if depth == 0 or math.random() < 0.25 then
    local leaf = {
      kind = "leaf", outcome = outcomes[math.random(#outcomes)], delay = math.random() * 3, from = math.random() * 6,
      limit = math.random() < 0.2 and math.random() * 3 or nil, extras = math.random(0, 3),
      habits = math.random(0, 15), slow = slow and math.random() < 0.3 and math.random() or nil,
      name = "leaf" .. #leaves + 1,
    }
    leaves[#leaves + 1] = leaf
    return leaf
  end
  local tree = {
    kind = kinds[math.random(#kinds)], delay = math.random() * 2, times = math.random(3), applies = math.random() < 0.8,
  }
  if tree.kind == "race" then tree.delay = 0 end
  local several = tree.kind == "seq" or tree.kind == "race" or tree.kind == "stagger"
  for i = 1, several and math.random(4) or 1 do tree[i] = random_tree(depth - 1, leaves, slow) end
  tree.wanted = (tree.kind == "only" or tree.kind == "prefer") and choose(tree[1]) or nil
  tree.tries = slow and math.random(4) or nil
  return tree
end

-- Opens what it does not return, starts tasks, swallows cancellations, and closes slowly, as its tree's dice say.
local function make_leaf(tree)
  local function misbehave(ctx)
    for _ = 1, tree.extras do assert(ctx:dial { ip = "8.8.8.8", port = 4000 }) end
    if tree.habits & 1 ~= 0 then assert(ctx:expect()) end
    if tree.habits & 2 ~= 0 then
      ctx:spawn(function()
        while true do
          ctx:sleep(0.4)
          ctx:dial { ip = "8.8.8.8", port = 4000 }
        end
      end)
    end
  end
  local function connect(ctx)
    misbehave(ctx)
    local began = ctx:now()
    local _ <close> = setmetatable({}, { __close = function() if tree.slow then ctx:sleep(tree.slow) end end })
    if tree.habits & 4 ~= 0 then
      pcall(ctx.sleep, ctx, tree.delay)
    end
    ctx:sleep(math.max(0, tree.delay - (ctx:now() - began)))
    if tree.outcome == "throw" then error("thrown") end
    if tree.outcome == "connect" or tree.outcome == "later" and began - tree.zero() >= tree.from then
      return ctx:dial { ip = "8.8.8.8", port = 4000 }
    end
    return nil, "EONE: it was told to", "EONE"
  end
  if not tree.limit and tree.outcome ~= "skip" then return named(tree.name, connect) end
  return {
    name = tree.name, timeout = tree.limit, connect = connect,
    applies = function() return tree.outcome ~= "skip", "skipped" end,
  }
end

local function make(tree, zero)
  if tree.kind == "leaf" then
    tree.zero = zero
    return make_leaf(tree)
  end
  local children = {}
  for i, child in ipairs(tree) do children[i] = make(child, zero) end
  if tree.kind == "seq" then return seq(children) end
  if tree.kind == "race" then return race(children) end
  if tree.kind == "stagger" then return stagger(tree.delay)(children) end
  if tree.kind == "timeout" then return timeout(tree.delay, children[1]) end
  if tree.kind == "retry" then return retry(tree.times, children[1]) end
  if tree.kind == "budget" then return budget { seconds = tree.delay, tries = tree.tries } (children[1]) end
  if tree.kind == "hedge" then return hedge(tree.delay, children[1]) end
  if tree.kind == "named" then return named("a-name", children[1]) end
  if tree.wanted then
    local names = {}
    for name in pairs(tree.wanted) do names[#names + 1] = name end
    if tree.kind == "only" then return only(names, children[1]) end
    local test = tree.applies and names or function(_, strategy) return tree.wanted[strategy.name] end
    return prefer(test, children[1])
  end
  return when(function() return tree.applies, "not wanted" end, children[1])
end

local function check_report(own_report, leaves, events, winner)
  local seen, oks, number = {}, 0, 0
  for _, entry in ipairs(own_report:table().rungs) do
    assert.is_nil(seen[entry.name], entry.name .. " is reported twice")
    seen[entry.name], number = entry, number + 1
    if entry.ok then
      oks = oks + 1
      assert.equal(winner, entry.name)
    end
    assert.is_true(entry.ok or entry.skipped ~= nil or entry.code ~= nil and entry.message ~= nil)
    assert.is_true(events[entry.name] ~= nil, "no event of " .. entry.name)
    assert.equal(entry.tries or 1, math.max(1, events[entry.name]))
  end
  assert.equal(#leaves, number)
  assert.equal(winner and 1 or 0, oks)
  for _, leaf in ipairs(leaves) do assert.truthy(seen[leaf.name]) end
end

-- Runs one random tree. `cancel_at` (or nil) is when the attempt is cancelled.
local function run_tree(seed, how)
  math.randomseed(seed)
  local tree = random_tree(math.random(0, 4), {}, how == "slow")
  local cancel_at = how == "cancel" and math.random() * 6 or nil
  local zero
  local strategy = make(tree, function() return zero end)
  local ctx, here, own_report = world.attempt { world = world.reachable() }
  local events = {}
  own_report:events(function(event) events[event.name] = (events[event.name] or 0) + 1 end)
  zero = task.now()
  local plain = ordered(pruned(tree))
  local leaves = leaves_of(plain, {})
  local ended, winner = predict(plain, 0)
  local main = task.spawn(function()
    local pipe, message, code = pipeline.run(strategy, ctx)
    return pipe, message, code, task.now() - zero
  end)
  if cancel_at then
    task.sleep(cancel_at)
    main:cancel()
  end
  local pipe, message, code, took = main:wait()
  if main:status() == "cancelled" then
    assert.equal("cancel", how)
    assert.equal(0, here:open_count())
    check_report(own_report, leaves, events, nil)
  else
    if how ~= "slow" then
      assert.near(ended, took, 1e-5)
      assert.equal(winner and winner.name, own_report.winner)
    end
    assert.equal(pipe and 1 or 0, here:open_count())
    assert.equal(pipe == nil, code ~= nil)
    assert.is_true(pipe ~= nil or message:sub(1, #code + 2) == code .. ": ")
    check_report(own_report, leaves, events, own_report.winner)
  end
  assert.equal(1, #task.list())
end

describe("random trees", function()
  local first = tonumber(os.getenv("P2PD_SEED")) or os.time() % 1000000 * 1000
  local count = tonumber(os.getenv("P2PD_TREES")) or 1000

  for how, promise in pairs {
    plain = "return what the model says, leak nothing, report each rung once",
    cancel = "leak nothing when they are cancelled at a random time",
    slow = "leak nothing when rungs take their time to close",
  } do
    it(promise, run.virtual(function()
      for seed = first, first + count - 1 do
        local ok, err = xpcall(run_tree, function(err)
          if task.is_cancelled(err) then return err end
          return debug.traceback(type(err) == "table" and tostring(err.message) or tostring(err), 2)
        end, seed, how)
        if not ok and task.is_cancelled(err) then error(err, 0) end
        if not ok then error(("P2PD_SEED=%d P2PD_TREES=1 (%s): %s"):format(seed, how, err), 0) end
      end
    end))
  end
end)
