#include "bindings/source.h"

#include "bindings/module.h"
#include "bindings/source_format.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Text and what was compiled of it; the latter is empty for what is no program. */
struct source {
    const char *path, *text, *text_end, *code, *code_end;
};

/* build/embedded.inc holds EMBED(n, "path", "compiled") for each file. They come in by the
 * assembler; texts, which are rarely looked at, lie apart from what is run. */
#define CARRY(section, symbol, path)                                                               \
    ".pushsection " section "\n" symbol ":\n.incbin \"" path "\"\n" symbol "_end:\n.byte 0\n"      \
    ".popsection\n"
#define EMBED(n, path, compiled)                                                                   \
    __asm__(CARRY(".rodata.p2pd_text", "p2pd_text_" #n, path)                                      \
                CARRY(".rodata.p2pd_code", "p2pd_code_" #n, compiled));                            \
    extern const char p2pd_text_##n[], p2pd_text_##n##_end[], p2pd_code_##n[],                     \
        p2pd_code_##n##_end[];
#include "embedded.inc"
#undef EMBED

static const struct source sources[] = {
#define EMBED(n, path, compiled)                                                                   \
    {path, p2pd_text_##n, p2pd_text_##n##_end, p2pd_code_##n, p2pd_code_##n##_end},
#include "embedded.inc"
#undef EMBED
};

static const struct source *find(const char *path) {
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
        if (strcmp(sources[i].path, path) == 0)
            return &sources[i];
    return NULL;
}

/* "lua/…" lies in $P2PD_LUA, "scripts/…" beside it. */
static const char *on_disk(lua_State *L, const char *path) {
    const char *folder = getenv("P2PD_LUA");
    return folder && *folder ? lua_pushfstring(L, "%s/../%s", folder, path) : NULL;
}

/* Not every program that loads the library shows which release of Lua it is. */
#pragma weak lua_ident

static int load_source(lua_State *L, const struct source *source, const char *name) {
    const char *code = source->code;
    size_t length = (size_t)(source->code_end - code);
    if (length > 0 && lua_ident && strcmp(code, lua_ident) == 0) {
        size_t release = SOURCE_RELEASE_SIZE(code);
        return luaL_loadbufferx(L, code + release, length - release, name, "b");
    }
    return luaL_loadbufferx(L, source->text, (size_t)(source->text_end - source->text), name, "t");
}

int source_load(lua_State *L, const char *path) {
    const char *file = on_disk(L, path);
    if (file) {
        int status = access(file, R_OK) == 0 ? luaL_loadfile(L, file) : -1;
        lua_remove(L, status < 0 ? -1 : -2);
        return status;
    }
    const struct source *source = find(path);
    if (!source)
        return -1;
    lua_pushfstring(L, "@%s", source_name(path));
    int status = load_source(L, source, lua_tostring(L, -1));
    lua_remove(L, -2);
    return status;
}

/* A searcher of package.searchers: "p2pd.node" lies in lua/p2pd/node.lua, "p2pd" in its init.lua.
 */
static int search(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    if (strncmp(name, "p2pd", 4) != 0 || (name[4] != '\0' && name[4] != '.'))
        return 0;
    const char *stem = luaL_gsub(L, name, ".", "/");
    const char *patterns[] = {"lua/%s.lua", "lua/%s/init.lua"};
    for (size_t i = 0; i < 2; i++) {
        const char *path = lua_pushfstring(L, patterns[i], stem);
        int status = source_load(L, path);
        if (status == LUA_OK) {
            lua_pushstring(L, path);
            return 2;
        }
        if (status > 0)
            return lua_error(L);
    }
    lua_pushfstring(L, "no embedded module '%s'", name);
    return 1;
}

static int core(lua_State *L) {
    lua_pushcfunction(L, luaopen_p2pd_core);
    lua_call(L, 0, 1);
    return 1;
}

void source_install(lua_State *L) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    bool installed = lua_getfield(L, -1, "p2pd.core") != LUA_TNIL;
    lua_pop(L, installed ? 2 : 1);
    if (installed)
        return;
    lua_pushcfunction(L, core);
    lua_setfield(L, -2, "p2pd.core");
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "searchers");
    for (lua_Integer i = (lua_Integer)lua_rawlen(L, -1); i >= 2; i--) {
        lua_rawgeti(L, -1, i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushcfunction(L, search);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 3);
}

static int text(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    const struct source *source = find(path);
    if (!source)
        return lua_pushnil(L), 1;
    lua_pushlstring(L, source->text, (size_t)(source->text_end - source->text));
    return 1;
}

static int load_(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    int status = source_load(L, path);
    if (status == LUA_OK)
        return 1;
    lua_pushnil(L);
    if (status < 0)
        lua_pushfstring(L, "no embedded file '%s'", path);
    else
        lua_insert(L, -2);
    return 2;
}

static int list(lua_State *L) {
    lua_newtable(L);
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        lua_pushstring(L, sources[i].path);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

int open_source(lua_State *L) {
    luaL_newlib(
        L, ((const luaL_Reg[]){{"text", text}, {"load", load_}, {"list", list}, {NULL, NULL}}));
    return 1;
}

/* The entry of p2pd.so, by which stock Lua loads the same library. */
__attribute__((visibility("default"))) int luaopen_p2pd(lua_State *L);

int luaopen_p2pd(lua_State *L) {
    source_install(L);
    if (source_load(L, "lua/p2pd/init.lua") != LUA_OK)
        return lua_error(L);
    lua_pushliteral(L, "p2pd");
    lua_call(L, 1, 1);
    return 1;
}
