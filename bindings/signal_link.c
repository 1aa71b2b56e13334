/* core.signal: a node's links to its brokers, as Lua sees them. */
#include "bindings/signal_inner.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "core/err.h"
#include "core/ip.h"

#include <limits.h>
#include <string.h>

#define LINK_TYPE "p2pd.signal.link"
#define DEFAULT_TIMEOUT_S 5
#define HOST_SIZE 256

struct link {
    struct signal_link *link; /* NULL once it is closed */
    struct signaling *owner;
    struct link *next;
    struct wait *opener; /* the task in signal:link, until it is up or down */
    struct wait_link watchers;
    int status; /* 0 until it is down or closed */
    bool up;
    uint16_t port;
    const char *reason; /* static text */
    char host[HOST_SIZE];
};

/* Posts, as one who wakes may let go of the link while others are still in its list. */
static void wake_watchers(struct link *link, int status) {
    struct wait *wait;
    while ((wait = wait_list_first(&link->watchers))) {
        wait_list_remove(wait);
        wait_post(wait, status);
    }
}

static void on_up(void *arg) {
    struct link *link = arg;
    struct wait *opener = link->opener;
    link->up = true;
    link->opener = NULL;
    if (opener)
        wait_wake(opener, 0);
}

static void on_down(void *arg, int status) {
    struct link *link = arg;
    struct wait *opener = link->opener;
    link->status = status;
    link->reason = signal_link_reason(link->link);
    link->opener = NULL;
    if (opener)
        wait_wake(opener, status);
    else
        wake_watchers(link, status);
}

void close_link(struct link *link) {
    if (!link->link)
        return;
    signal_link_close(link->link);
    link->link = NULL;
    if (!link->status)
        link->status = ERR_ECLOSED;
    struct link **place = &link->owner->links;
    while (*place != link)
        place = &(*place)->next;
    *place = link->next;
    if (link->opener)
        wait_post(link->opener, ERR_ECLOSED);
    link->opener = NULL;
    wake_watchers(link, link->status);
}

static int push_link_failure(lua_State *L, const struct link *link, const char *what) {
    if (link->status == ERR_ETLS && link->reason)
        return push_refusal(L, ERR_ETLS, "%s %s:%d: %s", what, link->host, link->port,
                            link->reason);
    return push_failure(L, link->status, "%s %s:%d", what, link->host, link->port);
}

static int link_opened(lua_State *L, int status, lua_KContext context) {
    struct link *link = lua_touserdata(L, (int)context);
    if (status == 0) {
        lua_settop(L, (int)context);
        return 1;
    }
    close_link(link);
    return push_link_failure(L, link, "cannot connect to broker");
}

static void detach_opener(void *arg) {
    struct link *link = arg;
    link->opener = NULL;
    close_link(link);
}

static const char *text_field(lua_State *L, const char *key, const char *otherwise) {
    if (lua_getfield(L, 2, key) == LUA_TNIL && otherwise) {
        lua_pop(L, 1);
        return otherwise;
    }
    size_t length;
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
    if (!text || length == 0 || length >= HOST_SIZE || strlen(text) != length)
        luaL_argerror(L, 2, lua_pushfstring(L, "'%s' must be a text", key));
    return text; /* stays on the stack, as the field of a table does not */
}

static lua_Integer port_field(lua_State *L) {
    int is_integer;
    lua_getfield(L, 2, "port");
    lua_Integer port = lua_tointegerx(L, -1, &is_integer);
    luaL_argcheck(L, is_integer && port >= 1 && port <= 65535, 2, "'port' must be 1 to 65535");
    return port;
}

