---@meta p2pd.node

--- Options of `p2pd.node`. All may be left out.
---
--- `port`: without it one is derived from the key, and another one is used when that is taken; one that is given must
--- be free. `listen = false` makes a node that only connects: nothing comes out of `accept`, no request is answered,
--- and several such nodes may use one key. `allow` is asked with a peer's node ID, which is proven, before anything
--- is done for that peer; it may wait. What it throws is printed, and refuses the peer.
---@class p2pd.NodeOptions
---@field settings? p2pd.Settings|string servers, as a table or a file's path; the user's file unless given
---@field key? string file of the secret key, made at first use; `~/.local/share/p2pd-lua/key.pem` unless given
---@field port? integer where to listen
---@field bind? string listen on this IP alone
---@field listen? boolean false: only connect
---@field allow? fun(peer: string): boolean? who gets in; everybody unless given
---@field map? boolean false: no port of the router is asked for (UPnP, NAT-PMP)
---@field pipeline? p2pd.Strategy|function how to connect, and what is answered; `p2pd.pipeline.default()` unless given
---@field on_notice? fun(text: string) gets what the user should know; it is printed unless given
---@field on_address? fun(address: string) called when the node's address has changed: more is known of its routers, or
---  the network is another one. It must not wait

--- One identity on the network. It listens, is found through its brokers, and connects to others. As a `<close>`
--- variable it is closed with its scope.
---@class p2pd.Node
---@field last_report? p2pd.Report what the last `connect` did
---@field pipeline p2pd.Strategy what it uses now; see `use`
local node = {}

--- The text that others connect to. It gets better in a node's first seconds, as more is known of its routers, and
--- changes with the network: see `on_address`. An older one is good as long as its IP addresses and port are.
---@return string
function node:address() end

--- What this node's router does to TCP, as strategies get it by `ctx:facts`. Waits until it has been examined, which
--- takes about a second after the start unless it is known from before; 1.6 s at most unless given.
---@param family 4|6
---@param timeout? number seconds
---@return p2pd.Facts? facts
---@return string? message
---@return p2pd.Code? code
function node:facts(family, timeout) end

--- The node ID: its public key (P-256, compressed, 33 bytes) in base58btc.
---@return string
function node:id() end

---@class p2pd.ConnectOptions
---@field strategies? string[] restricts the pipeline to these: names, or files (with a `/`, or ending in `.lua`)
---@field pipeline? p2pd.Strategy|function used instead of the node's
---@field timeout? number seconds; 20 unless given
---@field on_event? fun(rung: p2pd.Rung) called as each rung ends or is passed over; must not wait

--- Connects to a peer by the means that the pipeline finds fit. Fails with EINVAL (no address, or this node's own),
--- ENOTSUP (a name, or a node ID that is no key), the code that all rungs agree on, or EUNREACHABLE; `last_report`
--- has the details.
---@param to string an address
---@param options? p2pd.ConnectOptions
---@return p2pd.Pipe? pipe
---@return string? message
---@return p2pd.Code? code
function node:connect(to, options) end

--- Uses another pipeline from now on: it answers what peers ask, and the next `connect` goes by it. What is under way
--- stays as it began. To add one: `node:use(p2pd.pipeline.seq { node.pipeline, "./mine.lua" })`. Fails as
--- `p2pd.pipeline.load` does, and goes on with what it has then.
---@param strategy p2pd.Stands
---@return p2pd.Strategy? former
---@return string? message
---@return p2pd.Code? code
function node:use(strategy) end

--- Uses the pipeline anew whenever one of its files changes, as `p2pd.pipeline.watch` has it, until the node is
--- closed: `node:use "./mine.lua"`, then `node:watch()`. What `use` gives the node later is watched then. Fails with
--- ENOENT when no file of yours is in the pipeline, and as `p2pd.pipeline.watch` does.
---@param on_news? fun(news: p2pd.PipelineNews) gets what there is to tell, after the change; must not wait. Unless
---  given the text goes to `on_notice`
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function node:watch(on_news) end

--- Gives the pipes that arrive, until the node is closed: `for pipe in node:accept() do … end`. Each has proven its
--- key, its peer has committed to it, and `allow` has let it in.
---@return fun(): p2pd.Pipe?
function node:accept() end

--- A short name for an address. Not there yet: ENOTSUP.
---@param name string
---@return nil
---@return string message
---@return "ENOTSUP" code
function node:nickname(name) end

---@class p2pd.BrokerState
---@field offset integer its position in `settings.mqtt`, from 0
---@field host string
---@field port integer
---@field ok boolean whether it is connected now
---@field message? string why not
---@field code? p2pd.Code

---@class p2pd.SignalState
---@field brokers p2pd.BrokerState[] those in use
---@field counters table<string, integer> messages that were accepted, and dropped, by reason: see `:help signaling`

--- What the brokers do, and how many messages were dropped and why.
---@return p2pd.SignalState
function node:signal_state() end

--- Ends all that the node began; waits for its tasks. Pipes that were handed out live on.
---@return true
function node:close() end
