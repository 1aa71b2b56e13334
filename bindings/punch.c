/* core.punch: holes through routers. */
#include "core/punch.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/place.h"
#include "bindings/punch_plan.h"
#include "bindings/socket.h"
#include "bindings/wait.h"
#include "core/err.h"

#include <string.h>

#define PUNCHER_TYPE "p2pd.puncher"
#define LATEST_S 600.0 /* what is fired is sent by then */
#define SOCKETS 2048
#define SYNS 2048

struct box {
    struct puncher *puncher; /* NULL once it is closed */
    struct wait *waiter;
    struct ip remote;
    struct punch_seen seen; /* when it was looked at last */
};

static const double NS_PER_MS = 1e6, NS_PER_S = 1e9;

static struct box *check_box(lua_State *L) {
    return luaL_checkudata(L, 1, PUNCHER_TYPE);
}

static int push_closed(lua_State *L) {
    return push_refusal(L, ERR_ECLOSED, "the puncher was closed");
}

/* --- arguments ----------------------------------------------------------------------------- */

static struct ip ip_field(lua_State *L, const char *key) {
    struct ip ip = {0};
    if (lua_getfield(L, 1, key) != LUA_TNIL)
        ip = place_ip(L, -1, 1, key);
    lua_pop(L, 1);
    return ip;
}

/* The whole number in the field `key` of the table on top, of argument `arg`. */
static lua_Integer whole_field(lua_State *L, int arg, const char *key, lua_Integer least,
                               lua_Integer most, lua_Integer otherwise) {
    int is_whole = 1;
    lua_Integer value = otherwise;
    if (lua_getfield(L, -1, key) != LUA_TNIL)
        value = lua_tointegerx(L, -1, &is_whole);
    if (!is_whole || value < least || value > most)
        luaL_argerror(L, arg,
                      lua_pushfstring(L, "'%s' is no whole number from %d to %d", key, (int)least,
                                      (int)most));
    lua_pop(L, 1);
    return value;
}

static double number_field(lua_State *L, int arg, const char *key, double most, double otherwise) {
    double value = otherwise;
    if (lua_getfield(L, -1, key) != LUA_TNIL)
        value = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : -1;
    if (!(value >= 0 && value <= most))
        luaL_argerror(L, arg, lua_pushfstring(L, "'%s' is no number from 0 to %f", key, most));
    lua_pop(L, 1);
    return value;
}

static void limits_field(lua_State *L, struct punch_options *options) {
    static const char *const keys[] = {"sockets", "syns", NULL};
    options->sockets = SOCKETS;
    options->syns = SYNS;
    if (lua_getfield(L, 1, "limits") != LUA_TNIL) {
        luaL_argcheck(L, lua_istable(L, -1), 1, "'limits' is no table");
        check_options(L, lua_gettop(L), keys);
        options->sockets = (unsigned)whole_field(L, 1, "sockets", 1, PUNCH_SOCKETS_MAX, SOCKETS);
        options->syns = (unsigned)whole_field(L, 1, "syns", 1, PUNCH_SYNS_MAX, SYNS);
    }
    lua_pop(L, 1);
}

/* --- opening, closing ---------------------------------------------------------------------- */

/* open{remote_ip, local_ip, device, limits={sockets, syns}} -> puncher */
static int open_(lua_State *L) {
    static const char *const keys[] = {"remote_ip", "local_ip", "device", "limits", NULL};
    check_options(L, 1, keys);
    lua_settop(L, 1);
    struct punch_options options = {.remote = ip_field(L, "remote_ip"),
                                    .local = ip_field(L, "local_ip")};
    luaL_argcheck(L, options.remote.family != 0, 1, "'remote_ip' is missing");
    limits_field(L, &options);
    int type = lua_getfield(L, 1, "device");
    luaL_argcheck(L, type == LUA_TNIL || type == LUA_TSTRING, 1, "'device' is no interface's name");
    options.device = lua_tostring(L, -1);
    struct box *box = lua_newuserdatauv(L, sizeof *box, 0);
    memset(box, 0, sizeof *box);
    box->remote = options.remote;
    luaL_setmetatable(L, PUNCHER_TYPE);
    int status = punch_open(wait_loop(L), &options, &box->puncher);
    if (status != 0) {
        char text[IP_TEXT_SIZE];
        ip_format(&options.remote, text);
        return push_failure(L, status, "cannot punch toward %s", text);
    }
    return 1;
}

