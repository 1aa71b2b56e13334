/* core.signal: the sealed messages of a node, as Lua sees them. */
#include "core/signal.h"

#include "bindings/fail.h"
#include "bindings/identity.h"
#include "bindings/module.h"
#include "bindings/wait.h"
#include "core/bytes.h"
#include "core/err.h"
#include "core/ip.h"
#include "core/mqtt.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define SIGNAL_TYPE "p2pd.signal"
#define LINK_TYPE "p2pd.signal.link"
#define DEFAULT_TIMEOUT_S 5
#define QUEUE_MESSAGES 256 /* that arrived and nobody took */
#define HOST_SIZE 256

struct received {
    struct received *next;
    struct seal_message message; /* its body lies behind */
    bool stale;
    int64_t skew_ms;
    uint8_t body[];
};

struct link;

struct signaling {
    struct signal *signal; /* NULL once it is closed */
    struct link *links;
    struct received *first, *last;
    unsigned count;
    uint64_t overload;
    struct wait_link receivers;
};

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

/* ---- messages ---- */

static void keep(struct signaling *signaling, const struct seal_message *message, bool stale,
                 int64_t skew_ms) {
    struct received *received =
        signaling->count < QUEUE_MESSAGES ? malloc(sizeof(*received) + message->body_length) : NULL;
    if (!received) {
        signaling->overload++;
        return;
    }
    received->next = NULL;
    received->message = *message;
    received->stale = stale;
    received->skew_ms = skew_ms;
    memcpy(received->body, message->body, message->body_length);
    if (signaling->last)
        signaling->last->next = received;
    else
        signaling->first = received;
    signaling->last = received;
    signaling->count++;
    struct wait *wait = wait_list_first(&signaling->receivers);
    if (wait) {
        wait_list_remove(wait);
        wait_wake(wait, 0);
    }
}

static void on_message(void *arg, const struct seal_message *message) {
    keep(arg, message, false, 0);
}

static void on_stale(void *arg, const struct seal_message *message, int64_t skew_ms) {
    keep(arg, message, true, skew_ms);
}

static void forget_first(struct signaling *signaling) {
    struct received *received = signaling->first;
    signaling->first = received->next;
    if (!signaling->first)
        signaling->last = NULL;
    signaling->count--;
    free(received);
}

static void push_received(lua_State *L, const struct received *received) {
    char from[KEY_ID_SIZE], id[2 * SEAL_ID_SIZE + 1];
    node_id_format(received->message.sender, from);
    hex_encode(received->message.id, SEAL_ID_SIZE, id);
    lua_createtable(L, 0, 6);
    lua_pushstring(L, from);
    lua_setfield(L, -2, "from");
    lua_pushstring(L, id);
    lua_setfield(L, -2, "id");
    lua_pushnumber(L, (lua_Number)received->message.time_ms / 1000);
    lua_setfield(L, -2, "time");
    lua_pushlstring(L, (const char *)received->body, received->message.body_length);
    lua_setfield(L, -2, "body");
    if (!received->stale)
        return;
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "stale");
    lua_pushnumber(L, (lua_Number)received->skew_ms / 1000);
    lua_setfield(L, -2, "skew");
}

/* ---- a link ---- */

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

