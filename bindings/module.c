#include "bindings/module.h"

#include "bindings/source.h"
#include "bindings/task.h"

#include <luv/lhandle.h>
#include <string.h>

/* Each becomes the field of p2pd.core with its name. */
#define MODULES(X)                                                                                 \
    X(source)                                                                                      \
    X(nat)                                                                                         \
    X(nat_model)                                                                                   \
    X(turn)                                                                                        \
    X(punch)                                                                                       \
    X(clock)                                                                                       \
    X(console)                                                                                     \
    X(task) X(address) X(identity) X(dns) X(signal) X(pipe) X(listener) X(nic) X(stun) X(router)

static const luaL_Reg modules[] = {
#define X(name) {#name, open_##name},
    MODULES(X)
#undef X
        {NULL, NULL},
};

void module_type(lua_State *L, const char *name, const luaL_Reg methods[],
                 const luaL_Reg metamethods[]) {
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, metamethods, 0);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

static void collect(uv_handle_t *handle, void *argument) {
    lua_State *L = argument;
    const luv_handle_t *luvs = handle->data;
    if (!luvs)
        return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, luvs->ref);
    lua_rawseti(L, 2, (lua_Integer)lua_rawlen(L, 2) + 1);
}

/* luv.walk(function): luv takes each handle of the loop for its own and would read ours as such;
 * they are known by their empty data field (core/loop.h) and passed over. */
static int walk(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_newtable(L);
    uv_walk(wait_loop(L), collect, L);
    for (lua_Integer i = 1; lua_rawgeti(L, 2, i) != LUA_TNIL; i++) {
        lua_pushvalue(L, 1);
        lua_insert(L, -2);
        lua_call(L, 1, 0);
    }
    return 0;
}

static int index_with_fields(lua_State *L) {
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
        return 1;
    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    return 1;
}

void module_type_with_fields(lua_State *L, const char *name, const luaL_Reg methods[],
                             const luaL_Reg metamethods[]) {
    module_type(L, name, methods, metamethods);
    luaL_getmetatable(L, name);
    lua_getfield(L, -1, "__index");
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, index_with_fields, 1);
    lua_setfield(L, -3, "__index");
    lua_remove(L, -2);
}

/* luv.run(mode): within a task the loop runs already and goes on after the script's last line, so
 * that a script written for luv, which ends in uv.run(), works as it is. */
static int run(lua_State *L) {
    if (runtime_of(L)->current) {
        lua_pushboolean(L, 0);
        return 1;
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

/* The parts of p2pd.core are opened when they are first asked for, which most scripts do of few. */
static int open_part(lua_State *L) {
    const char *name = lua_tostring(L, 2);
    for (const luaL_Reg *module = modules; name && module->name; module++)
        if (strcmp(module->name, name) == 0) {
            if (module->func == open_listener) { /* it makes pipes */
                lua_getfield(L, 1, "pipe");
                lua_settop(L, 2);
            }
            module->func(L);
            lua_pushvalue(L, 2);
            lua_pushvalue(L, -2);
            lua_rawset(L, 1);
            return 1;
        }
    return 0;
}

static void adapt_luv(lua_State *L) {
    lua_getglobal(L, "require");
    lua_pushliteral(L, "luv");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "run");
    if (lua_tocfunction(L, -1) != run) {
        lua_pushcclosure(L, run, 1);
        lua_setfield(L, -2, "run");
        lua_pushcfunction(L, walk);
        lua_setfield(L, -2, "walk");
    }
}

static const char core_key, luv_key;

/* A Lua state has one runtime: when package.loaded was emptied (busted does), the same table comes
 * again. */
int luaopen_p2pd_core(lua_State *L) {
    adapt_luv(L);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &core_key) == LUA_TTABLE)
        return 1;
    lua_pushvalue(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &luv_key); /* the loop goes when luv is collected */
    runtime_open(L, luv_loop(L));
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, open_part);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &core_key);
    lua_getfield(L, -1, "task"); /* the program makes tasks before anybody asks for it */
    lua_pop(L, 1);
    return 1;
}
