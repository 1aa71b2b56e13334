/* core.signal: the sealed messages of a node, as Lua sees them. */
#include "bindings/signal_inner.h"

#include "bindings/fail.h"
#include "bindings/identity.h"
#include "bindings/module.h"
#include "core/bytes.h"
#include "core/err.h"
#include "core/mqtt.h"

#include <stdlib.h>
#include <string.h>

#define SIGNAL_TYPE "p2pd.signal"
#define QUEUE_MESSAGES 256 /* that arrived and nobody took */

struct received {
    struct received *next;
    struct seal_message message; /* its body lies behind */
    bool stale;
    int64_t skew_ms;
    uint8_t body[];
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

/* ---- signal ---- */

struct signaling *check_open_signal(lua_State *L) {
    return luaL_checkudata(L, 1, SIGNAL_TYPE);
}

int push_signal_closed(lua_State *L) {
    return push_failure(L, ERR_ECLOSED, "signal");
}

static int64_t check_milliseconds(lua_State *L, int value, int arg) {
    int is_number;
    lua_Number seconds = lua_tonumberx(L, value, &is_number);
    luaL_argcheck(L, is_number && seconds > -1e12 && seconds < 1e12, arg, "a number of seconds");
    return (int64_t)(seconds * 1000);
}

/* new { identity=, [clock_error=] }: in seconds, what is added to the machine's clock */
static int new_signal(lua_State *L) {
    static const char *const keys[] = {"identity", "clock_error", NULL};
    check_options(L, 1, keys);
    lua_settop(L, 1);
    lua_getfield(L, 1, "identity");
    luaL_argcheck(L, luaL_testudata(L, 2, IDENTITY_TYPE), 1, "'identity' must be an identity");
    struct key *key = check_key(L, 2);
    if (!key)
        return push_failure(L, ERR_ECLOSED, "identity");
    int64_t clock_error_ms =
        lua_getfield(L, 1, "clock_error") == LUA_TNIL ? 0 : check_milliseconds(L, -1, 1);
    struct signaling *signaling = lua_newuserdatauv(L, sizeof(*signaling), 0);
    memset(signaling, 0, sizeof(*signaling));
    wait_list_init(&signaling->receivers);
    luaL_setmetatable(L, SIGNAL_TYPE);
    struct signal_options options = {
        .key = key,
        .on_message = on_message,
        .on_stale = on_stale,
        .arg = signaling,
        .clock_error_ms = clock_error_ms,
    };
    int status = signal_new(wait_loop(L), &options, &signaling->signal);
    return status ? push_failure(L, status, "signal") : 1;
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
        return push_signal_closed(L);
    int64_t skew_ms = lua_isnoneornil(L, 5) ? 0 : check_milliseconds(L, 5, 5);
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
        return push_signal_closed(L);
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
        return push_signal_closed(L);
    lua_settop(L, 1);
    push_deadline(L, timeout_s);
    return received(L, 0, 0);
}

/* signal:counters() -> { accepted=, malformed=, … } */
static int signal_counters_method(lua_State *L) {
    const struct signaling *signaling = check_open_signal(L);
    struct inbox_counters counters;
    if (!signaling->signal)
        return push_signal_closed(L);
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

/* signal:time() -> seconds since 1970, corrected: what messages of ours say */
static int signal_time_method(lua_State *L) {
    const struct signaling *signaling = check_open_signal(L);
    if (!signaling->signal)
        return push_signal_closed(L);
    lua_pushnumber(L, (lua_Number)signal_time_ms(signaling->signal) / 1000);
    return 1;
}

/* signal:set_clock_offset(seconds): what must be added to this machine's clock */
static int signal_set_clock_offset_method(lua_State *L) {
    const struct signaling *signaling = check_open_signal(L);
    int64_t offset_ms = check_milliseconds(L, 2, 2);
    if (!signaling->signal)
        return push_signal_closed(L);
    signal_set_clock_offset(signaling->signal, offset_ms);
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
    if (signaling->signal)
        lua_pushfstring(L, "signal (%d brokers up)", count_links_up(signaling));
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
        {"link", signal_link_method},   {"send", signal_send_method},
        {"recv", signal_recv},          {"counters", signal_counters_method},
        {"time", signal_time_method},   {"set_clock_offset", signal_set_clock_offset_method},
        {"close", signal_close_method}, {NULL, NULL},
    };
    static const luaL_Reg signal_metamethods[] = {
        {"__gc", signal_close_method},
        {"__close", signal_close_method},
        {"__tostring", signal_tostring},
        {NULL, NULL},
    };
    static const luaL_Reg functions[] = {
        {"new", new_signal},
        {"start_early", start_early},
        {NULL, NULL},
    };
    module_type(L, SIGNAL_TYPE, signal_methods, signal_metamethods);
    make_link_type(L);
    luaL_newlib(L, functions);
    return 1;
}
