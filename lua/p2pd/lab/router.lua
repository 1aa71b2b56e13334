-- router: the process of a lab's router, within the router's namespace. It is told what to do by lines of JSON on
-- standard input, each of which gets one as its answer on standard output:
--
--   {"do":"configure","options":{…},"external":["30.2.1.2"],"inside":["192.168.1.0/24"],"flush":false}
--                                 -> {"ok":true,"seed":7}      options: p2pd.lab.options; flush: no mapping stays
--   {"do":"stats"}                -> {"ok":true,"stats":{…}}
--   {"do":"trace","since":NS}     -> {"ok":true,"events":[…]}  those from that time on (uv_hrtime)
--   what cannot be done           -> {"ok":false,"code":"EINVAL","message":"EINVAL: …"}
--
-- An "id" comes back in the answer. The process ends when its input does.
local cjson = require "cjson"
local core = require "p2pd.core"
local luv = require "luv"
local router_options = require "p2pd.lab.options"
local split = require "p2pd.split"
local stdio = require "p2pd.stdio"

local DEVICE, KERNEL_DEVICE = "nat1", "nat0" -- a veth pair; see core/router.h
local LONGEST = 1024 * 1024                  -- bytes of a line

local requests = {}

local function invalid(sentence, ...)
  return nil, "EINVAL: " .. sentence:format(...), "EINVAL"
end

local function is_list_of_texts(value)
  if type(value) ~= "table" then return false end
  for _, text in pairs(value) do
    if type(text) ~= "string" then return false end
  end
  return true
end

local function draw_seed()
  return (string.unpack("<I4", luv.random(4)))
end

-- All chance follows from the seed: with another one the router begins anew.
local function open(self, seed)
  if self.router then self.router:close() end
  local message, code
  self.router, message, code = core.router.open { device = DEVICE, kernel_device = KERNEL_DEVICE, seed = seed }
  self.seed = seed
  return self.router, message, code
end

-- What is wrong with a configuration the binding throws.
local function configure(router, configuration)
  local ok, message, code
  local fine, why = pcall(function() ok, message, code = router:configure(configuration) end)
  if not fine then return invalid("%s", (why:gsub("^[^ ]+:%d+: ", ""))) end
  return ok, message, code
end

function requests.configure(self, request)
  local external, inside = request.external or {}, request.inside or {}
  if not is_list_of_texts(external) then return invalid "'external' is no list of addresses" end
  if not is_list_of_texts(inside) then return invalid "'inside' is no list of prefixes" end
  local options, message, code = router_options.router(request.options or {})
  if not options then return nil, message, code end
  local configuration = router_options.configuration(options, external, inside)
  configuration.flush = request.flush == true
  local seed, ok = options.seed or self.seed or draw_seed(), true
  -- What cannot be is refused by the router that there is, which goes on as it was.
  if self.router then ok, message, code = configure(self.router, configuration) end
  if ok and (not self.router or seed ~= self.seed) then
    ok, message, code = open(self, seed)
    if ok then ok, message, code = configure(self.router, configuration) end
  end
  if not ok then return nil, message, code end
  return { seed = self.seed }
end

local function configured(self)
  if self.router then return self.router end
  return invalid "the router was not configured yet; send a 'configure' first"
end

function requests.stats(self)
  local router, message, code = configured(self)
  if not router then return nil, message, code end
  return { stats = router:stats() }
end

function requests.trace(self, request)
  local router, message, code = configured(self)
  if not router then return nil, message, code end
  local since, events = request.since or 0, {}
  if type(since) ~= "number" or since < 0 then return invalid "'since' is a time in nanoseconds" end
  for _, event in ipairs(router:trace()) do
    if event.ns >= since then events[#events + 1] = event end
  end
  return { events = events }
end

local function perform(self, line)
  local is_json, request = pcall(cjson.decode, line)
  if not is_json or type(request) ~= "table" then return {}, invalid "the line is no JSON object" end
  local perform_it = requests[request["do"]]
  if not perform_it then
    return request, invalid("'do' is %s (known: configure, stats, trace)", tostring(request["do"]))
  end
  return request, perform_it(self, request)
end

local function answer(self, line)
  local request, result, message, code = perform(self, line)
  result = result or { message = message, code = code }
  result.ok = code == nil
  result.id = request.id
  return cjson.encode(result) .. "\n"
end

local function lines(input)
  local queue = split.new()
  return function()
    while #queue == 0 do
      local data = queue.pending <= LONGEST and input:read()
      if not data then return nil end
      queue:feed(data)
    end
    return queue:pop()
  end
end

--- The program: returns its exit status.
return function()
  local input <close> = stdio.reader(0)
  local output <close> = stdio.writer(1)
  local self <close> = setmetatable({}, { __close = function(self)
    if self.router then self.router:close() end
  end })
  for line in lines(input) do
    if not output:write(answer(self, line)) then return 1 end
  end
  output:flush()
  return 0
end