/* puncher:close() */
static int close_(lua_State *L) {
    struct box *box = check_box(L);
    if (!box->puncher)
        return 0;
    punch_seen(box->puncher, &box->seen);
    punch_close(box->puncher);
    box->puncher = NULL;
    if (box->waiter)
        wait_post(box->waiter, ERR_ECLOSED);
    box->waiter = NULL;
    return 0;
}

/* --- doing --------------------------------------------------------------------------------- */

/* puncher:listen(port) -> the port: 0 is any */
static int listen_(lua_State *L) {
    struct box *box = check_box(L);
    lua_Integer asked = luaL_checkinteger(L, 2);
    luaL_argcheck(L, asked >= 0 && asked <= UINT16_MAX, 2, "no port");
    if (!box->puncher)
        return push_closed(L);
    uint16_t port;
    int status = punch_listen(box->puncher, (uint16_t)asked, &port);
    if (status != 0)
        return push_failure(L, status, "cannot listen on port %d", (int)asked);
    lua_pushinteger(L, port);
    return 1;
}

/* The shot on top. */
static struct punch_shot shot_at(lua_State *L) {
    luaL_argcheck(L, lua_istable(L, -1), 2, "a shot is a table");
    struct punch_shot shot = {
        .after_ns = (uint64_t)(number_field(L, 2, "at_ms", LATEST_S * 1e3, 0) * NS_PER_MS),
        .local_port = (uint16_t)whole_field(L, 2, "local_port", 0, UINT16_MAX, 0),
        .remote_port = (uint16_t)whole_field(L, 2, "remote_port", 1, UINT16_MAX, 0),
        .ttl = (uint8_t)whole_field(L, 2, "ttl", 0, UINT8_MAX, 0),
    };
    lua_getfield(L, -1, "listens");
    shot.listens = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return shot;
}

static int push_not_fired(lua_State *L, int status, size_t count) {
    switch (status) {
    case UV_ENOBUFS:
        return push_refusal(L, status, "this puncher's limit of SYNs leaves no %zu more", count);
    case UV_EMFILE:
        return push_refusal(L, status,
                            "%zu shots need more descriptors than this program may have "
                            "(`ulimit -Hn` shows its limit)",
                            count);
    default:
        return push_failure(L, status, "cannot fire %zu shots", count);
    }
}

/* puncher:fire({{at_ms, local_port, remote_port, ttl, listens}, …}, {at, revive, revive_gap_ms})
 * -> true */
static int fire(lua_State *L) {
    static const char *const keys[] = {"at", "revive", "revive_gap_ms", NULL};
    struct box *box = check_box(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 3);
    if (lua_isnil(L, 3)) {
        lua_newtable(L);
        lua_replace(L, 3);
    }
    check_options(L, 3, keys);
    struct punch_volley volley = {.count = lua_rawlen(L, 2)};
    luaL_argcheck(L, volley.count <= PUNCH_SYNS_MAX, 2, "too many shots");
    volley.at_ns = (uint64_t)(number_field(L, 3, "at", 1e9, 0) * NS_PER_S);
    volley.revive = (unsigned)whole_field(L, 3, "revive", 0, PUNCH_SYNS_MAX, 0);
    volley.revive_gap_ns = (uint64_t)(number_field(L, 3, "revive_gap_ms", 1e4, 4) * NS_PER_MS);
    struct punch_shot *shots = lua_newuserdatauv(L, (volley.count + 1) * sizeof *shots, 0);
    for (size_t i = 0; i < volley.count; i++) {
        lua_rawgeti(L, 2, (lua_Integer)i + 1);
        shots[i] = shot_at(L);
        lua_pop(L, 1);
    }
    volley.shots = shots;
    if (!box->puncher)
        return push_closed(L);
    int status = punch_fire(box->puncher, &volley);
    if (status != 0)
        return push_not_fired(L, status, volley.count);
    lua_pushboolean(L, 1);
    return 1;
}

/* puncher:halt(): nothing more is sent */
static int halt(lua_State *L) {
    struct box *box = check_box(L);
    if (box->puncher)
        punch_halt(box->puncher);
    return 0;
}

