/* core.stun: what STUN servers see. */
#include "core/stun.h"
#include "core/stun_tcp.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/place.h"
#include "bindings/wait.h"
#include "core/err.h"
#include "core/nic.h"

#include <string.h>

#define SOCKET_TYPE "p2pd.stun.socket"
#define CONNECTION_TYPE "p2pd.stun.connection"
#define TIMEOUT_S 3.0

/* A question that a task waits for; lies in a userdata on that task's stack. */
struct question {
    struct question *next, **link; /* of its box, which ends them when it is closed */
    struct box *box;
    struct stun_transaction *transaction; /* of a socket */
    struct wait *wait;
    struct stun_result result;
    struct stun_endpoint server;
};

struct box { /* a socket or a connection; its other fields lie in a table, its user value */
    struct stun_socket *socket; /* both are NULL once it is closed */
    struct stun_tcp *tcp;
    struct question *questions;
};

/* --- arguments ----------------------------------------------------------------------------- */

/* The fields `ip_key` and `port_key` of the options at index 1; without them family 0, port 0. */
static struct stun_endpoint endpoint_field(lua_State *L, const char *ip_key, const char *port_key) {
    struct stun_endpoint endpoint = {0};
    if (lua_getfield(L, 1, ip_key) != LUA_TNIL)
        endpoint.ip = place_ip(L, -1, 1, ip_key);
    if (lua_getfield(L, 1, port_key) != LUA_TNIL)
        endpoint.port = place_port(L, -1, 1, port_key, 0);
    lua_pop(L, 2);
    return endpoint;
}

static struct stun_endpoint server_field(lua_State *L) {
    luaL_argcheck(L, lua_getfield(L, 1, "ip") != LUA_TNIL, 1, "'ip' is missing");
    luaL_argcheck(L, lua_getfield(L, 1, "port") != LUA_TNIL, 1, "'port' is missing");
    lua_pop(L, 2);
    return endpoint_field(L, "ip", "port");
}

/* The text stays in the options at index 1, and so on the stack. */
static struct stun_local local_fields(lua_State *L, const char *ip_key, const char *port_key) {
    struct stun_endpoint endpoint = endpoint_field(L, ip_key, port_key);
    struct stun_local local = {.ip = endpoint.ip, .port = endpoint.port};
    int type = lua_getfield(L, 1, "device");
    if (type != LUA_TNIL)
        luaL_argcheck(L, type == LUA_TSTRING, 1, "'device' is no interface's name");
    local.device = lua_tostring(L, -1);
    lua_pop(L, 1);
    return local;
}

/* --- results ------------------------------------------------------------------------------- */

static void set_result(lua_State *L, const struct stun_result *result) {
    place_set(L, "external_ip", "external_port", &result->external);
    place_set(L, "from_ip", "from_port", &result->from);
    place_set(L, "other_ip", "other_port", &result->other);
    lua_pushnumber(L, (lua_Number)result->rtt_us / 1e6);
    lua_setfield(L, -2, "rtt");
    lua_pushinteger(L, result->requests);
    lua_setfield(L, -2, "requests");
}

static int push_bad_answer(lua_State *L, const struct question *question, int status) {
    char text[IP_TEXT_SIZE];
    ip_format(&question->server.ip, text);
    if (status != UV_EPROTO || question->result.error == 0)
        return push_failure(L, status, "asking STUN server %s, port %d", text,
                            question->server.port);
    push_refusal(L, status, "STUN server %s, port %d, answered with error %d", text,
                 question->server.port, question->result.error);
    lua_pushinteger(L, question->result.error);
    return 4;
}

/* --- questions ----------------------------------------------------------------------------- */

static void unlink_question(struct question *question) {
    if (!question->link)
        return;
    *question->link = question->next;
    if (question->next)
        question->next->link = question->link;
    question->link = NULL;
}

static void on_result(void *arg, int status, const struct stun_result *result) {
    struct question *question = arg;
    question->transaction = NULL;
    question->result = *result;
    unlink_question(question);
    wait_wake(question->wait, status);
}

static void detach(void *arg) {
    struct question *question = arg;
    if (question->transaction)
        stun_cancel(question->transaction);
    else
        stun_tcp_cancel(question->box->tcp);
    question->transaction = NULL;
    unlink_question(question);
}

