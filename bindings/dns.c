/* core.dns: names to addresses. */
#include "core/dns.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/wait.h"

#include <limits.h>
#include <string.h>

#define DEFAULT_TIMEOUT_S 5

/* One question; lies in a userdata on the stack of the task that asks. */
struct question {
    struct dns *dns;
    struct wait *wait;
    size_t count;
    struct ip addresses[DNS_ADDRESSES_MAX];
};

static void on_done(void *arg, int status, const struct ip *addresses, size_t count) {
    struct question *question = arg;
    question->count = count;
    memcpy(question->addresses, addresses, count * sizeof(*addresses));
    wait_wake(question->wait, status);
}

static void detach(void *arg) {
    dns_cancel(((struct question *)arg)->dns);
}

static int answered(lua_State *L, int status, lua_KContext context) {
    const struct question *question = lua_touserdata(L, (int)context);
    if (status)
        return push_failure(L, status, "cannot resolve '%s'", lua_tostring(L, 1));
    lua_createtable(L, (int)question->count, 0);
    for (size_t i = 0; i < question->count; i++) {
        char text[IP_TEXT_SIZE];
        lua_pushlstring(L, text, ip_format(&question->addresses[i], text));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* resolve(host, [timeout]) -> list of addresses as text, in the order in which to try them */
static int resolve(lua_State *L) {
    size_t length;
    const char *host = luaL_checklstring(L, 1, &length);
    double timeout_s = check_timeout(L, 2, DEFAULT_TIMEOUT_S);
    luaL_argcheck(L, length > 0 && strlen(host) == length, 1, "a host name or address");
    struct wait *wait = wait_begin(L);
    lua_settop(L, 1);
    struct question *question = lua_newuserdatauv(L, sizeof(*question), 0);
    question->wait = wait;
    double timeout_ms = timeout_s < 0 || timeout_s > INT_MAX / 1000 ? INT_MAX : timeout_s * 1000;
    int status =
        dns_resolve(wait_loop(L), host, (unsigned)timeout_ms, on_done, question, &question->dns);
    if (status)
        return push_failure(L, status, "cannot resolve '%s'", host);
    return wait_park(L, wait, -1, detach, question, answered, 2);
}

int open_dns(lua_State *L) {
    static const luaL_Reg functions[] = {{"resolve", resolve}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
