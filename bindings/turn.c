/* core.turn: TCP relays at TURN servers. */
#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/place.h"
#include "bindings/socket.h"
#include "bindings/turn_inner.h"
#include "core/err.h"

#include <string.h>
#include <unistd.h>

#define ALLOCATION_TYPE "p2pd.turn.allocation"
#define QUESTION_TYPE "p2pd.turn.question"

/* What a task waits for; lies in a userdata on its stack, and keeps what came until it is used. */
struct question {
    struct question *next, **link;
    struct box *box;
    struct turn_question *asked; /* NULL once it is answered */
    struct wait *wait;
    struct turn_outcome outcome;
};

static int push_closed(lua_State *L) {
    return push_refusal(L, ERR_ECLOSED, "the relay was closed");
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

static int question_gc(lua_State *L) {
    struct question *question = lua_touserdata(L, 1);
    if (question->outcome.fd >= 0)
        close(question->outcome.fd);
    question->outcome.fd = -1;
    return 0;
}

static void on_answer(void *arg, int status, const struct turn_outcome *outcome) {
    struct question *question = arg;
    question->asked = NULL;
    question->outcome = *outcome;
    unlink_question(question);
    wait_wake(question->wait, status);
}

static void detach(void *arg) {
    struct question *question = arg;
    if (question->asked)
        turn_forget(question->asked);
    question->asked = NULL;
    unlink_question(question);
}

static struct question *push_question(lua_State *L, struct wait *wait, struct box *box) {
    struct question *question = lua_newuserdatauv(L, sizeof *question, 0);
    memset(question, 0, sizeof *question);
    question->outcome.fd = -1;
    luaL_setmetatable(L, QUESTION_TYPE);
    question->wait = wait;
    question->box = box;
    question->next = box->questions;
    question->link = &box->questions;
    box->questions = question;
    if (question->next)
        question->next->link = &question->next;
    return question;
}

void turn_close_box(struct box *box) {
    struct turn *turn = box->turn;
    box->turn = NULL;
    if (turn)
        turn_close(turn);
    while (box->questions) {
        struct question *question = box->questions;
        question->asked = NULL;
        unlink_question(question);
        wait_post(question->wait, ERR_ECLOSED);
    }
    for (struct wait *wait; (wait = wait_list_first(&box->waiters));) {
        wait_list_remove(wait);
        wait_post(wait, ERR_ECLOSED);
    }
}

/* --- allocations --------------------------------------------------------------------------- */

static struct box *check_box(lua_State *L) {
    return luaL_checkudata(L, 1, ALLOCATION_TYPE);
}

struct box *turn_push_box(lua_State *L) {
    struct box *box = lua_newuserdatauv(L, sizeof *box, 1);
    memset(box, 0, sizeof *box);
    wait_list_init(&box->waiters);
    luaL_setmetatable(L, ALLOCATION_TYPE);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    return box;
}

/* The stack: allocation, …, question at `place`. */
static int permitted(lua_State *L, int status, lua_KContext place) {
    const struct question *question = lua_touserdata(L, (int)place);
    if (status == ERR_ECLOSED)
        return push_closed(L);
    if (status != 0)
        return turn_push_failure(L, question->box, status, &question->outcome);
    lua_pushboolean(L, 1);
    return 1;
}

/* allocation:permit(ip, ...) -> true: these addresses may connect, too */
static int permit(lua_State *L) {
    struct box *box = check_box(L);
    struct ip ips[TURN_PEERS_MAX];
    int count = lua_gettop(L) - 1;
    luaL_argcheck(L, count >= 1 && count <= TURN_PEERS_MAX, 2, "IP addresses, not too many");
    for (int i = 0; i < count; i++)
        ips[i] = place_ip(L, i + 2, i + 2, "ip");
    lua_settop(L, 1);
    if (!box->turn)
        return push_closed(L);
    struct wait *wait = wait_begin(L);
    struct question *question = push_question(L, wait, box);
    int status = turn_permit(box->turn, ips, (size_t)count, place_milliseconds(TURN_TIMEOUT_S),
                             on_answer, question, &question->asked);
    if (status != 0) {
        unlink_question(question);
        return turn_push_failure(L, box, status, &question->outcome);
    }
    return wait_park(L, wait, -1, detach, question, permitted, 2);
}

/* --- peers' connections -------------------------------------------------------------------- */

/* Pushes the connection, and whom it leads to. */
static int push_peer(lua_State *L, int fd, const struct stun_endpoint *peer) {
    char text[IP_TEXT_SIZE], *form = peer->ip.family == 6 ? "[%s]:%d" : "%s:%d";
    ip_format(&peer->ip, text);
    push_socket(L, fd);
    lua_getiuservalue(L, -1, 1);
    place_set(L, "remote_ip", "remote_port", peer);
    lua_pushfstring(L, form, text, peer->port);
    lua_setfield(L, -2, "remote");
    lua_pushliteral(L, "relayed");
    lua_setfield(L, -2, "how");
    lua_pop(L, 1);
    lua_pushstring(L, text);
    lua_pushinteger(L, peer->port);
    return 3;
}

static int connected(lua_State *L, int status, lua_KContext place) {
    struct question *question = lua_touserdata(L, (int)place);
    if (status == ERR_ECLOSED)
        return push_closed(L);
    if (status != 0)
        return turn_push_failure(L, question->box, status, &question->outcome);
    int fd = question->outcome.fd;
    question->outcome.fd = -1;
    return push_peer(L, fd, &question->outcome.peer);
}

/* allocation:connect(ip, port, [timeout]) -> socket, ip, port: to a peer, from the relay */
static int connect_(lua_State *L) {
    struct box *box = check_box(L);
    struct stun_endpoint peer = {.ip = place_ip(L, 2, 2, "ip")};
    peer.port = place_port(L, 3, 3, "port", 1);
    unsigned timeout_ms = place_milliseconds(check_timeout(L, 4, TURN_TIMEOUT_S));
    lua_settop(L, 1);
    if (!box->turn)
        return push_closed(L);
    struct wait *wait = wait_begin(L);
    struct question *question = push_question(L, wait, box);
    int status = turn_connect(box->turn, &peer, timeout_ms, on_answer, question, &question->asked);
    if (status != 0) {
        unlink_question(question);
        return turn_push_failure(L, box, status, &question->outcome);
    }
    return wait_park(L, wait, -1, detach, question, connected, 2);
}

/* One connection is for one waiter; that none will come is for all. */
static void on_peer(void *arg, int status) {
    struct box *box = arg;
    struct wait *wait = wait_list_first(&box->waiters);
    for (; status != 0 && wait; wait = wait_list_first(&box->waiters)) {
        wait_list_remove(wait);
        wait_post(wait, 0);
    }
    if (!wait)
        return;
    wait_list_remove(wait);
    if (wait_list_first(&box->waiters))
        turn_on_peer(box->turn, on_peer, box);
    wait_wake(wait, 0);
}

static void leave(void *arg) {
    struct box *box = *(struct box **)arg;
    struct wait **wait = (struct wait **)arg + 1;
    wait_list_remove(*wait);
    if (box->turn && !wait_list_first(&box->waiters))
        turn_on_peer(box->turn, NULL, NULL);
}

/* The stack: allocation, deadline, { box, wait }. */
static int arrived(lua_State *L, int status, lua_KContext ctx) {
    struct box *box = lua_touserdata(L, 1);
    struct stun_endpoint peer;
    (void)ctx;
    if (!box->turn)
        return push_closed(L);
    struct wait *wait = wait_begin(L); /* of a task that is cancelled nothing may be taken */
    int fd = turn_accept(box->turn, &peer);
    if (fd >= 0)
        return push_peer(L, fd, &peer);
    if (fd != UV_EAGAIN) {
        struct turn_outcome outcome = {.fd = -1};
        turn_status(box->turn, &outcome.error);
        return turn_push_failure(L, box, fd, &outcome);
    }
    if (status != 0)
        return push_refusal(L, status, "the peer did not come to the relay");
    void **waiter = lua_touserdata(L, 3);
    waiter[1] = wait;
    wait_list_add(&box->waiters, wait);
    turn_on_peer(box->turn, on_peer, box);
    return wait_park(L, wait, time_left(L, 2), leave, waiter, arrived, 0);
}

/* allocation:wait([timeout]) -> socket, ip, port: the next peer that has connected */
static int wait_(lua_State *L) {
    struct box *box = check_box(L);
    double timeout_s = check_timeout(L, 2, -1);
    lua_settop(L, 1);
    push_deadline(L, timeout_s);
    void **waiter = lua_newuserdatauv(L, 2 * sizeof(void *), 0);
    waiter[0] = box;
    return arrived(L, 0, 0);
}

/* --- the rest ------------------------------------------------------------------------------ */

/* allocation:failed() -> nil while it lives; else message and code */
static int failed(lua_State *L) {
    const struct box *box = check_box(L);
    struct turn_outcome outcome = {.fd = -1};
    int status = box->turn ? turn_status(box->turn, &outcome.error) : 0;
    if (box->turn && status == 0) {
        lua_pushnil(L);
        return 1;
    }
    int count = box->turn ? turn_push_failure(L, box, status, &outcome) : push_closed(L);
    lua_remove(L, -count);
    return count - 1;
}

/* allocation:stats() -> { strays =, refused =, failed = } */
static int stats(lua_State *L) {
    const struct box *box = check_box(L);
    if (!box->turn)
        return push_closed(L);
    struct turn_stats now = turn_stats(box->turn);
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, (lua_Integer)now.strays);
    lua_setfield(L, -2, "strays");
    lua_pushinteger(L, (lua_Integer)now.refused);
    lua_setfield(L, -2, "refused");
    lua_pushinteger(L, (lua_Integer)now.failed);
    lua_setfield(L, -2, "failed");
    return 1;
}

