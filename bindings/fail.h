/* fail: the one way in which a C function tells Lua that something did not work.
 *
 * Provides  push_failure and option checks shared by all bindings
 * Uses      core/err */
#ifndef BINDINGS_FAIL_H
#define BINDINGS_FAIL_H

#include <lauxlib.h>
#include <lua.h>

/* Pushes nil, "ECODE: sentence", "ECODE" and returns 3. The format (may be NULL) says what failed,
 * as in "cannot dial 192.0.2.7:80"; the status's own clause follows it. */
int push_failure(lua_State *L, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Pushes nil, "ECODE: sentence", "ECODE" with a sentence that is complete already; returns 3. */
int push_refusal(lua_State *L, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Throws at the caller's line when argument `arg` is a table with a key that `keys`
 * (NULL-terminated) does not list, or is no table. */
void check_options(lua_State *L, int arg, const char *const keys[]);

/* A timeout in seconds: nil or absent gives `otherwise`; negative numbers and NaN throw.
 * A result below zero means "no limit". */
double check_timeout(lua_State *L, int arg, double otherwise);

/* The same for field `key` of the options table at `arg`. */
double option_timeout(lua_State *L, int arg, const char *key, double otherwise);

#endif