/* --- waiting ------------------------------------------------------------------------------- */

/* What is told in milliseconds counts from the first volley's time. */
static double milliseconds(const struct punch_seen *seen, uint64_t at_ns) {
    return ((double)at_ns - (double)seen->begun_ns) / NS_PER_MS;
}

static int push_hole(lua_State *L, struct box *box, const struct punch_hole *hole) {
    char text[IP_TEXT_SIZE];
    punch_seen(box->puncher, &box->seen);
    push_socket(L, hole->fd);
    lua_getiuservalue(L, -1, 1);
    lua_pushlstring(L, text, ip_format(&hole->local, text));
    lua_setfield(L, -2, "local_ip");
    lua_pushinteger(L, hole->local_port);
    lua_setfield(L, -2, "local_port");
    lua_pushlstring(L, text, ip_format(&hole->remote, text));
    lua_setfield(L, -2, "remote_ip");
    lua_pushinteger(L, hole->remote_port);
    lua_setfield(L, -2, "remote_port");
    lua_pushstring(L, hole->accepted ? "accepted" : "connected");
    lua_setfield(L, -2, "how");
    lua_pushnumber(L, milliseconds(&box->seen, hole->at_ns));
    lua_setfield(L, -2, "ms");
    lua_pop(L, 1);
    return 1;
}

static int push_over(lua_State *L, struct box *box, int status) {
    char text[IP_TEXT_SIZE];
    const unsigned *counts = box->seen.counts;
    punch_seen(box->puncher, &box->seen);
    ip_format(&box->remote, text);
    if (status == UV_ECANCELED)
        return push_refusal(L, status, "nothing is under way to %s any more", text);
    unsigned failed = counts[PUNCH_refused] + counts[PUNCH_icmp] + counts[PUNCH_failed];
    return push_failure(L, status, "no connection to %s by %u shot%s", text, failed,
                        failed == 1 ? "" : "s");
}

static void detach(void *arg) {
    struct box *box = arg;
    box->waiter = NULL;
    if (box->puncher)
        punch_on_news(box->puncher, NULL, NULL);
}

static void on_news(void *arg, int status) {
    struct box *box = arg;
    struct wait *waiter = box->waiter;
    (void)status;
    box->waiter = NULL;
    if (waiter)
        wait_wake(waiter, 0);
}

static int waited(lua_State *L, int status, lua_KContext context) {
    struct box *box = lua_touserdata(L, 1);
    struct punch_hole hole;
    (void)context;
    if (status == ERR_ECLOSED || !box->puncher)
        return push_closed(L);
    if (status != 0)
        return push_failure(L, status, "waiting for a connection through the routers");
    status = punch_next(box->puncher, &hole);
    return status == 0 ? push_hole(L, box, &hole) : push_over(L, box, status);
}

/* puncher:wait([timeout]) -> socket, with .local_ip .local_port .remote_ip .remote_port .how .ms */
static int wait_(lua_State *L) {
    struct box *box = check_box(L);
    double timeout_s = check_timeout(L, 2, -1);
    struct wait *wait = wait_begin(L);
    struct punch_hole hole;
    if (!box->puncher)
        return push_closed(L);
    if (box->waiter)
        return push_refusal(L, UV_EBUSY, "another task waits for this puncher");
    lua_settop(L, 1);
    int status = punch_next(box->puncher, &hole);
    if (status == 0)
        return push_hole(L, box, &hole);
    if (status != UV_EAGAIN)
        return push_over(L, box, status);
    box->waiter = wait;
    punch_on_news(box->puncher, on_news, box);
    return wait_park(L, wait, timeout_s, detach, box, waited, 0);
}

/* --- seeing -------------------------------------------------------------------------------- */

static const char *const kind_names[] = {
#define X(name) #name,
    PUNCH_KINDS(X)
#undef X
};

static void push_failures(lua_State *L, const struct punch_seen *seen) {
    lua_newtable(L);
    for (size_t i = 0; i < PUNCH_FAILURES_MAX && seen->failures[i].status != 0; i++) {
        lua_pushinteger(L, seen->failures[i].count);
        lua_setfield(L, -2, err_name(seen->failures[i].status));
    }
}

