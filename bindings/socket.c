#include "bindings/socket.h"

#include "bindings/module.h"

#include <unistd.h>

#define SOCKET_TYPE "p2pd.socket"

void push_socket(lua_State *L, int fd) {
    int *held = lua_newuserdatauv(L, sizeof *held, 1);
    *held = fd;
    luaL_setmetatable(L, SOCKET_TYPE);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
}

int take_socket(lua_State *L, int index) {
    int *held = luaL_checkudata(L, index, SOCKET_TYPE), fd = *held;
    *held = -1;
    return fd;
}

static int close_(lua_State *L) {
    int fd = take_socket(L, 1);
    if (fd >= 0)
        close(fd);
    return 0;
}

static int tostring(lua_State *L) {
    const int *held = luaL_checkudata(L, 1, SOCKET_TYPE);
    lua_pushstring(L, *held < 0 ? "socket (closed)" : "socket (connected)");
    return 1;
}

void open_socket(lua_State *L) {
    module_type_with_fields(
        L, SOCKET_TYPE, (const luaL_Reg[]){{"close", close_}, {NULL, NULL}},
        (const luaL_Reg[]){
            {"__gc", close_}, {"__close", close_}, {"__tostring", tostring}, {NULL, NULL}});
    lua_pop(L, 1);
}
