#include "core/listener.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/pipe.h"
#include "bindings/wait.h"
#include "core/err.h"
#include "core/ip.h"

#include <string.h>

#define LISTENER_TYPE "p2pd.listener"
#define ARRIVAL_TYPE "p2pd.arrival"

struct ear {
    struct listener *listener; /* NULL once it is closed */
    struct wait *acceptor;
    struct guest *guests;
    uint16_t port;
};

struct guest {
    struct guest *next, **link; /* of the listener, which forgets them when it is closed */
    struct arrival *arrival;    /* NULL once it is forgotten */
    struct wait *waiter;
    uint8_t expected[KEY_PUBLIC_SIZE];
};

static struct ear *check_ear(lua_State *L) {
    return luaL_checkudata(L, 1, LISTENER_TYPE);
}

/* new{identity, ip, port} -> listener; without ip on every address, with port 0 on a free one */
static int new_(lua_State *L) {
    static const char *const keys[] = {"identity", "ip", "port", NULL};
    struct sockaddr_storage address;
    struct ip ip;
    size_t length;
    check_options(L, 1, keys);
    lua_settop(L, 1);
    lua_getfield(L, 1, "port");
    lua_Integer port = luaL_optinteger(L, -1, 0);
    luaL_argcheck(L, port >= 0 && port <= UINT16_MAX, 1, "'port' is no port");
    lua_getfield(L, 1, "ip");
    const char *text = lua_tolstring(L, -1, &length);
    if (text && ip_parse(text, length, &ip) != 0)
        return luaL_argerror(L, 1, "'ip' is no IP address");
    if (text)
        ip_to_sockaddr(&ip, (uint16_t)port, &address);
    lua_getfield(L, 1, "identity");
    struct tls_identity *identity = pipe_identity(L, -1);
    if (!identity)
        return push_refusal(L, ERR_ECLOSED, "the identity was closed");
    struct ear *ear = lua_newuserdatauv(L, sizeof *ear, 0);
    memset(ear, 0, sizeof *ear);
    luaL_setmetatable(L, LISTENER_TYPE);
    int status = listener_new(wait_loop(L), identity, text ? (struct sockaddr *)&address : NULL,
                              (uint16_t)port, &ear->listener);
    if (status != 0)
        return push_failure(L, status, "cannot listen on port %d%s%s", (int)port,
                            text ? " of " : "", text ? text : "");
    ear->port = listener_port(ear->listener);
    return 1;
}

/* --- pipes that arrive --------------------------------------------------------------------- */

static void on_pipe(void *arg, int status) {
    struct ear *ear = arg;
    struct wait *wait = ear->acceptor;
    ear->acceptor = NULL;
    if (wait)
        wait_wake(wait, status);
}

static void detach_acceptor(void *arg) {
    struct ear *ear = arg;
    ear->acceptor = NULL;
    if (ear->listener)
        listener_on_pipe(ear->listener, NULL, NULL);
}

static int push_acceptor_busy(lua_State *L) {
    return push_refusal(L, UV_EBUSY, "another task accepts from this listener");
}

/* The stack: listener, deadline. */
static int accepted(lua_State *L, int status, lua_KContext ctx) {
    struct ear *ear = lua_touserdata(L, 1);
    (void)ctx;
    struct pipe *pipe = ear->listener ? listener_accept(ear->listener) : NULL;
    if (pipe) {
        pipe_push(L, pipe);
        return 1;
    }
    if (!ear->listener)
        return push_refusal(L, ERR_ECLOSED, "the listener was closed");
    if (status != 0)
        return push_failure(L, status, "accepting on port %d", ear->port);
    if (ear->acceptor) /* it came between the pipe's arrival and this task's turn */
        return push_acceptor_busy(L);
    struct wait *wait = wait_begin(L);
    ear->acceptor = wait;
    listener_on_pipe(ear->listener, on_pipe, ear);
    return wait_park(L, wait, time_left(L, 2), detach_acceptor, ear, accepted, 0);
}

/* listener:accept([timeout]) -> pipe: its key is proven, and its peer has committed to it */
static int accept_(lua_State *L) {
    struct ear *ear = check_ear(L);
    double timeout_s = check_timeout(L, 2, -1);
    if (ear->acceptor)
        return push_acceptor_busy(L);
    lua_settop(L, 1);
    push_deadline(L, timeout_s);
    wait_begin(L);
    return accepted(L, 0, 0);
}

/* --- peers that were asked to come --------------------------------------------------------- */

static struct guest *check_guest(lua_State *L) {
    return luaL_checkudata(L, 1, ARRIVAL_TYPE);
}

/* listener:expect(token, node_id) -> arrival */
static int expect(lua_State *L) {
    struct ear *ear = check_ear(L);
    size_t length, id_length;
    const char *token = luaL_checklstring(L, 2, &length);
    const char *id = luaL_checklstring(L, 3, &id_length);
    luaL_argcheck(L, length == PIPE_TOKEN_SIZE, 2, "a token is 16 bytes");
    if (!ear->listener)
        return push_refusal(L, ERR_ECLOSED, "the listener was closed");
    struct guest *guest = lua_newuserdatauv(L, sizeof *guest, 0);
    memset(guest, 0, sizeof *guest);
    luaL_argcheck(L, node_id_parse(id, id_length, guest->expected) == 0, 3, "no node ID");
    luaL_setmetatable(L, ARRIVAL_TYPE);
    int status = listener_expect(ear->listener, (const uint8_t *)token, &guest->arrival);
    if (status != 0)
        return push_failure(L, status, "cannot expect one more connection");
    guest->next = ear->guests;
    guest->link = &ear->guests;
    if (guest->next)
        guest->next->link = &guest->next;
    ear->guests = guest;
    return 1;
}