static struct question *push_question(lua_State *L, struct wait *wait, struct box *box,
                                      const struct stun_endpoint *server) {
    struct question *question = lua_newuserdatauv(L, sizeof *question, 0);
    memset(question, 0, sizeof *question);
    question->wait = wait;
    question->box = box;
    question->server = *server;
    question->next = box->questions;
    question->link = &box->questions;
    box->questions = question;
    if (question->next)
        question->next->link = &question->next;
    return question;
}

static struct box *push_box(lua_State *L, const char *type) {
    struct box *box = lua_newuserdatauv(L, sizeof *box, 1);
    memset(box, 0, sizeof *box);
    luaL_setmetatable(L, type);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    return box;
}

static void close_box(struct box *box) {
    if (box->socket)
        stun_socket_close(box->socket);
    if (box->tcp)
        stun_tcp_close(box->tcp);
    box->socket = NULL;
    box->tcp = NULL;
    while (box->questions) {
        struct question *question = box->questions;
        question->transaction = NULL;
        unlink_question(question);
        wait_post(question->wait, ERR_ECLOSED);
    }
}

/* For questions whose socket or connection nobody else has. */
static void give_up(void *arg) {
    struct question *question = arg;
    unlink_question(question);
    close_box(question->box);
}

/* The question lies at `place`. */
static int answered(lua_State *L, int status, lua_KContext place) {
    const struct question *question = lua_touserdata(L, (int)place);
    if (status != 0)
        return push_bad_answer(L, question, status);
    lua_createtable(L, 0, 8);
    set_result(L, &question->result);
    return 1;
}

/* --- sockets ------------------------------------------------------------------------------- */

/* Makes a socket of the options at index 1; leaves it on the stack, or nil, message and code. */
static struct box *push_socket(lua_State *L, const struct stun_local *local) {
    char text[IP_TEXT_SIZE];
    struct box *box = push_box(L, SOCKET_TYPE);
    int status = stun_socket_open(wait_loop(L), local, &box->socket);
    if (status != 0) {
        ip_format(&local->ip, text);
        push_failure(L, status, "cannot bind to port %d of %s%s%s", local->port, text,
                     local->device ? " on " : "", local->device ? local->device : "");
        return NULL;
    }
    struct stun_endpoint bound = stun_socket_local(box->socket);
    lua_getiuservalue(L, -1, 1);
    place_set(L, "local_ip", "local_port", &bound);
    lua_pop(L, 1);
    return box;
}

/* socket{ip, port, device} -> socket: without ip of IPv4 and on any address */
static int socket_(lua_State *L) {
    static const char *const keys[] = {"ip", "port", "device", NULL};
    lua_settop(L, 1);
    if (lua_isnil(L, 1)) {
        lua_newtable(L);
        lua_replace(L, 1);
    }
    check_options(L, 1, keys);
    struct stun_local local = local_fields(L, "ip", "port");
    if (local.ip.family == 0)
        local.ip.family = 4;
    return push_socket(L, &local) ? 1 : 3;
}

static struct box *check_socket(lua_State *L) {
    return luaL_checkudata(L, 1, SOCKET_TYPE);
}

static int ask_socket(lua_State *L, struct box *box, const struct stun_question *about,
                      wait_detach detach_it, lua_KFunction k) {
    struct wait *wait = wait_begin(L);
    struct question *question = push_question(L, wait, box, &about->server);
    int place = lua_gettop(L);
    int status = stun_ask(box->socket, about, on_result, question, &question->transaction);
    if (status != 0) {
        unlink_question(question);
        return k(L, status, place);
    }
    return wait_park(L, wait, -1, detach_it, question, k, place);
}

static enum stun_change change_field(lua_State *L, int index) {
    static const char *const words[] = {"none", "port", "address", "both", NULL};
    static const enum stun_change changes[] = {STUN_CHANGE_NONE, STUN_CHANGE_PORT,
                                               STUN_CHANGE_ADDRESS, STUN_CHANGE_BOTH};
    size_t i = 0;
    if (lua_getfield(L, index, "change") != LUA_TNIL) {
        const char *word = lua_tostring(L, -1);
        while (words[i] && (!word || strcmp(words[i], word) != 0))
            i++;
        luaL_argcheck(L, words[i], index, "'change' is one of none, port, address, both");
    }
    lua_pop(L, 1);
    return changes[i];
}

