#include "core/stun.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/wait.h"

#include <string.h>

#define TIMEOUT_S 3.0

struct lookup {
    struct stun *stun; /* NULL once it is over */
    struct wait *wait;
    struct stun_result result;
};

static void done(void *arg, int status, const struct stun_result *result) {
    struct lookup *lookup = arg;
    lookup->stun = NULL;
    if (result)
        lookup->result = *result;
    wait_wake(lookup->wait, status);
}

static void detach(void *arg) {
    struct lookup *lookup = arg;
    if (lookup->stun)
        stun_cancel(lookup->stun);
    lookup->stun = NULL;
}

static void set_address(lua_State *L, const char *ip_key, const struct ip *ip, const char *port_key,
                        uint16_t port) {
    char text[IP_TEXT_SIZE];
    lua_pushlstring(L, text, ip_format(ip, text));
    lua_setfield(L, -2, ip_key);
    lua_pushinteger(L, port);
    lua_setfield(L, -2, port_key);
}

static int looked_up(lua_State *L, int status, lua_KContext place) {
    const struct lookup *lookup = lua_touserdata(L, (int)place);
    if (status != 0)
        return push_failure(L, status, "asking STUN server %s", lua_tostring(L, 2));
    lua_createtable(L, 0, 5);
    set_address(L, "external_ip", &lookup->result.external, "external_port",
                lookup->result.external_port);
    set_address(L, "local_ip", &lookup->result.local, "local_port", lookup->result.local_port);
    lua_pushnumber(L, (lua_Number)lookup->result.rtt_us / 1e6);
    lua_setfield(L, -2, "rtt");
    return 1;
}

static uint16_t port_field(lua_State *L, const char *key) {
    int is_integer;
    lua_getfield(L, 1, key);
    lua_Integer port = lua_isnil(L, -1) ? (is_integer = 1, 0) : lua_tointegerx(L, -1, &is_integer);
    if (!is_integer || port < 0 || port > UINT16_MAX)
        luaL_argerror(L, 1, lua_pushfstring(L, "'%s' is no port", key));
    lua_pop(L, 1);
    return (uint16_t)port;
}

/* Zero is STUN's own patience to core/stun: what is less than a millisecond counts as one. */
static unsigned milliseconds(double timeout_s) {
    if (timeout_s < 0 || timeout_s > STUN_TIMEOUT_MS / 1e3)
        return STUN_TIMEOUT_MS;
    return timeout_s < 1e-3 ? 1 : (unsigned)(timeout_s * 1e3);
}

/* lookup{ip, port, local_ip, local_port, timeout} -> {external_ip=, external_port=, local_ip=,
 * local_port=, rtt=}: how the server sees us (RFC 8489, Binding) */
static int lookup_(lua_State *L) {
    static const char *const keys[] = {"ip", "port", "local_ip", "local_port", "timeout", NULL};
    struct sockaddr_storage server, local;
    struct ip ip;
    check_options(L, 1, keys);
    lua_settop(L, 1);
    lua_getfield(L, 1, "ip");
    const char *text = lua_tostring(L, 2);
    luaL_argcheck(L, text && ip_parse(text, strlen(text), &ip) == 0, 1, "'ip' is no IP address");
    ip_to_sockaddr(&ip, port_field(L, "port"), &server);
    lua_getfield(L, 1, "local_ip");
    const char *local_text = lua_tostring(L, 3);
    luaL_argcheck(L, !local_text || ip_parse(local_text, strlen(local_text), &ip) == 0, 1,
                  "'local_ip' is no IP address");
    ip_to_sockaddr(&ip, port_field(L, "local_port"), &local);
    double timeout_s = option_timeout(L, 1, "timeout", TIMEOUT_S);
    struct wait *wait = wait_begin(L);
    struct lookup *lookup = lua_newuserdatauv(L, sizeof *lookup, 0);
    memset(lookup, 0, sizeof *lookup);
    lookup->wait = wait;
    int status = stun_lookup(wait_loop(L), (struct sockaddr *)&server,
                             local_text ? (struct sockaddr *)&local : NULL, milliseconds(timeout_s),
                             done, lookup, &lookup->stun);
    if (status != 0)
        return looked_up(L, status, 4);
    return wait_park(L, wait, -1, detach, lookup, looked_up, 4);
}

int open_stun(lua_State *L) {
    luaL_newlib(L, ((const luaL_Reg[]){{"lookup", lookup_}, {NULL, NULL}}));
    return 1;
}
