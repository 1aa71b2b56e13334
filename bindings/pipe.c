#include "bindings/pipe_inner.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/socket.h"
#include "core/err.h"

#include <stdlib.h>
#include <string.h>

enum { HELD = 1, USER_VALUES = HELD }; /* what Lua keeps with a pipe */

#define PIPE_TYPE "p2pd.pipe"
#define READ_SIZE (256 * 1024)
#define WRITE_PART (256 * 1024) /* of a long string, before its writer may have to wait */

/* What all reads go through: Lua's strings are made from it, of the size that arrived. */
static _Thread_local char *scratch; /* not an array: each thread, paho's too, would clear its own */

/* By which a box is known: its type's name would have to be looked up, which is a tenth of what
 * receiving a small message costs. */
static const char mark;

struct box *check_pipe(lua_State *L) {
    struct box *box = lua_touserdata(L, 1);
    if (box && lua_rawlen(L, 1) == sizeof *box && box->mark == &mark)
        return box;
    return luaL_checkudata(L, 1, PIPE_TYPE); /* which makes the error */
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
    box->mark = &mark;
    box->main = wait_main(L);
    box->kept = LUA_NOREF;
    wait_list_init(&box->writers);
    luaL_setmetatable(L, PIPE_TYPE);
    return box;
}

static bool has_port(const struct sockaddr_storage *address) {
    return address->ss_family == AF_INET || address->ss_family == AF_INET6;
}

void learn_addresses(struct box *box) {
    struct sockaddr_storage address;
    if (!*box->remote && pipe_remote(box->pipe, &address) == 0 && has_port(&address))
        write_address(&address, box->remote);
    if (pipe_local(box->pipe, &address) == 0 && has_port(&address))
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
    if (*box->peer) /* else it is to be secured, and no script has it yet */
        give_fields(L, box);
}

int push_closed(lua_State *L) {
    return push_refusal(L, ERR_ECLOSED, "the pipe was closed");
}