static bool boolean_field(lua_State *L, int index, const char *key, bool otherwise) {
    int type = lua_getfield(L, index, key);
    if (type != LUA_TNIL && type != LUA_TBOOLEAN)
        luaL_argerror(L, index, lua_pushfstring(L, "'%s' is no boolean", key));
    bool value = type == LUA_TNIL ? otherwise : lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

/* socket:ask(ip, port, {change, timeout, retries}) -> {external_ip=, external_port=, from_ip=,
 * from_port=, other_ip=, other_port=, rtt=, requests=} */
static int ask(lua_State *L) {
    static const char *const keys[] = {"change", "timeout", "retries", NULL};
    struct box *box = check_socket(L);
    struct stun_question about = {.server = {.ip = place_ip(L, 2, 2, "ip")}};
    about.server.port = place_port(L, 3, 3, "port", 0);
    double timeout_s = TIMEOUT_S;
    if (!lua_isnoneornil(L, 4)) {
        check_options(L, 4, keys);
        about.change = change_field(L, 4);
        about.once = !boolean_field(L, 4, "retries", true);
        timeout_s = option_timeout(L, 4, "timeout", TIMEOUT_S);
    }
    about.timeout_ms = place_milliseconds(timeout_s);
    lua_settop(L, 4);
    if (!box->socket)
        return push_refusal(L, ERR_ECLOSED, "the socket was closed");
    return ask_socket(L, box, &about, detach, answered);
}

/* socket:stats() -> {garbage=, strays=, foreign=, unreachable=} */
static int stats(lua_State *L) {
    struct box *box = check_socket(L);
    if (!box->socket)
        return push_refusal(L, ERR_ECLOSED, "the socket was closed");
    const struct stun_stats *now = stun_socket_stats(box->socket);
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"garbage", now->garbage},
        {"strays", now->strays},
        {"foreign", now->foreign},
        {"unreachable", now->unreachable},
    };
    lua_newtable(L);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        lua_pushinteger(L, (lua_Integer)fields[i].value);
        lua_setfield(L, -2, fields[i].name);
    }
    return 1;
}

/* The stack: options, socket, question. */
static int looked_up(lua_State *L, int status, lua_KContext place) {
    struct box *box = luaL_checkudata(L, (int)place - 1, SOCKET_TYPE);
    struct stun_endpoint local = stun_socket_local(box->socket);
    close_box(box);
    int count = answered(L, status, place);
    if (count == 1)
        place_set(L, "local_ip", "local_port", &local);
    return count;
}

/* lookup{ip, port, local_ip, local_port, device, timeout} -> as ask's, with local_ip= and
 * local_port=: one question by a socket of its own */
static int lookup(lua_State *L) {
    static const char *const keys[] = {"ip",     "port",    "local_ip", "local_port",
                                       "device", "timeout", NULL};
    check_options(L, 1, keys);
    lua_settop(L, 1);
    struct stun_question about = {.server = server_field(L)};
    struct stun_local local = local_fields(L, "local_ip", "local_port");
    about.timeout_ms = place_milliseconds(option_timeout(L, 1, "timeout", TIMEOUT_S));
    wait_begin(L);
    if (local.ip.family == 0 && nic_source(&about.server.ip, &local.ip) != 0)
        local.ip.family = about.server.ip.family;
    struct box *box = push_socket(L, &local);
    return box ? ask_socket(L, box, &about, give_up, looked_up) : 3;
}

/* --- connections --------------------------------------------------------------------------- */

static struct box *check_connection(lua_State *L) {
    return luaL_checkudata(L, 1, CONNECTION_TYPE);
}

/* The stack: …, connection, question at `place`. */
static int connected(lua_State *L, int status, lua_KContext place) {
    const struct question *question = lua_touserdata(L, (int)place);
    struct box *box = question->box;
    if (status != 0) {
        close_box(box);
        return push_bad_answer(L, question, status);
    }
    struct stun_endpoint local = stun_tcp_local(box->tcp);
    lua_getiuservalue(L, (int)place - 1, 1);
    set_result(L, &question->result);
    place_set(L, "local_ip", "local_port", &local);
    lua_settop(L, (int)place - 1);
    return 1;
}