int signal_link_method(lua_State *L) {
    static const char *const keys[] = {"ip", "port", "host", "tls", "ca", "timeout", NULL};
    struct signaling *signaling = check_open_signal(L);
    check_options(L, 2, keys);
    lua_settop(L, 2);
    struct ip ip;
    const char *ip_text = text_field(L, "ip", NULL);
    luaL_argcheck(L, ip_parse(ip_text, strlen(ip_text), &ip) == 0, 2, "'ip' must be an address");
    const char *host = text_field(L, "host", ip_text);
    const char *ca = text_field(L, "ca", "");
    uint16_t port = (uint16_t)port_field(L);
    double timeout_s = option_timeout(L, 2, "timeout", DEFAULT_TIMEOUT_S);
    lua_getfield(L, 2, "tls");
    bool tls = lua_toboolean(L, -1);
    struct wait *wait = wait_begin(L);
    if (!signaling->signal)
        return push_signal_closed(L);
    struct sockaddr_storage remote;
    ip_to_sockaddr(&ip, port, &remote);
    struct link *link = lua_newuserdatauv(L, sizeof(*link), 1);
    int place = lua_gettop(L);
    memset(link, 0, sizeof(*link));
    wait_list_init(&link->watchers);
    memcpy(link->host, host, strlen(host) + 1);
    link->owner = signaling;
    link->opener = wait;
    link->port = port;
    luaL_setmetatable(L, LINK_TYPE);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, place, 1); /* the owner outlives it */
    struct signal_link_options options = {
        .remote = (struct sockaddr *)&remote,
        .tls = tls,
        .host = host,
        .ca_file = *ca ? ca : NULL,
        .connect_timeout_ms =
            timeout_s < 0 || timeout_s > INT_MAX / 1000 ? INT_MAX : (unsigned)(timeout_s * 1000),
        .on_up = on_up,
        .on_down = on_down,
        .arg = link,
    };
    link->status = signal_link(signaling->signal, &options, &link->link);
    if (link->status) {
        link->opener = NULL;
        return push_link_failure(L, link, "cannot connect to broker");
    }
    link->next = signaling->links;
    signaling->links = link;
    return wait_park(L, wait, -1, detach_opener, link, link_opened, place);
}

static int watched(lua_State *L, int status, lua_KContext context) {
    const struct link *link = lua_touserdata(L, 1);
    (void)context;
    if (status == UV_ETIMEDOUT && !link->status)
        return push_failure(L, UV_ETIMEDOUT, "broker %s:%d is still up", link->host, link->port);
    return push_link_failure(L, link, "lost broker");
}

/* link:wait_down([timeout]) -> nil, message, code, once it is down */
static int link_wait_down(lua_State *L) {
    struct link *link = luaL_checkudata(L, 1, LINK_TYPE);
    double timeout_s = check_timeout(L, 2, -1);
    struct wait *wait = wait_begin(L);
    if (link->status)
        return watched(L, link->status, 0);
    wait_list_add(&link->watchers, wait);
    return wait_park(L, wait, timeout_s, wait_list_remove, wait, watched, 0);
}

static int link_is_up(lua_State *L) {
    const struct link *link = luaL_checkudata(L, 1, LINK_TYPE);
    lua_pushboolean(L, link->up && !link->status);
    return 1;
}

static int link_close(lua_State *L) {
    close_link(luaL_checkudata(L, 1, LINK_TYPE));
    return 0;
}

static int link_tostring(lua_State *L) {
    const struct link *link = luaL_checkudata(L, 1, LINK_TYPE);
    const char *state = link->status ? err_name(link->status) : link->up ? "up" : "connecting";
    lua_pushfstring(L, "broker %s:%d (%s)", link->host, link->port, state);
    return 1;
}

size_t collect_links(lua_State *L, int arg, struct signal_link *links[SIGNAL_LINKS_MAX]) {
    size_t count = 0;
    luaL_checktype(L, arg, LUA_TTABLE);
    for (lua_Integer i = 1; lua_rawgeti(L, arg, i) != LUA_TNIL; i++) {
        const struct link *link = luaL_testudata(L, -1, LINK_TYPE);
        luaL_argcheck(L, link, arg, "a list of links");
        if (link->link && count < SIGNAL_LINKS_MAX)
            links[count++] = link->link;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return count;
}

int count_links_up(const struct signaling *signaling) {
    int count = 0;
    for (const struct link *link = signaling->links; link; link = link->next)
        count += link->up && !link->status;
    return count;
}

void make_link_type(lua_State *L) {
    static const luaL_Reg link_methods[] = {
        {"wait_down", link_wait_down},
        {"is_up", link_is_up},
        {"close", link_close},
        {NULL, NULL},
    };
    static const luaL_Reg link_metamethods[] = {
        {"__gc", link_close},
        {"__close", link_close},
        {"__tostring", link_tostring},
        {NULL, NULL},
    };
    module_type(L, LINK_TYPE, link_methods, link_metamethods);
}
