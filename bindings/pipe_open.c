#include "bindings/pipe_inner.h"

#include "bindings/fail.h"
#include "bindings/identity.h"
#include "bindings/module.h"
#include "bindings/socket.h"
#include "core/err.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TLS_TYPE "p2pd.tls"
#define DIAL_TIMEOUT_S 10.0

/* --- identity ------------------------------------------------------------------------------ */

static const char identities_key;

static int tls_gc(lua_State *L) {
    struct tls_identity **identity = lua_touserdata(L, 1);
    if (*identity)
        tls_identity_drop(*identity);
    *identity = NULL;
    return 0;
}

struct tls_identity *pipe_identity(lua_State *L, int index) {
    index = lua_absindex(L, index);
    struct key *key = check_key(L, index);
    if (!key)
        return NULL;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &identities_key);
    lua_pushvalue(L, index);
    if (lua_rawget(L, -2) == LUA_TNIL) {
        struct tls_identity **made = lua_newuserdatauv(L, sizeof *made, 0);
        *made = NULL;
        luaL_setmetatable(L, TLS_TYPE);
        if (tls_identity_new(key_pkey(key), made) == 0) {
            lua_pushvalue(L, index);
            lua_pushvalue(L, -2);
            lua_rawset(L, -5);
        }
        lua_remove(L, -2);
    }
    struct tls_identity *identity = *(struct tls_identity **)lua_touserdata(L, -1);
    lua_pop(L, 2);
    return identity;
}

void make_identities(lua_State *L) {
    lua_newtable(L);
    lua_newtable(L);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &identities_key);
    module_type(L, TLS_TYPE, (const luaL_Reg[]){{NULL, NULL}},
                (const luaL_Reg[]){{"__gc", tls_gc}, {NULL, NULL}});
}

/* --- opening ------------------------------------------------------------------------------- */

static void wake_opener(struct box *box, int status) {
    struct wait *wait = box->opener;
    box->opener = NULL;
    if (wait)
        wait_wake(wait, status);
}

static void on_secured(void *arg, int status) {
    struct box *box = arg;
    learn_peer(box);
    wake_opener(box, status);
}

static int start_securing(struct box *box) {
    return pipe_secure(box->pipe, box->role, box->expected, box->token, on_secured, box);
}

static void on_dialed(void *arg, int status) {
    struct box *box = arg;
    if (status == 0) {
        learn_addresses(box);
        status = start_securing(box);
    }
    if (status != 0)
        wake_opener(box, status);
}

static void detach_opener(void *arg) {
    struct box *box = arg;
    box->opener = NULL;
    if (box->pipe)
        pipe_abort(box->pipe, NULL, NULL);
    box->pipe = NULL;
}

/* The call is over: it returns the pipe at stack index `place`, or closes it and says why. */
static int opened(lua_State *L, int status, lua_KContext place) {
    struct box *box = lua_touserdata(L, (int)place);
    if (status == 0) {
        lua_settop(L, (int)place);
        give_fields(L, box);
        return 1;
    }
    if (box->otherwise && status != UV_ETIMEDOUT && status != ERR_ECLOSED) {
        close_box(box);
        lua_settop(L, (int)place - 1);
        return box->otherwise(L, 0, 0);
    }
    int pushed;
    const char *reason = box->pipe ? pipe_reason(box->pipe) : NULL;
    if (status == ERR_EPEER && *box->peer && box->expected) {
        char wanted[KEY_ID_SIZE];
        node_id_format(box->expected, wanted);
        pushed =
            strcmp(wanted, box->peer) == 0
                ? push_refusal(L, status, "%s did not accept this node's key", box->remote)
                : push_refusal(L, status, "at %s is %s, not %s", box->remote, box->peer, wanted);
    } else if (status == ERR_ETLS && reason) {
        pushed = push_refusal(L, status, "the secure handshake with %s failed (%s)", box->remote,
                              reason);
    } else {
        pushed = push_pipe_failure(L, box, status, "connecting to");
    }
    close_box(box); /* the peer is told why, when there is something to tell */
    return pushed;
}

