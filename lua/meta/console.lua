---@meta p2pd.console
-- `local console = require "p2pd.console"`: what `p2pd-lua listen --console PATH` opens, for a program of your own:
--
--   local prompt <close> = assert(console.open { path = "/run/user/1000/mine/console", names = { node = node } })
--
-- and then, at a terminal: p2pd-lua attach /run/user/1000/mine/console

--- A prompt inside a program that runs, for its own user alone. Lines are evaluated in the program, each as a task; who
--- attaches has locals of its own, and shares globals. `print` and `io.write` of such lines show at the prompt; what
--- tasks fail of that they began is told there, and is no failure of the program's.
---@class p2pd.console
local console = {}

---@class p2pd.ConsoleOptions
---@field path string of a Unix socket, in a folder of the user's own with mode 700 (made if only it is missing)
---@field names? table<string, any> what lines find by these names, before the globals
---@field on_notice? fun(text: string) told of another user who was turned away; standard error unless given

--- Opens a console. Up to eight may be attached at once. Fails with EPERM (the folder is another's or open to others,
--- or a symbolic link), ELOOP (the path is one), EEXIST (there is something that is no socket), EADDRINUSE (a program
--- has its console there), ENOENT, EINVAL. What a program left there that ended at once is replaced.
---@param options p2pd.ConsoleOptions
---@return p2pd.Console? opened
---@return string? message
---@return p2pd.Code? code
function console.open(options) end

---@class p2pd.Console
---@field path string
local opened = {}

--- Tells those who are attached that the program has ended, cancels what they run, and removes the socket. As a
--- `<close>` variable a console is closed with its scope.
---@return true
function opened:close() end
