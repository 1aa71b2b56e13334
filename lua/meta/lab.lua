---@meta p2pd.lab
-- `local lab = require "p2pd.lab"`. In a spec, so that a failure shows what the routers did:
--
--   local net <close> = assert(lab.up { a = "symmetric/random", b = "port-restricted/equal" })
--   net:guard(function()
--     local a = assert(net:host "a")
--     assert.are.equal(0, assert(a:run { "ping", "-c1", "30.1.0.1", timeout = 5 }).status)
--   end)

--- Networks on this machine: hosts behind routers with any kind of NAT, and real servers between them. Needs root, or
--- user namespaces. The servers: two MQTT brokers (30.1.0.1 and 30.1.0.2), STUN and TURN (30.1.0.3, and 30.1.0.4 for
--- change requests), four clocks (30.1.0.5 to 30.1.0.8); all have IPv6 too, 2c0f:30:1::1 and on.
---@class p2pd.lab
local lab = {}

--- A NAT: TYPE/DELTA[:VALUE][@FIRST-LAST], as "symmetric/random", "restricted/independent:3@40000-50000" or "open".
--- TYPE is one of open, udp-firewall, full-cone, restricted, port-restricted, symmetric, blocked; DELTA says how it
--- chooses ports: equal, preserving, independent, dependent, random, and is left out after open, udp-firewall, blocked.
---@alias p2pd.NatText string

--- What a router is. Of each transport by itself: `udp = { … }` and `tcp = { … }` with the first nine fields, laid
--- over these. `carrier.delay_ms` and the like, of `net:set` alone, are the carrier's.
---@class p2pd.RouterOptions
---@field nat? p2pd.NatText "port-restricted/equal" unless given
---@field mapping? "endpoint-independent"|"address-dependent"|"address-and-port-dependent" RFC 4787, 4.1
---@field filtering? "endpoint-independent"|"address-dependent"|"address-and-port-dependent"|"none" RFC 4787, 5
---@field allocation? "equal"|"preserving"|"independent"|"dependent"|"random" how an external port is chosen
---@field value? integer of independent and dependent
---@field ports? integer[] the first and the last external port
---@field timeout_s? number of a mapping without traffic
---@field transitory_s? number of TCP that opens or closes
---@field uninvited? "drop"|"reset"|"unreachable" what a SYN from outside gets
---@field udp? table|p2pd.NatText
---@field tcp? table|p2pd.NatText
---@field addresses? integer how many external addresses it has
---@field pairing? "paired"|"arbitrary" whether a host keeps one of them
---@field hairpin? boolean whether hosts behind it reach each other by external addresses
---@field noise? number flows of other people, per second, which take ports
---@field table? integer mappings at most
---@field time_scale? number of all its times: 0.01 lets tests wait a hundredth
---@field seed? integer of all its chance: 0 to 4294967295
---@field ipv6? "firewall"|"open"|"none" firewall unless given, but open where `nat` is, and none where it is blocked
---@field open_ports? integer[] where TCP still goes through a blocked router
---@field delay_ms? number of its link, one way, each direction
---@field jitter_ms? number
---@field loss? number 0 to 1
---@field duplicate? number 0 to 1
---@field reorder? number 0 to 1
---@field rate_mbit? number
---@field up? boolean false: its cable is pulled out
---@field portmap? boolean true: miniupnpd runs on it (UPnP IGD, NAT-PMP)
---@field carrier? p2pd.RouterOptions|p2pd.NatText a second router in front of it, called NAME-carrier

--- What a lab is. A host that is not named is there for each router, by its name; without any router there are a and
--- b. Names are small letters, digits and dashes.
---@class p2pd.LabOptions
---@field name? string by which `p2pd-lua lab` and `lab.attach` find it; one of its own unless given
---@field a? p2pd.NatText|p2pd.RouterOptions the same as `routers = { a = … }`
---@field b? p2pd.NatText|p2pd.RouterOptions the same as `routers = { b = … }`
---@field routers? table<string, p2pd.NatText|p2pd.RouterOptions>
---@field hosts? table<string, string|string[]|p2pd.HostOptions> each with the routers that it is behind
---@field servers? boolean false: without servers
---@field stay? boolean true: it outlives this program, until `p2pd-lua lab down`

---@class p2pd.HostOptions
---@field router? string
---@field routers? string[] several: the first is its way out, others by their own addresses; "internet" is none
---@field clock_error? number seconds by which its programs' clocks are wrong, in their settings

--- Makes a lab, and waits until all of it works. It ends with the scope of a `<close>` variable, and at the latest
--- with this program, however that ends. Throws for options that nobody knows. Fails with EINVAL (the message says
--- which value makes no sense), EBUSY (a lab of that name runs, or something else is where it would be), EPERM
--- (namespaces are closed to you, or the folder is not private), ENOENT (a program that this lab needs is missing) and
--- ENOTSUP (a lab of that name may run where this program cannot look, as in another container): the messages say what
--- helps.
---@param options? p2pd.LabOptions
---@return p2pd.Lab? net
---@return string? message
---@return p2pd.Code? code
function lab.up(options) end

--- Finds a lab that runs, made here or by another program. Leaving the scope does not end it. Fails with ENOENT, and
--- with ENOTSUP where this program cannot see whether it runs.
---@param name string
---@return p2pd.Lab? net
---@return string? message
---@return p2pd.Code? code
function lab.attach(name) end

