#include "core/nic.h"

#include "bindings/fail.h"
#include "bindings/module.h"

#include <string.h>

static void push_ip(lua_State *L, const struct ip *ip) {
    char text[IP_TEXT_SIZE];
    lua_pushlstring(L, text, ip_format(ip, text));
}

/* list() -> { {name=, index=, up=, loopback=, ip=, prefix=}, … }, an entry for each address */
static int list(lua_State *L) {
    struct nic *nics;
    size_t count;
    int status = nic_list(&nics, &count);
    if (status != 0)
        return push_failure(L, status, "cannot list the network interfaces");
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_createtable(L, 0, 6);
        lua_pushstring(L, nics[i].name);
        lua_setfield(L, -2, "name");
        lua_pushinteger(L, nics[i].index);
        lua_setfield(L, -2, "index");
        lua_pushboolean(L, nics[i].up);
        lua_setfield(L, -2, "up");
        lua_pushboolean(L, nics[i].loopback);
        lua_setfield(L, -2, "loopback");
        push_ip(L, &nics[i].ip);
        lua_setfield(L, -2, "ip");
        lua_pushinteger(L, nics[i].prefix);
        lua_setfield(L, -2, "prefix");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    nic_free(nics);
    return 1;
}

/* source(ip) -> the address that the system would send from toward it */
static int source(lua_State *L) {
    struct ip to, from;
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    luaL_argcheck(L, ip_parse(text, length, &to) == 0, 1, "no IP address");
    int status = nic_source(&to, &from);
    if (status != 0)
        return push_failure(L, status, "there is no way to %s", text);
    push_ip(L, &from);
    return 1;
}

int open_nic(lua_State *L) {
    luaL_newlib(L, ((const luaL_Reg[]){{"list", list}, {"source", source}, {NULL, NULL}}));
    return 1;
}