static void expect(struct box *box, const uint8_t *expected) {
    if (!expected)
        return;
    memcpy(box->expected_bytes, expected, KEY_PUBLIC_SIZE);
    box->expected = box->expected_bytes;
}

int pipe_secure_client(lua_State *L, const uint8_t expected[KEY_PUBLIC_SIZE], double timeout_s,
                       lua_KFunction otherwise) {
    struct wait *wait = wait_begin(L);
    struct box *box = lua_touserdata(L, -1);
    int place = lua_gettop(L);
    box->role = TLS_CLIENT;
    box->otherwise = otherwise;
    expect(box, expected);
    int status = start_securing(box);
    if (status != 0)
        return opened(L, status, place);
    box->opener = wait;
    return wait_park(L, wait, timeout_s, detach_opener, box, opened, place);
}

bool pipe_expected(lua_State *L, int index, const char *key, uint8_t out[KEY_PUBLIC_SIZE]) {
    size_t length;
    if (lua_getfield(L, index, key) == LUA_TNIL) {
        lua_pop(L, 1);
        return false;
    }
    const char *text = lua_tolstring(L, -1, &length);
    if (!text || node_id_parse(text, length, out) != 0)
        luaL_error(L, "option '%s' is no node ID", key);
    lua_pop(L, 1);
    return true;
}

static bool address_option(lua_State *L, const char *ip_key, const char *port_key,
                           struct sockaddr_storage *out) {
    struct ip ip;
    size_t length;
    int is_port;
    if (lua_getfield(L, 1, ip_key) == LUA_TNIL) {
        lua_pop(L, 1);
        return false;
    }
    const char *text = lua_tolstring(L, -1, &length);
    if (!text || ip_parse(text, length, &ip) != 0)
        luaL_error(L, "option '%s' is no IP address", ip_key);
    lua_Integer port = 0;
    if (lua_getfield(L, 1, port_key) != LUA_TNIL) {
        port = lua_tointegerx(L, -1, &is_port);
        if (!is_port || port < 0 || port > UINT16_MAX)
            luaL_error(L, "option '%s' is no port", port_key);
    }
    ip_to_sockaddr(&ip, (uint16_t)port, out);
    lua_pop(L, 2);
    return true;
}

static const char *token_option(lua_State *L) {
    size_t length;
    lua_getfield(L, 1, "token");
    const char *token = lua_tolstring(L, -1, &length);
    if (token && (lua_type(L, -1) != LUA_TSTRING || length != PIPE_TOKEN_SIZE))
        luaL_error(L, "option 'token' is %d bytes", PIPE_TOKEN_SIZE);
    lua_pop(L, 1); /* the options table keeps it */
    return token;
}

/* What both ways to open a pipe are told by the table at 1: identity, expect, role, token, timeout,
 * relayed. Pushes the box, with a new pipe, and returns 0; or pushes why not, and returns how much.
 */
static int begin(lua_State *L, struct box **out, struct wait **wait, double *timeout_s) {
    static const char *const roles[] = {"client", "server", NULL};
    uint8_t expected[KEY_PUBLIC_SIZE];
    lua_settop(L, 1);
    bool expects = pipe_expected(L, 1, "expect", expected);
    *timeout_s = option_timeout(L, 1, "timeout", DIAL_TIMEOUT_S);
    const char *token = token_option(L);
    lua_getfield(L, 1, "role");
    int role = luaL_checkoption(L, -1, "client", roles);
    lua_getfield(L, 1, "identity");
    struct tls_identity *identity = pipe_identity(L, -1);
    *wait = wait_begin(L);
    if (!identity)
        return push_refusal(L, ERR_ECLOSED, "the identity was closed");
    struct box *box = push_box(L);
    box->role = role == 0 ? TLS_CLIENT : TLS_SERVER;
    expect(box, expects ? expected : NULL);
    if (token)
        box->token = memcpy(box->token_bytes, token, PIPE_TOKEN_SIZE);
    *out = box;
    int status = pipe_new(wait_loop(L), identity, &box->pipe);
    if (status != 0)
        return push_failure(L, status, "a pipe");
    lua_getfield(L, 1, "relayed");
    if (lua_toboolean(L, -1))
        pipe_relayed(box->pipe);
    lua_pop(L, 1);
    return 0;
}