--- The names of the labs of this user that run, as far as this program can see.
---@return string[]? names
---@return string? message
---@return p2pd.Code? code
function lab.list() end

--- A lab that runs. All that ask it fail with ECLOSED when it is down, and with EAGAIN while it is coming up or going.
---@class p2pd.Lab
---@field name string
local net = {}

--- A host of it. Fails with EINVAL when it has none of that name.
---@param name string
---@return p2pd.Host? host
---@return string? message
---@return p2pd.Code? code
function net:host(name) end

--- What there is: the lab's `name`, and `routers`, `hosts` and `servers`, with names and addresses.
---@return table? status
---@return string? message
---@return p2pd.Code? code
function net:status() end

--- Changes a router while it runs: all that is given, or, when it fails, nothing. Mappings stay, but with another
--- `seed` the router begins anew, without any. `address` gives it another external address; `carrier` and
--- `carrier.KEY` are the router's in front of it. Values may be given as texts, as on the command line. Throws for
--- options that nobody knows. Fails with EINVAL when the router cannot be that; `addresses`, `ipv6`, `portmap`, whether
--- it translates, and whether it has a carrier cannot change.
---@param router string
---@param options p2pd.RouterOptions|table<string, any>
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function net:set(router, options) end

--- Pulls a router's cable out: nothing passes, and nobody is told.
---@param router string
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function net:cut(router) end

--- Puts a router's cable back.
---@param router string
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function net:mend(router) end

--- Ends a server at once, starts it again, and waits until it answers.
---@param server string as `status` names it
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function net:restart(server) end

--- What a router has counted: packets and bytes by direction, what it dropped and why, its mappings now.
---@param router string
---@return table? stats
---@return string? message
---@return p2pd.Code? code
function net:stats(router) end

--- What the routers did with each packet: a line each, merged by time. Of TCP connections that are up, the segments
--- that pass are left out. A router whose process has ended is left out, which is said. Fails with EINVAL when `since`
--- is no number.
---@param since? number seconds since the lab was up: what came before is left out
---@return string? text
---@return number|string now_or_message the time now, to be given as `since` later
---@return p2pd.Code? code
function net:timeline(since) end

--- Runs a function; an error in it is thrown on with the lab's timeline at its end.
---@param f function
---@param ... any its arguments
---@return any ... what `f` returns
function net:guard(f, ...) end

--- Lets the lab outlive this program, until `p2pd-lua lab down` or `net:down()`.
function net:stay() end

--- Ends the lab, whoever made it, and waits until nothing is left of it.
---@return boolean? ok
---@return string? message
---@return p2pd.Code? code
function net:down() end

--- Ends the lab if this program made it and it is not to stay; of another one, nothing.
function net:close() end

--- What is run on a host. The program has the caller's folder and environment, but the host's HOME, in which the
--- settings name the lab's servers; it has no capabilities, sees the processes of its host alone, and may listen at any
--- port. Options that a call has no use for are an error.
---@class p2pd.HostCommand
---@field [integer] string the program and its arguments
---@field input? string what it reads; of `run` and `start`
---@field timeout? number seconds; of `run` and `lua`
---@field cwd? string its folder
---@field env? table<string, string> variables
---@field root? boolean true: it keeps all rights over the lab; where root made that, root's

--- All that run something fail with ECLOSED when the lab is down, with EPERM or ENOTSUP where this program may not or
--- cannot go where the lab is, and with ENOENT when the folder that it is in is gone.
---@class p2pd.Host
---@field name string
local host = {}

--- Runs a program there to its end, and that of its output. Fails with ETIMEDOUT when that takes longer than `timeout`:
--- then it is ended with all that it has started, as it is when the task that waits is cancelled. It is in a session of
--- its own.
---@param command p2pd.HostCommand
---@return { status: integer, out: string, err: string }? result status 128 + N after signal N
---@return string? message
---@return p2pd.Code? code
function host:run(command) end

--- Runs a program there with this program's terminal, input and outputs, to its end. Signals are for that program, also
--- those that come while it starts. It is ended when the task that waits is cancelled, or this program ends.
---@param command p2pd.HostCommand without `input` and `timeout`
---@return integer? status 128 + N after signal N
---@return string? message
---@return p2pd.Code? code
function host:exec(command) end

--- Starts a program there, in a session of its own. It ends with the scope, and all that it has started with it: `local
--- child <close> = assert(host:start { … })`. The child has `lines()`, which gives what it prints, `write(text)`,
--- `finish_input()`, `wait([timeout])`, `exit_status()` and `close()`.
---@param command p2pd.HostCommand without `timeout`
---@return table? child
---@return string? message
---@return p2pd.Code? code
function host:start(command) end

--- Runs Lua source there, in a p2pd-lua of its own, to its end.
---@param source string
---@param options? p2pd.HostCommand its arguments, and the fields of a command but `input`
---@return { status: integer, out: string, err: string }? result
---@return string? message
---@return p2pd.Code? code
function host:lua(source, options) end

--- The words with which a command is started there, for who starts programs otherwise.
---@param command p2pd.HostCommand without `input` and `timeout`
---@return string[]? words
---@return string? message
---@return p2pd.Code? code
function host:argv(command) end

return lab
