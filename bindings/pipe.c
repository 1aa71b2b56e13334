#include "bindings/pipe_inner.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "core/err.h"

#include <stdlib.h>
#include <string.h>

enum { STRATEGY = 1, HELD, USER_VALUES = HELD }; /* what Lua keeps with a pipe */

#define PIPE_TYPE "p2pd.pipe"
#define READ_SIZE (256 * 1024)
#define WRITE_PART (256 * 1024) /* of a long string, before its writer may have to wait */

/* Pipes that were closed and still deliver what they had accepted. When the Lua state ends they are
 * ended with it. */
struct lingering {
    struct lingering *next, **link;
    struct pipe *pipe;
};
static _Thread_local struct lingering *lingering;

/* What all reads go through: Lua's strings are made from it, of the size that arrived. */
static _Thread_local char *scratch; /* not an array: each thread, paho's too, would clear its own */

static const char type_key;

/* luaL_checkudata looks the type up by its name, which is a tenth of what receiving a small message
 * costs; it is left to make the error. */
static struct box *check(lua_State *L) {
    struct box *box = lua_touserdata(L, 1);
    if (box && lua_getmetatable(L, 1)) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &type_key);
        bool is_pipe = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
        if (is_pipe)
            return box;
    }
    return luaL_checkudata(L, 1, PIPE_TYPE);
}

void write_address(const struct sockaddr_storage *address, char out[REMOTE_SIZE]) {
    struct ip ip;
    uint16_t port;
    char text[IP_TEXT_SIZE];
    ip_from_sockaddr((const struct sockaddr *)address, &ip, &port);
    ip_format(&ip, text);
    snprintf(out, REMOTE_SIZE, ip.family == 6 ? "[%s]:%u" : "%s:%u", text, port);
}

/* --- the box ------------------------------------------------------------------------------- */

struct box *push_box(lua_State *L) {
    struct box *box = lua_newuserdatauv(L, sizeof *box, USER_VALUES);
    memset(box, 0, sizeof *box);
    wait_list_init(&box->writers);
    luaL_setmetatable(L, PIPE_TYPE);
    return box;
}

void learn_addresses(struct box *box) {
    struct sockaddr_storage address;
    if (!*box->remote && pipe_remote(box->pipe, &address) == 0)
        write_address(&address, box->remote);
    if (pipe_local(box->pipe, &address) == 0)
        write_address(&address, box->local);
}

void learn_peer(struct box *box) {
    const uint8_t *peer = pipe_peer(box->pipe);
    if (peer)
        node_id_format(peer, box->peer);
}

void pipe_push(lua_State *L, struct pipe *pipe) {
    struct box *box = push_box(L);
    box->pipe = pipe;
    learn_addresses(box);
    learn_peer(box);
}

static void delivered(void *arg, int status) {
    struct lingering *one = arg;
    (void)status;
    *one->link = one->next;
    if (one->next)
        one->next->link = one->link;
    free(one);
}

void close_box(struct box *box) {
    struct pipe *pipe = box->pipe;
    if (!pipe)
        return;
    box->pipe = NULL;
    struct lingering *one = malloc(sizeof *one);
    if (one) {
        *one = (struct lingering){lingering, &lingering, pipe};
        if (lingering)
            lingering->link = &one->next;
        lingering = one;
        pipe_close(pipe, delivered, one);
    } else {
        pipe_abort(pipe, NULL, NULL);
    }
    struct wait *waits[] = {box->opener, box->reader, box->shutter};
    box->opener = box->reader = box->shutter = NULL;
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++)
        if (waits[i])
            wait_post(waits[i], ERR_ECLOSED);
    for (struct wait *wait; (wait = wait_list_first(&box->writers));) {
        wait_list_remove(wait);
        wait_post(wait, ERR_ECLOSED);
    }
}

static int push_closed(lua_State *L) {
    return push_refusal(L, ERR_ECLOSED, "the pipe was closed");
}

int push_pipe_failure(lua_State *L, const struct box *box, int status, const char *what) {
    if (status == ERR_ECLOSED)
        return push_closed(L);
    return push_failure(L, status, "%s %s", what, box->remote);
}

/* --- the first words ----------------------------------------------------------------------- */