static void push_firsts(lua_State *L, const struct punch_seen *seen) {
    lua_newtable(L);
    for (size_t kind = 0; kind < PUNCH_KIND_COUNT; kind++)
        if (seen->first_ns[kind] != 0) {
            lua_pushnumber(L, milliseconds(seen, seen->first_ns[kind]));
            lua_setfield(L, -2, kind_names[kind]);
        }
}

static void push_events(lua_State *L, const struct punch_seen *seen) {
    lua_createtable(L, (int)seen->event_count, 0);
    for (unsigned i = 0; i < seen->event_count; i++) {
        const struct punch_event *event = &seen->events[i];
        lua_createtable(L, 0, 5);
        lua_pushnumber(L, milliseconds(seen, event->at_ns));
        lua_setfield(L, -2, "ms");
        lua_pushstring(L, kind_names[event->kind]);
        lua_setfield(L, -2, "what");
        lua_pushinteger(L, event->local_port);
        lua_setfield(L, -2, "local_port");
        lua_pushinteger(L, event->remote_port);
        lua_setfield(L, -2, "remote_port");
        if (event->status != 0) {
            lua_pushstring(L, err_name(event->status));
            lua_setfield(L, -2, "code");
        }
        lua_rawseti(L, -2, i + 1);
    }
}

/* puncher:seen() -> {sent=, refused=, unreachable=, open=, connected=, accepted=, self=, stranger=,
 * crowded=, revived=, withheld=, alive=, listening=, failed={}, first_ms={}, begun=, events={},
 * unlisted=}; of a closed one as it was then */
static int seen_(lua_State *L) {
    struct box *box = check_box(L);
    struct punch_seen *seen = &box->seen;
    if (box->puncher)
        punch_seen(box->puncher, seen);
    const unsigned *counts = seen->counts;
    const struct {
        const char *name;
        unsigned value;
    } fields[] = {{"sent", counts[PUNCH_sent]},
                  {"refused", counts[PUNCH_refused]},
                  {"unreachable", counts[PUNCH_icmp]},
                  {"open", counts[PUNCH_connected] + counts[PUNCH_accepted]},
                  {"connected", counts[PUNCH_connected]},
                  {"accepted", counts[PUNCH_accepted]},
                  {"self", counts[PUNCH_self]},
                  {"stranger", counts[PUNCH_stranger]},
                  {"crowded", counts[PUNCH_crowded]},
                  {"revived", seen->revived},
                  {"withheld", seen->withheld},
                  {"alive", seen->alive},
                  {"listening", seen->listening},
                  {"unlisted", seen->unlisted}};
    lua_createtable(L, 0, 20);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        lua_pushinteger(L, fields[i].value);
        lua_setfield(L, -2, fields[i].name);
    }
    lua_pushnumber(L, (double)seen->begun_ns / NS_PER_S);
    lua_setfield(L, -2, "begun");
    push_failures(L, seen);
    lua_setfield(L, -2, "failed");
    push_firsts(L, seen);
    lua_setfield(L, -2, "first_ms");
    push_events(L, seen);
    lua_setfield(L, -2, "events");
    return 1;
}

static int tostring(lua_State *L) {
    struct box *box = check_box(L);
    char text[IP_TEXT_SIZE];
    ip_format(&box->remote, text);
    lua_pushfstring(L, "puncher (toward %s, %s)", text, box->puncher ? "open" : "closed");
    return 1;
}

int open_punch(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"listen", listen_}, {"fire", fire},    {"halt", halt}, {"wait", wait_},
        {"seen", seen_},     {"close", close_}, {NULL, NULL},
    };
    static const luaL_Reg metamethods[] = {
        {"__gc", close_},
        {"__close", close_},
        {"__tostring", tostring},
        {NULL, NULL},
    };
    module_type(L, PUNCHER_TYPE, methods, metamethods);
    open_socket(L);
    luaL_newlib(L, ((const luaL_Reg[]){{"open", open_}, {NULL, NULL}}));
    add_punch_plan(L);
    luaL_getmetatable(L, PUNCHER_TYPE);
    lua_getfield(L, -1, "__index");
    lua_setfield(L, -3, "methods"); /* for spec/meta_spec.lua */
    lua_pop(L, 1);
    return 1;
}
