/* identity: the node's key as Lua holds it.
 *
 * Provides  the key to the bindings that secure pipes and seal messages
 * Uses      core/identity */
#ifndef BINDINGS_IDENTITY_H
#define BINDINGS_IDENTITY_H

#include "core/identity.h"

#include <lua.h>

#define IDENTITY_TYPE "p2pd.identity"

/* The key of the identity that is argument `arg`; throws when it is none. NULL when it was closed.
 * Who keeps the key longer than the call takes a reference (key_keep). */
struct key *check_key(lua_State *L, int arg);

#endif
