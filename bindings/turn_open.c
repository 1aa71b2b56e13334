#include "bindings/fail.h"
#include "bindings/place.h"
#include "bindings/turn_inner.h"
#include "core/err.h"

#include <stdio.h>
#include <string.h>

#define HOST_MAX 255
#define FILE_MAX 4000

/* --- arguments ----------------------------------------------------------------------------- */

/* A text of the options at 1, which keep it; NULL when it is not there. */
static const char *text_field(lua_State *L, const char *key, size_t max) {
    size_t length = 0;
    int type = lua_getfield(L, 1, key);
    const char *text = type == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
    if (type != LUA_TNIL && (!text || strlen(text) != length || length > max))
        luaL_argerror(L, 1, lua_pushfstring(L, "'%s' is no text, or too long", key));
    lua_pop(L, 1);
    return text;
}

static size_t ips_field(lua_State *L, const char *key, struct ip out[TURN_PEERS_MAX]) {
    lua_Integer count = 0;
    if (lua_getfield(L, 1, key) != LUA_TNIL) {
        luaL_argcheck(L, lua_istable(L, -1), 1, "'permit' is a list of IP addresses");
        count = luaL_len(L, -1);
        luaL_argcheck(L, count <= TURN_PEERS_MAX, 1, "'permit' is too long");
        for (lua_Integer i = 0; i < count; i++) {
            lua_geti(L, -1, i + 1);
            out[i] = place_ip(L, -1, 1, key);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    return (size_t)count;
}

/* --- failures ------------------------------------------------------------------------------ */

/* What the server's errors mean for who has asked. */
static const char *words(uint16_t error, enum turn_method method) {
    switch (error) {
    case 300:
        return "sends us on to another server, to which it may not lead";
    case 400:
        return "does not understand what it is asked";
    case 401:
        return "does not accept the user's name or password";
    case 403:
        return method == TURN_ALLOCATE ? "does not let this user relay"
                                       : "does not relay to that address";
    case 420:
        return "does not know a part of what it is asked";
    case 437:
        return "has forgotten the relay";
    case 438:
        return "calls each nonce of its own stale";
    case 440:
        return "has no address of that family to relay with";
    case 441:
        return "says that the relay is another user's";
    case 442:
        return "does not relay TCP (RFC 6062)";
    case 443:
        return "relays in the other address family";
    case 446:
        return "is connected to that peer already";
    case 447:
        return "cannot connect to that peer";
    case 486:
        return "gives this user no more relays: too many are open";
    case 508:
        return "has no relay to give: too many are open";
    default:
        return "answered with an error";
    }
}

int turn_push_failure(lua_State *L, const struct box *box, int status,
                      const struct turn_outcome *outcome) {
    const char *reason = box->turn ? turn_reason(box->turn) : NULL;
    if (outcome->error != 0) {
        push_refusal(L, status, "TURN server %s %s (%d)", box->server,
                     words(outcome->error, outcome->method), outcome->error);
        lua_pushinteger(L, outcome->error);
        return 4;
    }
    if (status == UV_EPROTO)
        return push_refusal(L, status, "TURN server %s does not speak TURN as it should",
                            box->server);
    if (status == ERR_EFORGED)
        return push_refusal(L, status, "TURN server %s does not know this user's password",
                            box->server);
    if (status == UV_ECONNRESET)
        return push_refusal(L, status, "TURN server %s has ended the connection", box->server);
    if (status == ERR_ETLS && reason)
        return push_refusal(L, status, "TURN server %s: no secure connection: %s", box->server,
                            reason);
    return push_failure(L, status, "TURN server %s", box->server);
}

/* --- opening ------------------------------------------------------------------------------- */

static void on_opened(void *arg, int status, const struct turn_outcome *outcome) {
    struct box *box = arg;
    struct wait *wait = box->opener;
    box->opener = NULL;
    box->outcome = *outcome;
    if (wait)
        wait_wake(wait, status);
}

static void give_up(void *arg) {
    struct box *box = arg;
    box->opener = NULL;
    turn_close_box(box);
}

/* The allocation lies at `place`. */
static int opened(lua_State *L, int status, lua_KContext place) {
    struct box *box = lua_touserdata(L, (int)place);
    lua_settop(L, (int)place);
    if (status != 0) {
        int count = turn_push_failure(L, box, status, &box->outcome);
        turn_close_box(box);
        return count;
    }
    struct turn_facts facts = turn_facts(box->turn);
    lua_getiuservalue(L, -1, 1);
    place_set(L, "ip", "port", &facts.relayed);
    place_set(L, "external_ip", "external_port", &facts.external);
    place_set(L, "server_ip", "server_port", &facts.server);
    lua_pushinteger(L, facts.lifetime_s);
    lua_setfield(L, -2, "lifetime");
    lua_pushstring(L, box->server);
    lua_setfield(L, -2, "server");
    lua_pop(L, 1);
    return 1;
}

static uint8_t family_field(lua_State *L) {
    int is_integer = 1;
    lua_Integer family = 4;
    if (lua_getfield(L, 1, "family") != LUA_TNIL)
        family = lua_tointegerx(L, -1, &is_integer);
    luaL_argcheck(L, is_integer && (family == 4 || family == 6), 1, "'family' is 4 or 6");
    lua_pop(L, 1);
    return (uint8_t)family;
}

int turn_open_allocation(lua_State *L) {
    static const char *const keys[] = {"ip", "port",     "user",   "password", "tls",     "host",
                                       "ca", "local_ip", "family", "permit",   "timeout", NULL};
    struct ip permitted[TURN_PEERS_MAX];
    check_options(L, 1, keys);
    lua_settop(L, 1);
    struct turn_options options = {.permitted = permitted, .family = family_field(L)};
    lua_getfield(L, 1, "ip");
    options.server.ip = place_ip(L, -1, 1, "ip");
    lua_getfield(L, 1, "port");
    options.server.port = place_port(L, -1, 1, "port", 1);
    if (lua_getfield(L, 1, "local_ip") != LUA_TNIL)
        options.local = place_ip(L, -1, 1, "local_ip");
    lua_getfield(L, 1, "tls");
    options.tls = lua_toboolean(L, -1);
    lua_settop(L, 1);
    options.user = text_field(L, "user", TURN_USER_MAX);
    options.password = text_field(L, "password", TURN_TEXT_MAX);
    options.host = text_field(L, "host", HOST_MAX);
    options.ca_file = text_field(L, "ca", FILE_MAX);
    luaL_argcheck(L, options.user && *options.user, 1, "'user' is missing");
    luaL_argcheck(L, options.password, 1, "'password' is missing");
    options.permitted_count = ips_field(L, "permit", permitted);
    options.timeout_ms = place_milliseconds(option_timeout(L, 1, "timeout", TURN_TIMEOUT_S));
    struct wait *wait = wait_begin(L);
    struct box *box = turn_push_box(L);
    char text[IP_TEXT_SIZE];
    ip_format(&options.server.ip, text);
    if (!options.host)
        options.host = text;
    snprintf(box->server, sizeof box->server, strchr(options.host, ':') ? "[%s]:%d" : "%s:%d",
             options.host, options.server.port);
    int status = turn_open(wait_loop(L), &options, on_opened, box, &box->turn);
    if (status != 0)
        return push_failure(L, status, "TURN server %s", box->server);
    box->opener = wait;
    return wait_park(L, wait, -1, give_up, box, opened, 2);
}
