#include "bindings/fail.h"

#include "core/err.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

enum { SENTENCE_SIZE = 512 };

int push_refusal(lua_State *L, int status, const char *format, ...) {
    char sentence[SENTENCE_SIZE];
    va_list list;
    va_start(list, format);
    vsnprintf(sentence, sizeof sentence, format, list);
    va_end(list);
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", err_name(status), sentence);
    lua_pushstring(L, err_name(status));
    return 3;
}

int push_failure(lua_State *L, int status, const char *format, ...) {
    if (!format)
        return push_refusal(L, status, "%s", err_message(status));
    char what[SENTENCE_SIZE];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    return push_refusal(L, status, "%s: %s", what, err_message(status));
}

void check_options(lua_State *L, int arg, const char *const keys[]) {
    luaL_checktype(L, arg, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        size_t i = 0;
        while (key && keys[i] && strcmp(keys[i], key) != 0)
            i++;
        if (!key || !keys[i]) {
            lua_pushfstring(L, "unknown option '%s'", luaL_tolstring(L, -2, NULL));
            luaL_argerror(L, arg, lua_tostring(L, -1));
        }
    }
}

static double seconds(lua_State *L, int index, double otherwise, const char **wrong) {
    *wrong = NULL;
    if (lua_isnoneornil(L, index))
        return otherwise;
    double value = lua_isnumber(L, index) ? lua_tonumber(L, index) : -1;
    if (!(value >= 0))
        *wrong = "a timeout is a number of seconds, zero or more";
    return isinf(value) ? -1 : value;
}

double check_timeout(lua_State *L, int arg, double otherwise) {
    const char *wrong;
    double value = seconds(L, arg, otherwise, &wrong);
    if (wrong)
        luaL_argerror(L, arg, wrong);
    return value;
}

double option_timeout(lua_State *L, int arg, const char *key, double otherwise) {
    const char *wrong;
    lua_getfield(L, arg, key);
    double value = seconds(L, -1, otherwise, &wrong);
    lua_pop(L, 1);
    if (wrong)
        luaL_argerror(L, arg, wrong);
    return value;
}