/* Waits until the pipe on top of the stack is secured, or could not be. */
static int finish(lua_State *L, struct box *box, struct wait *wait, double timeout_s, int status) {
    int place = lua_gettop(L);
    if (status != 0)
        return opened(L, status, place);
    box->opener = wait;
    return wait_park(L, wait, timeout_s, detach_opener, box, opened, place);
}

int dial_pipe(lua_State *L) {
    static const char *const keys[] = {"identity", "ip",      "port",     "expect",
                                       "role",     "token",   "local_ip", "local_port",
                                       "timeout",  "relayed", NULL};
    struct sockaddr_storage remote, local;
    struct box *box;
    struct wait *wait;
    double timeout_s;
    check_options(L, 1, keys);
    lua_settop(L, 1);
    if (!address_option(L, "ip", "port", &remote))
        return luaL_error(L, "option 'ip' is missing");
    bool bound = address_option(L, "local_ip", "local_port", &local);
    if (!bound && lua_getfield(L, 1, "local_port") != LUA_TNIL)
        return luaL_error(L, "option 'local_port' needs a 'local_ip'");
    int refused = begin(L, &box, &wait, &timeout_s);
    if (refused)
        return refused;
    write_address(&remote, box->remote);
    int status = pipe_dial(box->pipe, (struct sockaddr *)&remote,
                           bound ? (struct sockaddr *)&local : NULL, on_dialed, box);
    return finish(L, box, wait, timeout_s, status);
}

int adopt_socket(lua_State *L) {
    static const char *const keys[] = {"identity", "socket",  "expect",  "role",
                                       "token",    "timeout", "relayed", NULL};
    struct box *box;
    struct wait *wait;
    double timeout_s;
    check_options(L, 1, keys);
    int refused = begin(L, &box, &wait, &timeout_s);
    if (refused)
        return refused;
    lua_getfield(L, 1, "socket");
    int fd = take_socket(L, -1);
    lua_getfield(L, -1, "remote"); /* where what the socket leads to is not the peer itself */
    if (lua_isstring(L, -1))
        snprintf(box->remote, sizeof box->remote, "%s", lua_tostring(L, -1));
    lua_pop(L, 2);
    int status = fd < 0 ? ERR_ECLOSED : pipe_adopt(box->pipe, fd);
    if (status != 0 && fd >= 0)
        close(fd);
    if (status == 0) {
        learn_addresses(box);
        status = start_securing(box);
    }
    return finish(L, box, wait, timeout_s, status);
}

/* --- the first words ----------------------------------------------------------------------- */

/* pipe:commit(attempt) -> true: of all pipes of this attempt it is the one to keep */
int commit(lua_State *L) {
    struct box *box = check_pipe(L);
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
    struct box *box = check_pipe(L);
    if (!box->pipe)
        return push_closed(L);
    int status = pipe_admit(box->pipe, verdict);
    if (status != 0)
        return push_pipe_failure(L, box, status, "answering");
    lua_pushboolean(L, 1);
    return 1;
}

/* pipe:admit() -> true: the server's side takes the pipe; sending and receiving say so too */
int admit(lua_State *L) {
    return say_verdict(L, PIPE_ADMITTED);
}

/* pipe:refuse([code]) -> true: turns the peer away, which learns the code: "EDENIED" or "EBUSY" */
int refuse(lua_State *L) {
    static const char *const codes[] = {"EDENIED", "EBUSY", NULL};
    static const enum pipe_verdict verdicts[] = {PIPE_DENIED, PIPE_BUSY};
    int said = say_verdict(L, verdicts[luaL_checkoption(L, 2, "EDENIED", codes)]);
    close_box(check_pipe(L));
    return said;
}
