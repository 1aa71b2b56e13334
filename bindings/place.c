#include "bindings/place.h"

#include <lauxlib.h>
#include <limits.h>

struct ip place_ip(lua_State *L, int index, int arg, const char *name) {
    struct ip ip = {0};
    size_t length = 0;
    const char *text = lua_type(L, index) == LUA_TSTRING ? lua_tolstring(L, index, &length) : NULL;
    if (!text || ip_parse(text, length, &ip) != 0)
        luaL_argerror(L, arg, lua_pushfstring(L, "'%s' is no IP address", name));
    return ip;
}

uint16_t place_port(lua_State *L, int index, int arg, const char *name, uint16_t least) {
    int is_integer;
    lua_Integer port = lua_tointegerx(L, index, &is_integer);
    if (!is_integer || port < least || port > UINT16_MAX)
        luaL_argerror(L, arg, lua_pushfstring(L, "'%s' is no port", name));
    return (uint16_t)port;
}

void place_set(lua_State *L, const char *ip_key, const char *port_key,
               const struct stun_endpoint *endpoint) {
    char text[IP_TEXT_SIZE];
    if (endpoint->ip.family == 0)
        return;
    lua_pushlstring(L, text, ip_format(&endpoint->ip, text));
    lua_setfield(L, -2, ip_key);
    lua_pushinteger(L, endpoint->port);
    lua_setfield(L, -2, port_key);
}

unsigned place_milliseconds(double timeout_s) {
    if (timeout_s < 0 || timeout_s > INT_MAX / 1000)
        return INT_MAX;
    return timeout_s < 1e-3 ? 1 : (unsigned)(timeout_s * 1e3);
}
