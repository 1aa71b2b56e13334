---@meta p2pd.settings

--- Which servers a node uses. A list that is given replaces the built-in one. The order of `mqtt` matters: addresses
--- hold positions in it, so nodes that are to meet need the same list.
---@class p2pd.Settings
---@field mqtt? p2pd.Broker[] brokers for signaling; 15 built in
---@field stun? p2pd.Server[] servers that say which address they see
---@field turn? p2pd.TurnServer[] relays, in the order in which they are asked; none built in
---@field ntp? p2pd.Server[] clocks, by which a node corrects the time in its messages
---@field names? p2pd.NameServer[] name servers; not used yet
---@field clock_error? number seconds by which this program sees a wrong time, for tests and labs; 0 unless given

---@class p2pd.Server
---@field host string a name or an address
---@field port integer 1 to 65535

---@class p2pd.Broker : p2pd.Server
---@field tls? boolean TLS 1.2 or later, with a certificate that is valid for `host`; false unless given
---@field ca? string a PEM file with an authority to trust besides those of the system

--- A TURN server that relays TCP (RFC 6062), and an account there: without user and password it is of no use.
---@class p2pd.TurnServer : p2pd.Server
---@field transport? "udp"|"tcp"|"tls" tls gets out of networks that let little else out; udp counts as tcp here
---@field user? string
---@field password? string
---@field realm? string for people: what counts is the one that the server tells
---@field ca? string a PEM file with an authority to trust besides those of the system

---@class p2pd.NameServer : p2pd.Server
---@field key? string its public key in hexadecimal digits

---@class p2pd.settings
local settings = {}

--- Settings as the option `settings` of `p2pd.node` takes them: a table, the path of a file, or nil for the user's
--- file if it is there. Fails with EINVAL (the message names the entry), EACCES (others may write the file), EFBIG,
--- ENOENT.
---@param given? p2pd.Settings|string
---@return p2pd.Settings? settings with all lists
---@return string? message
---@return p2pd.Code? code
function settings.load(given) end

--- Checks a table and fills in the lists that it does not give.
---@param given p2pd.Settings
---@return p2pd.Settings? settings
---@return string? message
---@return p2pd.Code? code
function settings.from(given) end

--- Reads a file: Lua source that returns a table. It runs with an empty environment and a limit on its instructions,
--- so it can do nothing else; a file that others may write is refused.
---@param path string
---@return p2pd.Settings? settings
---@return string? message
---@return p2pd.Code? code
function settings.read(path) end

--- Where the user's settings lie: `$XDG_CONFIG_HOME/p2pd-lua/settings.lua`, or `~/.config/p2pd-lua/settings.lua`.
---@return string path
function settings.default_path() end