/* pipe:commit(attempt) -> true: of all pipes of this attempt it is the one to keep */
static int commit(lua_State *L) {
    struct box *box = check(L);
    size_t length;
    const char *attempt = luaL_checklstring(L, 2, &length);
    luaL_argcheck(L, length == PIPE_ATTEMPT_SIZE, 2, "an attempt is 16 bytes");
    if (!box->pipe)
        return push_closed(L);
    int status = pipe_commit(box->pipe, (const uint8_t *)attempt);
    if (status != 0)
        return push_pipe_failure(L, box, status, "committing to");
    lua_pushboolean(L, 1);
    return 1;
}

static int say_verdict(lua_State *L, enum pipe_verdict verdict) {
    struct box *box = check(L);
    if (!box->pipe)
        return push_closed(L);
    int status = pipe_admit(box->pipe, verdict);
    if (status != 0)
        return push_pipe_failure(L, box, status, "answering");
    lua_pushboolean(L, 1);
    return 1;
}

/* pipe:admit() -> true: the server's side takes the pipe; sending and receiving say so too */
static int admit(lua_State *L) {
    return say_verdict(L, PIPE_ADMITTED);
}

/* pipe:refuse([code]) -> true: turns the peer away, which learns the code: "EDENIED" or "EBUSY" */
static int refuse(lua_State *L) {
    static const char *const codes[] = {"EDENIED", "EBUSY", NULL};
    static const enum pipe_verdict verdicts[] = {PIPE_DENIED, PIPE_BUSY};
    int said = say_verdict(L, verdicts[luaL_checkoption(L, 2, "EDENIED", codes)]);
    close_box(check(L));
    return said;
}

/* --- receiving ----------------------------------------------------------------------------- */

static void on_readable(void *arg, int status) {
    struct box *box = arg;
    struct wait *wait = box->reader;
    box->reader = NULL;
    if (wait)
        wait_wake(wait, status);
}

static void detach_reader(void *arg) {
    struct box *box = arg;
    box->reader = NULL;
    if (box->pipe)
        pipe_on_readable(box->pipe, NULL, NULL);
}

static int push_reader_busy(lua_State *L) {
    return push_refusal(L, UV_EBUSY, "another task receives from this pipe");
}

/* The stack: pipe, deadline, the most bytes to return. */
static int receive(lua_State *L, int status, lua_KContext ctx) {
    struct box *box = lua_touserdata(L, 1);
    (void)ctx;
    if (!box->pipe)
        return push_closed(L);
    if (!scratch && !(scratch = malloc(READ_SIZE)))
        return push_pipe_failure(L, box, UV_ENOMEM, "receiving from");
    ssize_t n = pipe_read(box->pipe, scratch, (size_t)lua_tointeger(L, 3));
    if (n > 0) {
        lua_pushlstring(L, scratch, (size_t)n);
        return 1;
    }
    if (n == UV_EOF)
        return push_refusal(L, UV_EOF, "the peer has sent all it had");
    if (n != UV_EAGAIN)
        return push_pipe_failure(L, box, (int)n, "receiving from");
    if (status != 0)
        return push_pipe_failure(L, box, status, "receiving from");
    if (box->reader) /* it came between the bytes' arrival and this task's turn */
        return push_reader_busy(L);
    struct wait *wait = wait_begin(L);
    box->reader = wait;
    pipe_on_readable(box->pipe, on_readable, box);
    return wait_park(L, wait, time_left(L, 2), detach_reader, box, receive, 0);
}

static int begin_receiving(lua_State *L, struct box *box, double timeout_s, lua_Integer most) {
    if (box->reader)
        return push_reader_busy(L);
    lua_settop(L, 1);
    push_deadline(L, timeout_s);
    lua_pushinteger(L, most);
    wait_begin(L);
    return receive(L, 0, 0);
}

/* receive(pipe [, timeout]) -> bytes, as many as there are; nil, "EOF: …", "EOF" at the end. What
 * is held stays held. */
static int receive_(lua_State *L) {
    struct box *box = check(L);
    return begin_receiving(L, box, check_timeout(L, 2, -1), READ_SIZE);
}

/* hold(pipe, text, from): the next recv gives out the text from the place `from` on */
static int hold(lua_State *L) {
    struct box *box = check(L);
    size_t length;
    luaL_checklstring(L, 2, &length);
    lua_Integer from = luaL_checkinteger(L, 3);
    box->held = from >= 1 && (size_t)from <= length ? (size_t)from : 0;
    lua_settop(L, 2);
    if (box->held == 0)
        lua_pushnil(L);
    lua_setiuservalue(L, 1, HELD);
    return 0;
}