static void on_guest(void *arg, int status) {
    struct guest *guest = arg;
    struct wait *wait = guest->waiter;
    guest->waiter = NULL;
    if (wait)
        wait_wake(wait, status);
}

static void detach_waiter(void *arg) {
    struct guest *guest = arg;
    guest->waiter = NULL;
    if (guest->arrival)
        arrival_on_pipe(guest->arrival, NULL, NULL);
}

static int push_waiter_busy(lua_State *L) {
    return push_refusal(L, UV_EBUSY, "another task waits for this connection");
}

/* The stack: arrival, deadline. A connection that cannot be secured does not end the wait: who was
 * asked dials several of our addresses. */
static int arrived(lua_State *L, int status, lua_KContext ctx) {
    struct guest *guest = lua_touserdata(L, 1);
    (void)ctx;
    if (!guest->arrival)
        return push_refusal(L, ERR_ECLOSED, "the connection is not expected any more");
    struct wait *wait = wait_begin(L); /* of a task that is cancelled nothing may be taken */
    struct pipe *pipe = arrival_take(guest->arrival);
    if (pipe) {
        pipe_push(L, pipe);
        return pipe_secure_client(L, guest->expected, time_left(L, 2), arrived);
    }
    if (status != 0)
        return push_failure(L, status, "the peer did not connect");
    if (guest->waiter) /* it came between the connection's arrival and this task's turn */
        return push_waiter_busy(L);
    guest->waiter = wait;
    arrival_on_pipe(guest->arrival, on_guest, guest);
    return wait_park(L, wait, time_left(L, 2), detach_waiter, guest, arrived, 0);
}

/* arrival:wait([timeout]) -> pipe, secured with the expected peer */
static int arrival_wait(lua_State *L) {
    struct guest *guest = check_guest(L);
    double timeout_s = check_timeout(L, 2, -1);
    lua_settop(L, 1);
    push_deadline(L, timeout_s);
    wait_begin(L);
    if (guest->waiter)
        return push_waiter_busy(L);
    return arrived(L, 0, 0);
}

static void forget(struct guest *guest) {
    if (!guest->arrival)
        return;
    arrival_forget(guest->arrival);
    guest->arrival = NULL;
    *guest->link = guest->next;
    if (guest->next)
        guest->next->link = guest->link;
    struct wait *wait = guest->waiter;
    guest->waiter = NULL;
    if (wait)
        wait_post(wait, ERR_ECLOSED);
}

static int arrival_close(lua_State *L) {
    forget(check_guest(L));
    return 0;
}

/* --- the listener itself ------------------------------------------------------------------- */

/* listener:stats() -> {unfinished=, untaken=, accepted=, finished=, failed=, evicted=, …} */
static int stats(lua_State *L) {
    struct ear *ear = check_ear(L);
    struct listener_stats now;
    if (!ear->listener)
        return push_refusal(L, ERR_ECLOSED, "the listener was closed");
    listener_stats(ear->listener, &now);
    const struct {
        const char *name;
        unsigned long long value;
    } fields[] = {
        {"unfinished", now.unfinished}, {"untaken", now.untaken},       {"accepted", now.accepted},
        {"finished", now.finished},     {"failed", now.failed},         {"evicted", now.evicted},
        {"expired", now.expired},       {"unexpected", now.unexpected},
    };
    lua_newtable(L);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        lua_pushinteger(L, (lua_Integer)fields[i].value);
        lua_setfield(L, -2, fields[i].name);
    }
    return 1;
}

static int close_(lua_State *L) {
    struct ear *ear = check_ear(L);
    if (!ear->listener)
        return 0;
    while (ear->guests)
        forget(ear->guests);
    listener_close(ear->listener, NULL, NULL);
    ear->listener = NULL;
    struct wait *wait = ear->acceptor;
    ear->acceptor = NULL;
    if (wait)
        wait_post(wait, ERR_ECLOSED);
    return 0;
}

static int index_(lua_State *L) {
    struct ear *ear = check_ear(L);
    if (lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "port") == 0) {
        lua_pushinteger(L, ear->port);
        return 1;
    }
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    return 1;
}

static int tostring(lua_State *L) {
    struct ear *ear = check_ear(L);
    lua_pushfstring(L, "listener (port %d%s)", ear->port, ear->listener ? "" : ", closed");
    return 1;
}

static const luaL_Reg methods[] = {
    {"accept", accept_}, {"expect", expect}, {"stats", stats}, {"close", close_}, {NULL, NULL}};

static const luaL_Reg metamethods[] = {
    {"__gc", close_}, {"__close", close_}, {"__tostring", tostring}, {NULL, NULL}};

static const luaL_Reg arrival_methods[] = {
    {"wait", arrival_wait}, {"close", arrival_close}, {NULL, NULL}};

static const luaL_Reg arrival_metamethods[] = {
    {"__gc", arrival_close}, {"__close", arrival_close}, {NULL, NULL}};

int open_listener(lua_State *L) {
    module_type(L, ARRIVAL_TYPE, arrival_methods, arrival_metamethods);
    module_type(L, LISTENER_TYPE, methods, metamethods);
    luaL_getmetatable(L, LISTENER_TYPE);
    lua_getfield(L, -1, "__index");
    lua_pushcclosure(L, index_, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    luaL_newlib(L, ((const luaL_Reg[]){{"new", new_}, {NULL, NULL}}));
    return 1;
}