static void close_link(struct link *link) {
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

static struct signaling *check_open_signal(lua_State *L) {
    return luaL_checkudata(L, 1, SIGNAL_TYPE);
}

static int push_closed(lua_State *L) {
    return push_failure(L, ERR_ECLOSED, "signal");
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

/* signal:link { ip=, port=, [host=], [tls=], [ca=], [timeout=] } -> link, once it is up */
static int signal_link_method(lua_State *L) {
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
        return push_closed(L);
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

/* ---- signal ---- */

/* new { identity= } */
static int new_signal(lua_State *L) {
    static const char *const keys[] = {"identity", NULL};
    check_options(L, 1, keys);
    lua_settop(L, 1);
    lua_getfield(L, 1, "identity");
    luaL_argcheck(L, luaL_testudata(L, 2, IDENTITY_TYPE), 1, "'identity' must be an identity");
    struct key *key = check_key(L, 2);
    if (!key)
        return push_failure(L, ERR_ECLOSED, "identity");
    struct signaling *signaling = lua_newuserdatauv(L, sizeof(*signaling), 0);
    memset(signaling, 0, sizeof(*signaling));
    wait_list_init(&signaling->receivers);
    luaL_setmetatable(L, SIGNAL_TYPE);
    struct signal_options options = {
        .key = key, .on_message = on_message, .on_stale = on_stale, .arg = signaling};
    int status = signal_new(wait_loop(L), &options, &signaling->signal);
    return status ? push_failure(L, status, "signal") : 1;
}

static size_t collect_links(lua_State *L, int arg, struct signal_link *links[SIGNAL_LINKS_MAX]) {
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

/* signal:send(node_id, body, links [, skew]) -> how many took it, its id; skew is the peer's clock
 * minus ours, in seconds, where that is known */
static int signal_send_method(lua_State *L) {
    const struct signaling *signaling = check_open_signal(L);
    size_t to_length, length;
    const char *to_text = luaL_checklstring(L, 2, &to_length);
    const char *body = luaL_checklstring(L, 3, &length);
    struct signal_link *links[SIGNAL_LINKS_MAX];
    size_t count = collect_links(L, 4, links);
    uint8_t to[KEY_PUBLIC_SIZE], id[SEAL_ID_SIZE];
    char id_text[2 * SEAL_ID_SIZE + 1];
    luaL_argcheck(L, node_id_parse(to_text, to_length, to) == 0, 2, "a node id");
    if (!signaling->signal)
        return push_closed(L);
    lua_Number skew = luaL_optnumber(L, 5, 0);
    luaL_argcheck(L, skew > -1e12 && skew < 1e12, 5, "a number of seconds");
    int64_t skew_ms = (int64_t)(skew * 1000);
    int taken = signal_send(signaling->signal, to, body, length, skew_ms, links, count, id);
    if (taken < 0)
        return push_failure(L, taken, "cannot send to %s", to_text);
    hex_encode(id, sizeof(id), id_text);
    lua_pushinteger(L, taken);
    lua_pushstring(L, id_text);
    return 2;
}

/* Another task may have taken the message for which this one was awakened: then it waits on. */
static int received(lua_State *L, int status, lua_KContext context) {
    struct signaling *signaling = lua_touserdata(L, 1);
    (void)context;
    if (signaling->first) {
        push_received(L, signaling->first);
        forget_first(signaling);
        return 1;
    }
    if (status)
        return push_failure(L, status, "no message");
    if (!signaling->signal) /* closed after it was awakened, before its turn */
        return push_closed(L);
    struct wait *wait = wait_begin(L);
    wait_list_add(&signaling->receivers, wait);
    return wait_park(L, wait, time_left(L, 2), wait_list_remove, wait, received, 0);
}

/* signal:recv([timeout]) -> { from=, id=, time=, body=, [stale=true, skew=] } */
static int signal_recv(lua_State *L) {
    const struct signaling *signaling = check_open_signal(L);
    double timeout_s = check_timeout(L, 2, -1);
    wait_begin(L);
    if (!signaling->signal)
        return push_closed(L);
    lua_settop(L, 1);
    push_deadline(L, timeout_s);
    return received(L, 0, 0);
}

/* signal:counters() -> { accepted=, malformed=, … } */
static int signal_counters_method(lua_State *L) {
    const struct signaling *signaling = check_open_signal(L);
    struct inbox_counters counters;
    if (!signaling->signal)
        return push_closed(L);
    signal_counters(signaling->signal, &counters);
    counters.overload += signaling->overload;
    lua_newtable(L);
#define X(name, sentence)                                                                          \
    lua_pushinteger(L, (lua_Integer)counters.name);                                                \
    lua_setfield(L, -2, #name);
    INBOX_COUNTERS(X)
#undef X
    return 1;
}

/* signal:set_clock_offset(seconds): what must be added to this machine's clock */
static int signal_set_clock_offset_method(lua_State *L) {
    const struct signaling *signaling = check_open_signal(L);
    lua_Number seconds = luaL_checknumber(L, 2);
    luaL_argcheck(L, seconds > -1e12 && seconds < 1e12, 2, "a number of seconds");
    if (!signaling->signal)
        return push_closed(L);
    signal_set_clock_offset(signaling->signal, (int64_t)(seconds * 1000));
    lua_pushboolean(L, 1);
    return 1;
}

static int signal_close_method(lua_State *L) {
    struct signaling *signaling = check_open_signal(L);
    struct wait *wait;
    if (!signaling->signal)
        return 0;
    while (signaling->links)
        close_link(signaling->links);
    signal_close(signaling->signal, NULL);
    signaling->signal = NULL;
    while (signaling->first)
        forget_first(signaling);
    while ((wait = wait_list_first(&signaling->receivers))) {
        wait_list_remove(wait);
        wait_post(wait, ERR_ECLOSED);
    }
    return 0;
}

static int signal_tostring(lua_State *L) {
    const struct signaling *signaling = check_open_signal(L);
    int count = 0;
    for (const struct link *link = signaling->links; link; link = link->next)
        count += link->up && !link->status;
    if (signaling->signal)
        lua_pushfstring(L, "signal (%d brokers up)", count);
    else
        lua_pushliteral(L, "signal (closed)");
    return 1;
}

/* start_early(): readies paho in the background */
static int start_early(lua_State *L) {
    (void)L;
    mqtt_start_early();
    return 0;
}

int open_signal(lua_State *L) {
    static const luaL_Reg signal_methods[] = {
        {"link", signal_link_method},
        {"send", signal_send_method},
        {"recv", signal_recv},
        {"counters", signal_counters_method},
        {"set_clock_offset", signal_set_clock_offset_method},
        {"close", signal_close_method},
        {NULL, NULL},
    };
    static const luaL_Reg signal_metamethods[] = {
        {"__gc", signal_close_method},
        {"__close", signal_close_method},
        {"__tostring", signal_tostring},
        {NULL, NULL},
    };
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
    static const luaL_Reg functions[] = {
        {"new", new_signal},
        {"start_early", start_early},
        {NULL, NULL},
    };
    module_type(L, SIGNAL_TYPE, signal_methods, signal_metamethods);
    module_type(L, LINK_TYPE, link_methods, link_metamethods);
    luaL_newlib(L, functions);
    return 1;
}
