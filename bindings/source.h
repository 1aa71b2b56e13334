/* source: the Lua files of the library and of scripts/, carried inside of the program.
 *
 * Provides  the texts by their path in the tree, and the way by which require finds them
 * Owns      nothing: the texts are constants
 * With P2PD_LUA=./lua in the environment they are read from there instead, while one works on them.
 * */
#ifndef BINDINGS_SOURCE_H
#define BINDINGS_SOURCE_H

#include <lua.h>

/* Lets require find "p2pd" and "p2pd.…". */
void source_install(lua_State *L);

/* Loads the file `path` ("lua/p2pd/node.lua") as a function; returns lua_load's status, or -1 when
 * there is no such file. */
int source_load(lua_State *L, const char *path);

/* core.source: text(path) -> the file's text or nil, list() -> all paths. */
int open_source(lua_State *L);

#endif
