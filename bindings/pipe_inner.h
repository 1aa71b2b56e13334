/* pipe_inner: what the files of the pipe binding share; for them alone.
 *
 *   pipe.c       the box, what is sent and received; the module
 *   pipe_end.c   how it ends, and what ends with it
 *   pipe_open.c  identities for TLS; dialing and securing; the first words
 *   pipe_pour.c  what goes between a pipe and a file descriptor, without a script in between
 *
 * Provides  the box in which Lua holds a pipe
 * Uses      core/pipe, core/ip, bindings/wait
 * Owns      the pipe, until close_box */
#ifndef BINDINGS_PIPE_INNER_H
#define BINDINGS_PIPE_INNER_H

#include "bindings/pipe.h"
#include "bindings/wait.h"
#include "core/ip.h"

#define REMOTE_SIZE (IP_TEXT_SIZE + 8)

struct box {
    const void *mark;  /* for check_pipe */
    struct pipe *pipe; /* NULL once it is closed */
    struct wait *opener, *reader, *shutter;
    struct wait *sender; /* of the string under way: `left` bytes at `data`, on its task's stack */
    const char *data;
    size_t left;
    struct wait_link writers;
    enum tls_role role;
    lua_KFunction otherwise; /* goes on in place of a failure to secure it */
    bool watching;           /* a callback tells the writers when the queue has drained */
    bool pouring;            /* recv_to has the receiving side */
    uint64_t sent, received; /* bytes of scripts' */
    size_t held;             /* where what recv gives out first begins in its text, from 1; or 0 */
    const uint8_t *token;
    uint8_t token_bytes[PIPE_TOKEN_SIZE], expected_bytes[KEY_PUBLIC_SIZE];
    const uint8_t *expected;
    lua_State *main;
    int kept;               /* what is closed after the pipe (keep); LUA_NOREF: nothing */
    char peer[KEY_ID_SIZE]; /* "" until it is proven */
    char remote[REMOTE_SIZE], local[REMOTE_SIZE];
};

/* The pipe at stack index 1; throws when that is none. */
struct box *check_pipe(lua_State *L);

void write_address(const struct sockaddr_storage *address, char out[REMOTE_SIZE]);

/* Pushes a box without a pipe. */
struct box *push_box(lua_State *L);

/* Write into the box what its pipe knows by now. */
void learn_addresses(struct box *box);
void learn_peer(struct box *box);

/* Gives the pipe on top of the stack, before a script has it, the fields that scripts read. */
void give_fields(lua_State *L, const struct box *box);

/* Closes the pipe, which lingers until it has delivered what it accepted, and ends all waits for it
 * with ERR_ECLOSED. Does nothing when it is closed already. */
void close_box(struct box *box);

/* A push_failure: `what` and the remote address, as in "connecting to 192.0.2.7:80". */
int push_pipe_failure(lua_State *L, const struct box *box, int status, const char *what);

int push_closed(lua_State *L);

int push_reader_busy(lua_State *L);

/* Park the task until it is worth trying again to read (one task at a time) or to write. k gets the
 * box as its context: at stack index 1, where it lies, it would have to be looked up. */
int park_reader(lua_State *L, struct box *box, double timeout_s, lua_KFunction k);
int park_writer(lua_State *L, struct box *box, double timeout_s, lua_KFunction k);

/* Pushes at most so many bytes of what is held: box->held is not 0. */
int push_held(lua_State *L, struct box *box, size_t most);

/* pipe:shutdown([timeout]), pipe:close(), pipe:abort(), keep(pipe, thing) */
int shutdown_pipe(lua_State *L);
int close_pipe(lua_State *L);
int abort_pipe(lua_State *L);
int keep_with(lua_State *L);
void end_lingering(lua_State *L); /* the Lua state ends */

/* pipe:send_from(fd) -> bytes, when it has ended; pipe:recv_to(fd) -> bytes, at the peer's end */
int send_from(lua_State *L);
int recv_to(lua_State *L);
void open_pour(lua_State *L);

/* Makes what pipe_identity keeps in the registry. */
void make_identities(lua_State *L);

/* dial{identity, ip, port, expect, role, token, local_ip, local_port, timeout} -> pipe, secured */
int dial_pipe(lua_State *L);

/* adopt{socket, identity, expect, role, token, timeout} -> pipe, secured, of a connection that
 * something else opened (bindings/socket) */
int adopt_socket(lua_State *L);

/* pipe:commit(attempt), pipe:admit(), pipe:refuse([code]) */
int commit(lua_State *L);
int admit(lua_State *L);
int refuse(lua_State *L);

#endif
