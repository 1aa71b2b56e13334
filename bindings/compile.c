/* compile: makes of Lua files what liblua loads without parsing, for source.c to carry; run while
 * the program is built.
 *
 *   compile FILE OUT
 *
 * Names and lines stay in it, for what errors tell. */
#include "bindings/source_format.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>

static int append(lua_State *L, const void *bytes, size_t length, void *file) {
    (void)L;
    return fwrite(bytes, 1, length, file) != length;
}

static void read_all(lua_State *L, const char *path) {
    char part[BUFSIZ];
    luaL_Buffer text;
    size_t n;
    FILE *file = fopen(path, "rb");
    if (!file)
        luaL_error(L, "%s: it cannot be read", path);
    luaL_buffinit(L, &text);
    while ((n = fread(part, 1, sizeof part, file)) > 0)
        luaL_addlstring(&text, part, n);
    fclose(file);
    luaL_pushresult(&text);
}

/* compile(path, to) */
static int compile(lua_State *L) {
    const char *path = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2);
    size_t length;
    read_all(L, path);
    const char *text = lua_tolstring(L, -1, &length);
    lua_pushfstring(L, "@%s", source_name(path));
    if (luaL_loadbufferx(L, text, length, lua_tostring(L, -1), "t") != LUA_OK)
        return lua_error(L);
    FILE *file = fopen(to, "wb");
    bool failed = !file || fwrite(lua_ident, SOURCE_RELEASE_SIZE(lua_ident), 1, file) != 1 ||
                  lua_dump(L, append, file, 0) != 0;
    if ((file && fclose(file) != 0) || failed)
        luaL_error(L, "%s: it cannot be written", to);
    return 0;
}

int main(int count, char **arguments) {
    lua_State *L = luaL_newstate();
    if (!L || count != 3) {
        fprintf(stderr, "usage: compile FILE OUT\n");
        return 2;
    }
    lua_pushcfunction(L, compile);
    lua_pushstring(L, arguments[1]);
    lua_pushstring(L, arguments[2]);
    int status = lua_pcall(L, 2, 0, 0);
    if (status != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        remove(arguments[2]);
    }
    lua_close(L);
    return status == LUA_OK ? 0 : 1;
}
