/* core.nic: interfaces, routes, and news of them. */
#include "core/nic.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/wait.h"
#include "core/err.h"
#include "core/nic_watch.h"

#include <string.h>

#define WATCHER_TYPE "p2pd.nic_watcher"

struct watcher {
    struct nic_watch *watch; /* NULL once it is closed */
    struct wait *waiter;
    struct nic_change change; /* what no task was told yet */
    bool changed;
};

static void push_ip(lua_State *L, const struct ip *ip) {
    char text[IP_TEXT_SIZE];
    lua_pushlstring(L, text, ip_format(ip, text));
}

static void set_integer(lua_State *L, const char *key, lua_Integer value) {
    lua_pushinteger(L, value);
    lua_setfield(L, -2, key);
}

static void set_boolean(lua_State *L, const char *key, bool value) {
    lua_pushboolean(L, value);
    lua_setfield(L, -2, key);
}

static void set_ip(lua_State *L, const char *key, const struct ip *ip) {
    push_ip(L, ip);
    lua_setfield(L, -2, key);
}

/* list() -> { {name=, index=, mtu=, up=, loopback=, ip=, family=, prefix=, temporary=, deprecated=,
 * tentative=}, … }, an entry for each address */
static int list(lua_State *L) {
    struct nic *nics;
    size_t count;
    int status = nic_list(&nics, &count);
    if (status != 0)
        return push_failure(L, status, "cannot list the network interfaces");
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        const struct nic *nic = &nics[i];
        lua_createtable(L, 0, 11);
        lua_pushstring(L, nic->name);
        lua_setfield(L, -2, "name");
        set_integer(L, "index", nic->index);
        set_integer(L, "mtu", nic->mtu);
        set_boolean(L, "up", nic->up);
        set_boolean(L, "loopback", nic->loopback);
        set_ip(L, "ip", &nic->ip);
        set_integer(L, "family", nic->ip.family);
        set_integer(L, "prefix", nic->prefix);
        set_boolean(L, "temporary", nic->temporary);
        set_boolean(L, "deprecated", nic->deprecated);
        set_boolean(L, "tentative", nic->tentative);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    nic_free(nics);
    return 1;
}

/* routes() -> { {family=, name=, index=, gateway=, metric=}, … }: the default ones, the best of
 * each family first */
static int routes(lua_State *L) {
    struct nic_route *found;
    size_t count;
    int status = nic_routes(&found, &count);
    if (status != 0)
        return push_failure(L, status, "cannot list the routes");
    lua_createtable(L, (int)count, 0);
    lua_Integer place = 0;
    for (size_t i = 0; i < count; i++) {
        char name[IF_NAMESIZE];
        if (!if_indextoname(found[i].index, name)) /* gone meanwhile */
            continue;
        lua_createtable(L, 0, 5);
        set_integer(L, "family", found[i].family);
        lua_pushstring(L, name);
        lua_setfield(L, -2, "name");
        set_integer(L, "index", found[i].index);
        set_integer(L, "metric", found[i].metric);
        if (found[i].gateway.family != 0)
            set_ip(L, "gateway", &found[i].gateway);
        lua_rawseti(L, -2, ++place);
    }
    nic_free_routes(found);
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

/* --- news ---------------------------------------------------------------------------------- */

static struct watcher *check_watcher(lua_State *L) {
    return luaL_checkudata(L, 1, WATCHER_TYPE);
}

/* What comes while nobody waits is kept, as one. */
static void on_changed(void *arg, const struct nic_change *change) {
    struct watcher *watcher = arg;
    struct wait *waiter = watcher->waiter;
    watcher->changed = true;
    watcher->change.link |= change->link;
    watcher->change.address |= change->address;
    watcher->change.route |= change->route;
    watcher->change.overflow |= change->overflow;
    watcher->waiter = NULL;
    if (waiter)
        wait_wake(waiter, 0);
}

/* watch() -> watcher */
static int watch(lua_State *L) {
    struct watcher *watcher = lua_newuserdatauv(L, sizeof *watcher, 0);
    memset(watcher, 0, sizeof *watcher);
    luaL_setmetatable(L, WATCHER_TYPE);
    int status = nic_watch_open(wait_loop(L), on_changed, watcher, &watcher->watch);
    if (status != 0)
        return push_failure(L, status, "cannot watch the network interfaces");
    return 1;
}

static int push_change(lua_State *L, struct watcher *watcher) {
    const struct nic_change change = watcher->change;
    watcher->change = (struct nic_change){0};
    watcher->changed = false;
    lua_createtable(L, 0, 5);
    lua_pushstring(L, change.link      ? "link"
                      : change.address ? "address"
                      : change.route   ? "route"
                                       : "overflow");
    lua_setfield(L, -2, "kind");
    set_boolean(L, "link", change.link);
    set_boolean(L, "address", change.address);
    set_boolean(L, "route", change.route);
    set_boolean(L, "overflow", change.overflow);
    return 1;
}

static void detach(void *arg) {
    struct watcher *watcher = arg;
    watcher->waiter = NULL;
}

static int told(lua_State *L, int status, lua_KContext context) {
    (void)context;
    if (status == ERR_ECLOSED)
        return push_refusal(L, status, "the watcher was closed");
    if (status != 0)
        return push_failure(L, status, "waiting for a change of the network");
    return push_change(L, lua_touserdata(L, 1));
}

/* watcher:wait([timeout]) -> {kind=, link=, address=, route=, overflow=} */
static int watcher_wait(lua_State *L) {
    struct watcher *watcher = check_watcher(L);
    double timeout_s = check_timeout(L, 2, -1);
    struct wait *wait = wait_begin(L);
    if (!watcher->watch)
        return told(L, ERR_ECLOSED, 0);
    if (watcher->waiter)
        return push_refusal(L, UV_EBUSY, "another task waits for changes of the network");
    lua_settop(L, 1);
    if (watcher->changed)
        return push_change(L, watcher);
    watcher->waiter = wait;
    return wait_park(L, wait, timeout_s, detach, watcher, told, 0);
}

static int watcher_close(lua_State *L) {
    struct watcher *watcher = check_watcher(L);
    if (!watcher->watch)
        return 0;
    nic_watch_close(watcher->watch);
    watcher->watch = NULL;
    if (watcher->waiter)
        wait_post(watcher->waiter, ERR_ECLOSED);
    watcher->waiter = NULL;
    return 0;
}

static int watcher_tostring(lua_State *L) {
    lua_pushfstring(L, "network watcher (%s)", check_watcher(L)->watch ? "open" : "closed");
    return 1;
}

int open_nic(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"wait", watcher_wait},
        {"close", watcher_close},
        {NULL, NULL},
    };
    static const luaL_Reg metamethods[] = {
        {"__gc", watcher_close},
        {"__close", watcher_close},
        {"__tostring", watcher_tostring},
        {NULL, NULL},
    };
    static const luaL_Reg functions[] = {
        {"list", list}, {"routes", routes}, {"source", source}, {"watch", watch}, {NULL, NULL},
    };
    module_type(L, WATCHER_TYPE, methods, metamethods);
    luaL_newlib(L, functions);
    return 1;
}
