local arg = ...
local f = assert(loadfile(arg[1]))
f(table.unpack(arg, 2))
return 0