/* connect{ip, port, local_ip, local_port, device, timeout} -> connection, asked once */
static int connect_(lua_State *L) {
    static const char *const keys[] = {"ip",     "port",    "local_ip", "local_port",
                                       "device", "timeout", NULL};
    check_options(L, 1, keys);
    lua_settop(L, 1);
    struct stun_endpoint server = server_field(L);
    struct stun_local local = local_fields(L, "local_ip", "local_port");
    unsigned timeout_ms = place_milliseconds(option_timeout(L, 1, "timeout", TIMEOUT_S));
    struct wait *wait = wait_begin(L);
    struct box *box = push_box(L, CONNECTION_TYPE);
    struct question *question = push_question(L, wait, box, &server);
    int status =
        stun_tcp_open(wait_loop(L), &local, &server, timeout_ms, on_result, question, &box->tcp);
    if (status != 0) {
        unlink_question(question);
        return push_bad_answer(L, question, status);
    }
    return wait_park(L, wait, -1, give_up, question, connected, 3);
}

static int question_connection(lua_State *L, double otherwise_s,
                               int (*begin)(struct stun_tcp *, unsigned, stun_cb, void *)) {
    struct box *box = check_connection(L);
    unsigned timeout_ms = place_milliseconds(check_timeout(L, 2, otherwise_s));
    lua_settop(L, 1);
    if (!box->tcp)
        return push_refusal(L, ERR_ECLOSED, "the connection was closed");
    struct wait *wait = wait_begin(L);
    struct stun_endpoint server = stun_tcp_server(box->tcp);
    struct question *question = push_question(L, wait, box, &server);
    int status = begin(box->tcp, timeout_ms, on_result, question);
    if (status != 0) {
        unlink_question(question);
        return push_bad_answer(L, question, status);
    }
    return wait_park(L, wait, -1, detach, question, answered, 2);
}

/* connection:ask([timeout]) -> as socket:ask's: once more, by which its mapping lives on */
static int ask_connection(lua_State *L) {
    return question_connection(L, TIMEOUT_S, stun_tcp_ask);
}

/* connection:wait_down([timeout]) -> nil, message, code: why it is of no use any more; ETIMEDOUT
 * when it still is */
static int wait_down(lua_State *L) {
    return question_connection(L, -1, stun_tcp_wait);
}

/* --- both ---------------------------------------------------------------------------------- */

static int close_socket(lua_State *L) {
    close_box(check_socket(L));
    return 0;
}

static int close_connection(lua_State *L) {
    close_box(check_connection(L));
    return 0;
}

static int tostring(lua_State *L) {
    const struct box *socket = luaL_testudata(L, 1, SOCKET_TYPE);
    const struct box *box = socket ? socket : check_connection(L);
    bool open = box->socket || box->tcp;
    lua_getiuservalue(L, 1, 1);
    lua_getfield(L, -1, "local_ip");
    lua_getfield(L, -2, "local_port");
    lua_pushfstring(L, "stun %s (%s, port %d%s)", socket ? "socket" : "connection",
                    luaL_optstring(L, -2, "nowhere"), (int)lua_tointeger(L, -1),
                    open ? "" : ", closed");
    return 1;
}

static const luaL_Reg socket_methods[] = {
    {"ask", ask}, {"stats", stats}, {"close", close_socket}, {NULL, NULL}};

static const luaL_Reg socket_metamethods[] = {
    {"__gc", close_socket}, {"__close", close_socket}, {"__tostring", tostring}, {NULL, NULL}};

static const luaL_Reg connection_methods[] = {
    {"ask", ask_connection}, {"wait_down", wait_down}, {"close", close_connection}, {NULL, NULL}};

static const luaL_Reg connection_metamethods[] = {{"__gc", close_connection},
                                                  {"__close", close_connection},
                                                  {"__tostring", tostring},
                                                  {NULL, NULL}};

int open_stun(lua_State *L) {
    luaL_newlib(L,
                ((const luaL_Reg[]){
                    {"socket", socket_}, {"connect", connect_}, {"lookup", lookup}, {NULL, NULL}}));
    lua_createtable(L, 0, 2);
    module_type_with_fields(L, SOCKET_TYPE, socket_methods, socket_metamethods);
    lua_setfield(L, -2, "socket");
    module_type_with_fields(L, CONNECTION_TYPE, connection_methods, connection_metamethods);
    lua_setfield(L, -2, "connection");
    lua_setfield(L, -2, "methods"); /* for spec/meta_spec.lua */
    return 1;
}
