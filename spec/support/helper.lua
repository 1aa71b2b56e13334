-- helper: what busted loads before the specs: the paths, and the library under test.
-- P2PD_BUILD names the folder of p2pd.so, unless LUA_CPATH leads to one.
package.path = "./?.lua;" .. package.path
package.cpath = package.cpath .. ";" .. (os.getenv("P2PD_BUILD") or "build") .. "/?.so"
require "p2pd"
