/* module: the C side of the library as one Lua module, p2pd.core.
 *
 * Provides  luaopen_p2pd_core and what the open_… functions share; open_… leave one table
 * Uses      every other unit of bindings/, luv */
#ifndef BINDINGS_MODULE_H
#define BINDINGS_MODULE_H

#include <lauxlib.h>
#include <lua.h>

int luaopen_p2pd_core(lua_State *L);

/* Makes the metatable `name` with methods under __index and the metamethods beside it. */
void module_type(lua_State *L, const char *name, const luaL_Reg methods[],
                 const luaL_Reg metamethods[]);

/* The same; what is no method of such a userdata is looked up in the table that is its user
 * value 1. Leaves the table of methods. */
void module_type_with_fields(lua_State *L, const char *name, const luaL_Reg methods[],
                             const luaL_Reg metamethods[]);

int open_task(lua_State *L);
int open_address(lua_State *L);
int open_identity(lua_State *L);
int open_dns(lua_State *L);
int open_signal(lua_State *L);
int open_pipe(lua_State *L);
int open_listener(lua_State *L);
int open_nic(lua_State *L);
int open_clock(lua_State *L);
int open_stun(lua_State *L);
int open_router(lua_State *L);
int open_nat(lua_State *L);
int open_nat_model(lua_State *L);
int open_turn(lua_State *L);
int open_punch(lua_State *L);
int open_console(lua_State *L);
int open_portmap(lua_State *L); /* the program alone has it: bindings/portmap.c */

#endif