static int close_(lua_State *L) {
    turn_close_box(check_box(L));
    return 0;
}

static int tostring(lua_State *L) {
    const struct box *box = check_box(L);
    uint16_t error;
    bool dead = box->turn && turn_status(box->turn, &error) != 0;
    lua_pushfstring(L, "relay at TURN server %s%s", box->server,
                    !box->turn ? " (closed)"
                    : dead     ? " (lost)"
                               : "");
    return 1;
}

/* Whoever still uses a pump when the Lua state ends is ended with it. */
static int module_gc(lua_State *L) {
    (void)L;
    turn_pumps_end();
    return 0;
}

static const luaL_Reg methods[] = {
    {"permit", permit}, {"wait", wait_},   {"connect", connect_}, {"failed", failed},
    {"stats", stats},   {"close", close_}, {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__gc", close_}, {"__close", close_}, {"__tostring", tostring}, {NULL, NULL}};

int open_turn(lua_State *L) {
    open_socket(L);
    module_type(L, QUESTION_TYPE, (const luaL_Reg[]){{NULL, NULL}},
                (const luaL_Reg[]){{"__gc", question_gc}, {NULL, NULL}});
    lua_newuserdatauv(L, 1, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, module_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, "p2pd.turn.pumps");
    luaL_newlib(L, ((const luaL_Reg[]){{"open", turn_open_allocation}, {NULL, NULL}}));
    module_type_with_fields(L, ALLOCATION_TYPE, methods, metamethods);
    lua_setfield(L, -2, "methods"); /* for spec/meta_spec.lua */
    return 1;
}