int push_pipe_failure(lua_State *L, const struct box *box, int status, const char *what) {
    if (status == ERR_ECLOSED)
        return push_closed(L);
    return push_failure(L, status, "%s %s", what, box->remote);
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

int push_reader_busy(lua_State *L) {
    return push_refusal(L, UV_EBUSY, "another task receives from this pipe");
}

int park_reader(lua_State *L, struct box *box, double timeout_s, lua_KFunction k) {
    if (box->reader) /* it came between the bytes' arrival and this task's turn */
        return push_reader_busy(L);
    struct wait *wait = wait_begin(L);
    box->reader = wait;
    pipe_on_readable(box->pipe, on_readable, box);
    return wait_park(L, wait, timeout_s, detach_reader, box, k, (lua_KContext)box);
}

/* The stack: pipe, deadline, the most bytes to return. */
static int receive(lua_State *L, int status, lua_KContext ctx) {
    struct box *box = (struct box *)ctx;
    if (!box->pipe)
        return push_closed(L);
    if (!scratch && !(scratch = malloc(READ_SIZE)))
        return push_pipe_failure(L, box, UV_ENOMEM, "receiving from");
    ssize_t n = pipe_read(box->pipe, scratch, (size_t)lua_tointeger(L, 3));
    if (n > 0) {
        box->received += (uint64_t)n;
        lua_pushlstring(L, scratch, (size_t)n);
        return 1;
    }
    if (n == UV_EOF)
        return push_refusal(L, UV_EOF, "the peer has sent all it had");
    if (n != UV_EAGAIN)
        return push_pipe_failure(L, box, (int)n, "receiving from");
    if (status != 0)
        return push_pipe_failure(L, box, status, "receiving from");
    return park_reader(L, box, time_left(L, 2), receive);
}

static int begin_receiving(lua_State *L, struct box *box, double timeout_s, lua_Integer most) {
    if (box->reader || box->pouring)
        return push_reader_busy(L);
    lua_settop(L, 1);
    push_deadline(L, timeout_s);
    lua_pushinteger(L, most);
    wait_begin(L);
    return receive(L, 0, (lua_KContext)box);
}

/* receive(pipe [, timeout]) -> bytes, as many as there are; nil, "EOF: …", "EOF" at the end. What
 * is held stays held. */
static int receive_(lua_State *L) {
    struct box *box = check_pipe(L);
    return begin_receiving(L, box, check_timeout(L, 2, -1), READ_SIZE);
}

/* hold(pipe, text, from): the next recv gives out the text from the place `from` on */
static int hold(lua_State *L) {
    struct box *box = check_pipe(L);
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
    struct box *box = check_pipe(L);
    if (box->held == 0)
        lua_pushliteral(L, "");
    else
        lua_getiuservalue(L, 1, HELD);
    lua_pushinteger(L, box->held == 0 ? 1 : (lua_Integer)box->held);
    return 2;
}

int push_held(lua_State *L, struct box *box, size_t most) {
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
    struct box *box = check_pipe(L);
    double timeout_s = check_timeout(L, 2, -1);
    lua_Integer most = luaL_optinteger(L, 3, READ_SIZE);
    luaL_argcheck(L, most >= 1, 3, "a number of bytes from 1 on");
    if (box->held > 0 && !box->pouring)
        return push_held(L, box, (size_t)most);
    return begin_receiving(L, box, timeout_s, most < READ_SIZE ? most : READ_SIZE);
}

/* --- sending ------------------------------------------------------------------------------- */

static void watch_queue(struct box *box);
static bool write_on(struct box *box, int *status);

/* Goes on with the string under way, or wakes one writer, which writes and may wait again. Asks for
 * the next turn before that: the one who wakes may let go of the pipe, and the box be collected. */
static void on_drained(void *arg, int status) {
    struct box *box = arg;
    struct wait *wait = box->sender;
    box->watching = false;
    if (wait && !write_on(box, &status)) {
        watch_queue(box);
        return;
    }
    if (!wait)
        wait = wait_list_first(&box->writers);
    if (!wait)
        return;
    box->sender = NULL;
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

int park_writer(lua_State *L, struct box *box, double timeout_s, lua_KFunction k) {
    struct wait *wait = wait_begin(L);
    wait_list_add(&box->writers, wait);
    watch_queue(box);
    return wait_park(L, wait, timeout_s, wait_list_remove, wait, k, (lua_KContext)box);
}

/* Writes of the string under way what the queue takes. Returns whether that was all. */
static bool write_on(struct box *box, int *status) {
    while (*status == 0 && box->left > 0 && pipe_queued(box->pipe) <= PIPE_HIGH_WATER) {
        size_t part = box->left < WRITE_PART ? box->left : WRITE_PART;
        *status = pipe_write(box->pipe, box->data, part);
        box->sent += *status == 0 ? part : 0;
        box->data += part;
        box->left -= part;
    }
    return *status != 0 || (box->left == 0 && pipe_queued(box->pipe) <= PIPE_HIGH_WATER);
}

static void detach_sender(void *arg) {
    struct box *box = arg;
    box->sender = NULL;
}

/* The stack: pipe, data, deadline. */
static int sent(lua_State *L, int status, lua_KContext ctx) {
    struct box *box = (struct box *)ctx;
    if (status == UV_ETIMEDOUT)
        return push_refusal(L, status, "%s does not take more; a part of it may be on its way",
                            box->remote);
    if (status != 0)
        return push_pipe_failure(L, box, status, "sending to");
    lua_pushboolean(L, 1);
    return 1;
}

/* One string at a time: whoever comes while one is under way waits for its end. */
static int send_on(lua_State *L, int status, lua_KContext ctx) {
    struct box *box = (struct box *)ctx;
    if (!box->pipe)
        return push_closed(L);
    if (status != 0)
        return sent(L, status, ctx);
    if (box->sender)
        return park_writer(L, box, time_left(L, 3), send_on);
    box->data = lua_tolstring(L, 2, &box->left);
    if (write_on(box, &status))
        return sent(L, status, ctx);
    struct wait *wait = box->sender = wait_begin(L);
    watch_queue(box);
    return wait_park(L, wait, time_left(L, 3), detach_sender, box, sent, ctx);
}

/* pipe:send(data [, timeout]) -> true; waits while more than the high-water mark is queued */
static int send_(lua_State *L) {
    struct box *box = check_pipe(L);
    luaL_checkstring(L, 2);
    double timeout_s = check_timeout(L, 3, -1);
    wait_begin(L);
    lua_settop(L, 2);
    push_deadline(L, timeout_s);
    return send_on(L, 0, (lua_KContext)box);
}

/* --- what it is ---------------------------------------------------------------------------- */

/* The metatable of each pipe's table of fields: behind them are the methods. */
static const char behind_key;

static int newindex(lua_State *L) {
    check_pipe(L);
    const char *name = luaL_checkstring(L, 2);
    luaL_argcheck(L, strcmp(name, "strategy") == 0, 2, "a pipe has only its 'strategy' to set");
    luaL_getmetafield(L, 1, "__index");
    lua_replace(L, 1);
    lua_rawset(L, 1);
    return 0;
}

static int tostring(lua_State *L) {
    struct box *box = check_pipe(L);
    lua_getfield(L, 1, "strategy");
    const char *strategy = lua_tostring(L, -1);
    lua_pushfstring(L, "pipe (%s%s%s, %s)", strategy ? strategy : "", strategy ? " with " : "",
                    *box->remote ? box->remote : "nobody", box->pipe ? "open" : "closed");
    return 1;
}

static const luaL_Reg metamethods[] = {{"__newindex", newindex},
                                       {"__gc", close_pipe},
                                       {"__close", close_pipe},
                                       {"__tostring", tostring},
                                       {NULL, NULL}};

/* Each pipe has a metatable of its own, with its fields under __index, and the methods behind
 * them: Lua finds one without calling a function, which were a seventieth of what a small message
 * takes, and who looks into a pipe, as the prompt does, sees what it has. */
void give_fields(lua_State *L, const struct box *box) {
    const struct {
        const char *name, *text;
    } fields[] = {{"peer", box->peer}, {"remote", box->remote}, {"local_address", box->local}};
    lua_createtable(L, 0, 6); /* these, __name and __index */
    luaL_setfuncs(L, metamethods, 0);
    lua_pushliteral(L, PIPE_TYPE);
    lua_setfield(L, -2, "__name");
    lua_createtable(L, 0, 4); /* strategy comes later */
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (*fields[i].text) {
            lua_pushstring(L, fields[i].text);
            lua_setfield(L, -2, fields[i].name);
        }
    lua_rawgetp(L, LUA_REGISTRYINDEX, &behind_key);
    lua_setmetatable(L, -2);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
}

/* state(pipe) -> whether it is open, bytes that were sent, bytes that were received */
static int state(lua_State *L) {
    struct box *box = check_pipe(L);
    lua_pushboolean(L, box->pipe != NULL);
    lua_pushinteger(L, (lua_Integer)box->sent);
    lua_pushinteger(L, (lua_Integer)box->received);
    return 3;
}

static int module_gc(lua_State *L) {
    wait_end(L);
    end_lingering(L);
    free(scratch);
    scratch = NULL;
    return 0;
}

static const luaL_Reg methods[] = {
    {"send", send_},       {"recv", recv_},       {"shutdown", shutdown_pipe},
    {"close", close_pipe}, {"commit", commit},    {"admit", admit},
    {"refuse", refuse},    {"abort", abort_pipe}, {"send_from", send_from},
    {"recv_to", recv_to},  {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"dial", dial_pipe}, {"adopt", adopt_socket}, {"receive", receive_}, {"hold", hold},
    {"held", held},      {"keep", keep_with},     {"state", state},      {NULL, NULL}};

int open_pipe(lua_State *L) {
    lua_newuserdatauv(L, 1, 0);
    luaL_newmetatable(L, "p2pd.pipes");
    lua_pushcfunction(L, module_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, "p2pd.pipes.lingering");
    make_identities(L);
    open_socket(L);
    module_type(L, PIPE_TYPE, methods, metamethods);
    open_pour(L);
    luaL_getmetatable(L, PIPE_TYPE);
    luaL_newlib(L, functions);
    lua_createtable(L, 0, 1);
    lua_getfield(L, -3, "__index");
    lua_pushvalue(L, -1);
    lua_setfield(L, -4, "methods"); /* to which lua/p2pd/pipe.lua adds its own */
    lua_setfield(L, -2, "__index");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &behind_key);
    lua_remove(L, -2);
    return 1;
}
