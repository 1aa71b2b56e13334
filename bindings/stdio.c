/* core.stdio: what luv cannot say to a pipe that lies behind standard input or output. */
#include "bindings/module.h"

#include <fcntl.h>

enum { PIPE_CAPACITY = 1 << 20 }; /* what Linux allows everybody (/proc/sys/fs/pipe-max-size) */

/* widen(fd): lets a pipe hold 1 MiB instead of 64 KiB, so that whoever is at its other end is woken
 * less often. Anything else than a pipe stays as it is. */
static int widen(lua_State *L) {
    int fd = (int)luaL_checkinteger(L, 1);
    lua_pushboolean(L, fcntl(fd, F_SETPIPE_SZ, PIPE_CAPACITY) >= 0);
    return 1;
}

int open_stdio(lua_State *L) {
    luaL_newlib(L, ((const luaL_Reg[]){{"widen", widen}, {NULL, NULL}}));
    return 1;
}