/* held(pipe) -> text, from; "", 1 when nothing is held */
static int held(lua_State *L) {
    struct box *box = check(L);
    if (box->held == 0)
        lua_pushliteral(L, "");
    else
        lua_getiuservalue(L, 1, HELD);
    lua_pushinteger(L, box->held == 0 ? 1 : (lua_Integer)box->held);
    return 2;
}

static int push_held(lua_State *L, struct box *box, size_t most) {
    size_t length, from = box->held;
    lua_getiuservalue(L, 1, HELD);
    const char *text = lua_tolstring(L, -1, &length);
    size_t left = length - (from - 1), part = left < most ? left : most;
    lua_pushlstring(L, text + from - 1, part);
    box->held = part < left ? from + part : 0;
    if (box->held == 0) {
        lua_pushnil(L);
        lua_setiuservalue(L, 1, HELD);
    }
    return 1;
}

/* pipe:recv([timeout [, most]]) -> bytes: what is held, or else as receive */
static int recv_(lua_State *L) {
    struct box *box = check(L);
    double timeout_s = check_timeout(L, 2, -1);
    lua_Integer most = luaL_optinteger(L, 3, READ_SIZE);
    luaL_argcheck(L, most >= 1, 3, "a number of bytes from 1 on");
    if (box->held > 0)
        return push_held(L, box, (size_t)most);
    return begin_receiving(L, box, timeout_s, most < READ_SIZE ? most : READ_SIZE);
}

/* --- sending ------------------------------------------------------------------------------- */

static void watch_queue(struct box *box);

/* Wakes one writer, which writes and may wait again, and asks for the next one's turn before that:
 * it may also let go of the pipe, and the box be collected. */
static void on_drained(void *arg, int status) {
    struct box *box = arg;
    struct wait *wait = wait_list_first(&box->writers);
    box->watching = false;
    if (!wait)
        return;
    wait_list_remove(wait);
    if (wait_list_first(&box->writers))
        watch_queue(box);
    wait_wake(wait, status);
}

static void watch_queue(struct box *box) {
    if (!box->watching)
        pipe_on_drained(box->pipe, on_drained, box);
    box->watching = true;
}

/* The stack: pipe, deadline, data; ctx is how much of the data is written. */
static int send_on(lua_State *L, int status, lua_KContext ctx) {
    struct box *box = lua_touserdata(L, 1);
    size_t length, sent = (size_t)ctx;
    const char *data = lua_tolstring(L, 3, &length);
    if (!box->pipe)
        return push_closed(L);
    if (status == UV_ETIMEDOUT)
        return push_refusal(L, status, "%s does not take more; %zu of %zu bytes are on their way",
                            box->remote, sent, length);
    while (status == 0 && sent < length && pipe_queued(box->pipe) <= PIPE_HIGH_WATER) {
        size_t part = length - sent < WRITE_PART ? length - sent : WRITE_PART;
        status = pipe_write(box->pipe, data + sent, part);
        sent += part;
    }
    if (status != 0)
        return push_pipe_failure(L, box, status, "sending to");
    if (sent == length && pipe_queued(box->pipe) <= PIPE_HIGH_WATER) {
        lua_pushboolean(L, 1);
        return 1;
    }
    struct wait *wait = wait_begin(L);
    wait_list_add(&box->writers, wait);
    watch_queue(box);
    return wait_park(L, wait, time_left(L, 2), wait_list_remove, wait, send_on, (lua_KContext)sent);
}

/* pipe:send(data [, timeout]) -> true; waits while more than the high-water mark is queued */
static int send_(lua_State *L) {
    check(L);
    luaL_checkstring(L, 2);
    double timeout_s = check_timeout(L, 3, -1);
    wait_begin(L);
    lua_settop(L, 2);
    push_deadline(L, timeout_s);
    lua_insert(L, 2);
    return send_on(L, 0, 0);
}

/* --- ending -------------------------------------------------------------------------------- */

static void on_shut(void *arg, int status) {
    struct box *box = arg;
    struct wait *wait = box->shutter;
    box->shutter = NULL;
    if (wait)
        wait_wake(wait, status);
}

