/* pipe: a pipe as Lua holds it.
 *
 * Provides  the userdata, and how it is secured, to bindings/listener
 * Uses      core/pipe, bindings/wait */
#ifndef BINDINGS_PIPE_H
#define BINDINGS_PIPE_H

#include "core/key.h"
#include "core/pipe.h"

#include <lua.h>

/* The TLS side of the identity at `index`, made once for each; throws when that is no identity.
 * NULL when it was closed, or there was no memory. The reference stays the identity's. */
struct tls_identity *pipe_identity(lua_State *L, int index);

/* Pushes a userdata that owns the pipe from now on. */
void pipe_push(lua_State *L, struct pipe *pipe);

/* The node id in field `key` of the table at `index`, as a public key: true, or false when the
 * field is nil. Throws when it is anything else. */
bool pipe_expected(lua_State *L, int index, const char *key, uint8_t out[KEY_PUBLIC_SIZE]);

/* Secures the connected pipe on top of the stack as TLS_CLIENT with a peer of this key, and parks
 * the task until that is done: the call then returns the pipe. When it fails `otherwise` goes on
 * with the stack below the pipe; when the time is over the call returns nil, message, code. Use as
 * `return …`. */
int pipe_secure_client(lua_State *L, const uint8_t expected[KEY_PUBLIC_SIZE], double timeout_s,
                       lua_KFunction otherwise);

#endif
