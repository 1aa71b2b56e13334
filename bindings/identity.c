#include "bindings/identity.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "core/bytes.h"
#include "core/err.h"
#include "core/machine.h"
#include "core/seal.h"

#include <time.h>

enum { RANDOM_MAX = 64 };

static struct identity *check(lua_State *L) {
    return luaL_checkudata(L, 1, IDENTITY_TYPE);
}

struct key *check_key(lua_State *L, int arg) {
    struct identity *identity = luaL_checkudata(L, arg, IDENTITY_TYPE);
    return identity->key;
}

static int closed(lua_State *L) {
    return push_refusal(L, ERR_ECLOSED, "the identity was closed");
}

/* open{path = default_path(), lock = false} -> identity, or nil, message, code */
static int open_(lua_State *L) {
    static const char *const keys[] = {"path", "lock", NULL};
    char path[PATH_MAX], message[IDENTITY_MESSAGE_SIZE];
    lua_settop(L, 1);
    if (lua_isnil(L, 1)) {
        lua_newtable(L);
        lua_replace(L, 1);
    }
    check_options(L, 1, keys);
    int lock_type = lua_getfield(L, 1, "lock"), path_type = lua_getfield(L, 1, "path");
    luaL_argcheck(L, lock_type == LUA_TBOOLEAN || lock_type == LUA_TNIL, 1, "lock is a boolean");
    luaL_argcheck(L, path_type == LUA_TSTRING || path_type == LUA_TNIL, 1, "path is a string");
    if (path_type == LUA_TNIL) {
        int status = identity_default_path(path, sizeof path);
        if (status != 0)
            return push_failure(L, status, "cannot tell where the key file belongs");
        lua_pushstring(L, path);
    }
    struct identity *identity = lua_newuserdatauv(L, sizeof *identity, 0);
    *identity = (struct identity){.lock = -1};
    luaL_setmetatable(L, IDENTITY_TYPE);
    bool lock = lua_toboolean(L, 2);
    int status = identity_open(lua_tostring(L, -2), lock, identity, message);
    return status == 0 ? 1 : push_refusal(L, status, "%s", message);
}

/* default_path() -> path, or nil, message, code */
static int default_path(lua_State *L) {
    char path[PATH_MAX];
    int status = identity_default_path(path, sizeof path);
    if (status != 0)
        return push_failure(L, status, "cannot tell where the key file belongs");
    lua_pushstring(L, path);
    return 1;
}

/* machine_id() -> 64 hex digits, the same for all nodes of this computer */
static int get_machine_id(lua_State *L) {
    char id[MACHINE_ID_SIZE];
    machine_id(id);
    lua_pushstring(L, id);
    return 1;
}

/* random(bytes) -> as many random bytes, in hex */
static int get_random(lua_State *L) {
    lua_Integer length = luaL_checkinteger(L, 1);
    luaL_argcheck(L, length >= 1 && length <= RANDOM_MAX, 1, "not between 1 and 64");
    uint8_t bytes[RANDOM_MAX];
    char text[2 * RANDOM_MAX + 1];
    crypto_random(bytes, (size_t)length);
    hex_encode(bytes, (size_t)length, text);
    lua_pushlstring(L, text, 2 * (size_t)length);
    return 1;
}

/* identity:id() -> node id */
static int get_id(lua_State *L) {
    struct identity *identity = check(L);
    if (!identity->key)
        return closed(L);
    lua_pushstring(L, key_id(identity->key));
    return 1;
}

/* identity:public() -> the 33 bytes of the public key */
static int get_public(lua_State *L) {
    struct identity *identity = check(L);
    if (!identity->key)
        return closed(L);
    lua_pushlstring(L, (const char *)key_public(identity->key), KEY_PUBLIC_SIZE);
    return 1;
}

/* identity:path() -> of the key file */
static int get_path(lua_State *L) {
    struct identity *identity = check(L);
    if (!identity->key)
        return closed(L);
    lua_pushstring(L, identity->path);
    return 1;
}

/* identity:made() -> whether the key was made when it was opened */
static int get_made(lua_State *L) {
    struct identity *identity = check(L);
    if (!identity->key)
        return closed(L);
    lua_pushboolean(L, identity->made);
    return 1;
}

/* identity:seal(node_id, body) -> the message that only that node can read, or nil, message, code
 */
static int seal_(lua_State *L) {
    struct identity *identity = check(L);
    size_t length, id_length;
    const char *node_id = luaL_checklstring(L, 2, &id_length);
    const char *body = luaL_checklstring(L, 3, &length);
    uint8_t recipient[KEY_PUBLIC_SIZE], id[SEAL_ID_SIZE], out[SEAL_MAX_MESSAGE];
    struct timespec now;
    if (!identity->key)
        return closed(L);
    if (node_id_parse(node_id, id_length, recipient) != 0)
        return push_refusal(L, UV_EINVAL, "'%.64s' is no node id of ours", node_id);
    clock_gettime(CLOCK_REALTIME, &now);
    crypto_random(id, sizeof id);
    uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    int status = seal(identity->key, recipient, now_ms, id, body, length, out);
    if (status != 0)
        return push_failure(L, status, "cannot seal %zu bytes", length);
    lua_pushlstring(L, (const char *)out, SEAL_OVERHEAD + length);
    return 1;
}

/* identity:unseal(bytes) -> {from = node id, time = seconds since 1970, id = hex, body = string},
 * proven but neither checked for its age nor for copies; or nil, message, code */
static int unseal(lua_State *L) {
    struct identity *identity = check(L);
    size_t length;
    const uint8_t *bytes = (const uint8_t *)luaL_checklstring(L, 2, &length);
    uint8_t buffer[SEAL_MAX_MESSAGE];
    char from[KEY_ID_SIZE], id[2 * SEAL_ID_SIZE + 1];
    struct seal_message message;
    if (!identity->key)
        return closed(L);
    int status = seal_open(identity->key, bytes, length, buffer, &message);
    if (status != 0)
        return push_failure(L, status, "cannot open the message");
    lua_createtable(L, 0, 4);
    node_id_format(message.sender, from);
    lua_pushstring(L, from);
    lua_setfield(L, -2, "from");
    lua_pushnumber(L, (lua_Number)message.time_ms / 1000);
    lua_setfield(L, -2, "time");
    hex_encode(message.id, SEAL_ID_SIZE, id);
    lua_pushstring(L, id);
    lua_setfield(L, -2, "id");
    lua_pushlstring(L, (const char *)message.body, message.body_length);
    lua_setfield(L, -2, "body");
    return 1;
}

/* identity:close(), also at the end of <close> and by the collector */
static int close_(lua_State *L) {
    identity_close(check(L));
    return 0;
}

static int tostring(lua_State *L) {
    const struct identity *identity = check(L);
    if (identity->key)
        lua_pushfstring(L, "identity %s", key_id(identity->key));
    else
        lua_pushliteral(L, "identity (closed)");
    return 1;
}

static const luaL_Reg functions[] = {
    {"open", open_},
    {"default_path", default_path},
    {"machine_id", get_machine_id},
    {"random", get_random},
    {NULL, NULL},
};

static const luaL_Reg methods[] = {
    {"id", get_id},  {"public", get_public}, {"path", get_path}, {"made", get_made},
    {"seal", seal_}, {"unseal", unseal},     {"close", close_},  {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__gc", close_}, {"__close", close_}, {"__tostring", tostring}, {NULL, NULL}};

int open_identity(lua_State *L) {
    module_type(L, IDENTITY_TYPE, methods, metamethods);
    luaL_newlib(L, functions);
    return 1;
}