static void detach_shutter(void *arg) {
    struct box *box = arg;
    box->shutter = NULL;
    if (box->pipe)
        pipe_on_shutdown(box->pipe, NULL, NULL);
}

static int shut(lua_State *L, int status, lua_KContext ctx) {
    (void)ctx;
    if (status != 0)
        return push_pipe_failure(L, lua_touserdata(L, 1), status, "ending the stream to");
    lua_pushboolean(L, 1);
    return 1;
}

/* pipe:shutdown([timeout]) -> true when all has left; the peer gets EOF, receiving goes on */
static int shutdown_(lua_State *L) {
    struct box *box = check(L);
    double timeout_s = check_timeout(L, 2, -1);
    if (!box->pipe)
        return push_closed(L);
    if (box->shutter)
        return push_refusal(L, UV_EBUSY, "another task ends this stream");
    struct wait *wait = wait_begin(L);
    int status = pipe_shutdown(box->pipe, on_shut, box);
    if (status != 0)
        return shut(L, status, 0);
    box->shutter = wait;
    return wait_park(L, wait, timeout_s, detach_shutter, box, shut, 0);
}

/* pipe:close(); what was sent is still delivered, for a bounded time */
static int close_(lua_State *L) {
    close_box(check(L));
    return 0;
}

/* --- what it is ---------------------------------------------------------------------------- */

static const char *const field_names[] = {"peer", "remote", "local_address"};

static int index_(lua_State *L) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL || lua_type(L, 2) != LUA_TSTRING)
        return 1;
    struct box *box = check(L);
    const char *texts[] = {box->peer, box->remote, box->local};
    const char *name = lua_tostring(L, 2);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(name, field_names[i]) == 0 && *texts[i]) {
            lua_pushstring(L, texts[i]);
            return 1;
        }
    if (strcmp(name, "strategy") == 0)
        lua_getiuservalue(L, 1, STRATEGY);
    return 1;
}

static int newindex(lua_State *L) {
    check(L);
    const char *name = luaL_checkstring(L, 2);
    luaL_argcheck(L, strcmp(name, "strategy") == 0, 2, "a pipe has only its 'strategy' to set");
    lua_setiuservalue(L, 1, STRATEGY);
    return 0;
}

static int tostring(lua_State *L) {
    struct box *box = check(L);
    lua_getiuservalue(L, 1, STRATEGY);
    const char *strategy = lua_tostring(L, -1);
    lua_pushfstring(L, "pipe (%s%s%s, %s)", strategy ? strategy : "", strategy ? " with " : "",
                    *box->remote ? box->remote : "nobody", box->pipe ? "open" : "closed");
    return 1;
}

/* Whoever lingers when the Lua state ends is ended with it. */
static int module_gc(lua_State *L) {
    wait_end(L);
    while (lingering) {
        struct pipe *pipe = lingering->pipe;
        pipe_abort(pipe, NULL, NULL);
        while (lingering && lingering->pipe == pipe)
            uv_run(wait_loop(L), UV_RUN_NOWAIT);
    }
    free(scratch);
    scratch = NULL;
    return 0;
}

static const luaL_Reg methods[] = {
    {"send", send_},    {"recv", recv_},  {"shutdown", shutdown_}, {"close", close_},
    {"commit", commit}, {"admit", admit}, {"refuse", refuse},      {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"dial", dial_pipe}, {"receive", receive_}, {"hold", hold}, {"held", held}, {NULL, NULL}};

int open_pipe(lua_State *L) {
    lua_newuserdatauv(L, 1, 0);
    luaL_newmetatable(L, "p2pd.pipes");
    lua_pushcfunction(L, module_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, "p2pd.pipes.lingering");
    make_identities(L);
    module_type(L, PIPE_TYPE, methods,
                (const luaL_Reg[]){{"__newindex", newindex},
                                   {"__gc", close_},
                                   {"__close", close_},
                                   {"__tostring", tostring},
                                   {NULL, NULL}});
    luaL_getmetatable(L, PIPE_TYPE);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &type_key);
    luaL_newlib(L, functions);
    lua_getfield(L, -2, "__index");
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "methods"); /* to which lua/p2pd/pipe.lua adds its own */
    lua_pushcclosure(L, index_, 1);
    lua_setfield(L, -3, "__index");
    lua_remove(L, -2);
    return 1;
}
