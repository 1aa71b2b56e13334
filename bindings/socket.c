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

/* The stack: socket, name. A method, or what is known of the connection. */
static int index_(lua_State *L) {
    luaL_checkudata(L, 1, SOCKET_TYPE);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
        return 1;
    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    return 1;
}

static int tostring(lua_State *L) {
    const int *held = luaL_checkudata(L, 1, SOCKET_TYPE);
    lua_pushstring(L, *held < 0 ? "socket (closed)" : "socket (connected)");
    return 1;
}

void open_socket(lua_State *L) {
    module_type(L, SOCKET_TYPE, (const luaL_Reg[]){{"close", close_}, {NULL, NULL}},
                (const luaL_Reg[]){
                    {"__gc", close_}, {"__close", close_}, {"__tostring", tostring}, {NULL, NULL}});
    luaL_getmetatable(L, SOCKET_TYPE);
    lua_getfield(L, -1, "__index");
    lua_pushcclosure(L, index_, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
